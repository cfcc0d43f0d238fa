"""What a layer could have, and what each of these gains with its best damping.

Left out on purpose: ``"unit"``, which differs from ``"input"`` by a factor for each output that the Adam base takes
away again, at ``d_out`` times the price; ``"layer"``, a reference. Dense roots are symmetric: under the Adam base that
was better than the eigenbasis. ``"kron"``: what its output side could win is a figure of the probe (`output_gain`), but
under Adam the promise did not hold (measured in the eigenbasis: it diverges on an MLP, an autoencoder and tabular data
where ``"input"`` trains well; with symmetric roots on tabular data only: it diverges with little damping, and with a
relative damping of 1 is no better than ``"input"``).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sngd_tune.core.account import Match
from sngd_tune.core.layers.base import Shape
from sngd_tune.selection.gain import Basis, Forms, Judge, block_basis, diagonal_basis, eigenbasis
from sngd_tune.selection.probe import LayerEvidence
from sngd_tune.selection.sample import LayerSample
from sngd_tune.settings import FisherSettings

__all__ = ["DAMPINGS", "Candidate", "Curve", "candidates"]

#: Relative dampings that are tried: a half decade apart. Smaller ones promise a little more and train unsteadily.
DAMPINGS = tuple(10 ** (k / 2) for k in range(-4, 3))
#: Share of the best gain that is as good as all of it.
_NEARLY = 0.9
_BLOCKS = (32, 128)
_RANKS = (2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Curve:
    """Expected decrease of the loss in a step, by the age of the root.

    Attributes:
        plain: without a local Fisher layer, ≥ 0.
        by_age: with a root of so many steps, ≥ 0; age 0 among them.
    """

    plain: float
    by_age: Mapping[int, float]

    @property
    def fresh(self) -> float:
        """With a root that was computed just now."""
        return self.by_age[0]

    def retained(self, age: int) -> float:
        """Share of the gain over `plain` that is left at a measured age, in [0, 1]; 1 where nothing was gained."""
        if self.fresh <= self.plain:
            return 1.0
        return min(max((self.by_age[age] - self.plain) / (self.fresh - self.plain), 0.0), 1.0)

    @property
    def lifetime(self) -> float:
        """``τ`` in steps, where the share left is taken as ``1 / (1 + age / τ)``; ∞ where nothing was lost."""
        rates = [(1 / max(self.retained(age), 0.02) - 1) / age for age in self.by_age if age]
        rate = sum(rates) / len(rates) if rates else 0.0
        return 1 / rate if rate > 0 else math.inf

    def at_interval(self, interval: int) -> float:
        """The mean over ages up to `interval`."""
        tau = self.lifetime
        if math.isinf(tau) or self.fresh <= self.plain:
            return self.fresh
        return self.plain + (self.fresh - self.plain) * math.log1p(interval / tau) * tau / interval


@dataclass(frozen=True)
class Candidate:
    """One way to rebuild a layer.

    Attributes:
        name: for people.
        settings: all but damping and intervals.
        curves: by relative damping.
    """

    name: str
    settings: FisherSettings
    curves: Mapping[float, Curve]

    def at_interval(self, interval: int) -> tuple[float, float]:
        """Expected decrease at the damping that suits this refresh interval, and that damping.

        Of dampings that are nearly as good as the best one it is the largest: it bears more of what a model of second
        order does not see (measured: on unscaled features 0.01 and 0.1 promise the same, and from a learning rate of
        8e-3 on only the larger one trains). Little damping ages sooner, too: a longer interval asks for more of it.
        """
        values = {damping: curve.at_interval(interval) for damping, curve in self.curves.items()}
        plain = next(iter(self.curves.values())).plain
        enough = plain + _NEARLY * (max(values.values()) - plain)
        damping = max(damping for damping, value in values.items() if value >= min(enough, max(values.values())))
        return values[damping], damping

    @property
    def best(self) -> Curve:
        """The one that is highest with a fresh root."""
        return max(self.curves.values(), key=lambda curve: curve.fresh)


def candidates(evidence: LayerEvidence) -> tuple[float, list[Candidate]]:
    """Expected decrease without a local Fisher layer (≥ 0, units of the loss), and all that the layer could have."""
    assessment = _Assessment(evidence)
    forms = _forms(evidence.match, evidence.fit)
    return assessment.plain, [assessment.candidate(form) for form in forms]


@dataclass(frozen=True)
class _Form:
    """A way to rebuild: how it is named and set, and how its ``P`` is fitted to a sample."""

    name: str
    settings: FisherSettings
    rank: int | None = None
    blocks: tuple[Tensor, ...] = ()

    @property
    def basis(self) -> str:
        """Forms of the same one share it."""
        return self.settings.granularity if self.blocks or self.settings.granularity == "diagonal" else "input"


def _forms(match: Match, sample: LayerSample) -> Iterator[_Form]:
    base = FisherSettings(root_scale="unit")
    yield _Form("diagonal", replace(base, granularity="diagonal", root="cholesky", rank=None))
    if sample.one_hot:
        return
    shape, d = match.site.shape, sample.inputs.shape[-1]
    for granularity, blocks in _blocks(match, shape, d):
        yield _Form(granularity, replace(base, granularity=granularity, root="eigh", rank=None), blocks=blocks)
    for rank in _RANKS:
        if rank < d:
            yield _Form(f"input rank {rank}", replace(base, rank=rank), rank)
    yield _Form("input", replace(base, root="eigh", rank=None))


def _blocks(match: Match, shape: Shape, d: int) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    """Block granularities that the layer can have; kernels' own only where all inputs are looked at."""
    for size in _BLOCKS:
        if size < d:
            yield f"block:{size}", torch.arange(d).split(size)
    if match.kind.convolves and shape.positions > 1 and d == shape.d:
        weights, rest = torch.arange(d - d % shape.positions), torch.arange(d - d % shape.positions, d)
        yield "block:channel", (*weights.split(shape.positions), *(rest[None] if len(rest) else ()))


class _Assessment:
    """Judges the forms of one layer; what forms share is computed once."""

    def __init__(self, evidence: LayerEvidence):
        self._judge = Judge(*evidence.judges, evidence.fit.examples)
        self._samples = {0: evidence.fit, **evidence.earlier}  # by age
        self._share = evidence.share
        self._fitted: dict[tuple[int, str], tuple[Basis, Forms]] = {}
        basis = diagonal_basis(evidence.fit.inputs)
        self.plain = float(self._judge.progress(basis, torch.ones_like(basis.values)).sum()) / self._share

    def candidate(self, form: _Form) -> Candidate:
        def curve(damping: float) -> Curve:
            return Curve(self.plain, {age: self._progress(form, damping, age) for age in sorted(self._samples)})

        return Candidate(form.name, form.settings, {damping: curve(damping) for damping in DAMPINGS})

    def _progress(self, form: _Form, damping: float, age: int) -> float:
        """Expected decrease with ``P`` fitted to the sample of an age."""
        basis, forms = self._fit(form, age)
        return float(forms.progress(basis.weights(damping, form.rank)).sum()) / self._share

    def _fit(self, form: _Form, age: int) -> tuple[Basis, Forms]:
        key = age, form.basis
        if key not in self._fitted:
            inputs = self._samples[age].inputs
            if form.blocks:
                basis = block_basis(inputs, form.blocks)
            else:
                basis = diagonal_basis(inputs) if form.basis == "diagonal" else eigenbasis(inputs)
            self._fitted[key] = basis, self._judge.forms(basis)
        return self._fitted[key]
