"""``sngd-tune bench roots``: time and error of each root over the size of the matrix.

A root counts as training uses it: computed in float32, and its inverse formed once, as the first step after a refresh
does. All roots of one matrix take turns in one process. There are two matrices of each size, both in random directions
(``λ`` is relative to the mean of the diagonal):

================== ============================== ======== ======================================================
spectrum           eigenvalues                    ``λ``    what it is for
================== ============================== ======== ======================================================
``inverse-square`` ``1 / i²``                     1e-2     the default damping
``condition-1e10`` from 1 to 1e-10, geometrically 1e-4     the worst that float32 has to take: most are below its
                                                           rounding, and ``λ`` is the least that is advised
================== ============================== ======== ======================================================

``newton_schulz`` has a second row, started from the root at twice the damping: as after a refresh that has moved every
small eigenvalue by half. ``nystrom`` works on a sketch, which the batches have formed: its time is that of a refresh,
with the basis that ten of them have left.

**The residual** is the root mean square of the eigenvalues of ``Rᵀ (G + λI) R − I``, with ``G`` as it was before it was
rounded to float32: the error of the root, and what rounding the input brings. For ``nystrom`` ``G`` is the exact
low-rank view of the rank, the leading eigenpairs and the mean of the others: an error of the sketch counts, what the
rank leaves out does not.
"""

import gc
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sngd_tune.bench.interleave import interleave, median_ratio
from sngd_tune.core.nystrom import OVERSAMPLING, decompose, nystrom
from sngd_tune.core.operators import RootOperator
from sngd_tune.core.roots import DENSE_ROOTS, Root, newton_schulz
from sngd_tune.errors import RootError

__all__ = ["ENTRANTS", "SIZES", "SPECTRA", "Entrant", "Spectrum", "measure"]

SIZES = (64, 256, 512, 1024, 2048)

Compute = Callable[[], RootOperator]

_BASELINE = "cholesky"
_REFRESHES = 10


@dataclass(frozen=True)
class Spectrum:
    """The eigenvalues of ``G`` for a size, descending, in float64; and the relative damping."""

    eigenvalues: Callable[[int], Tensor]
    relative_damping: float


SPECTRA = {
    "inverse-square": Spectrum(lambda size: torch.arange(1, size + 1, dtype=torch.float64) ** -2.0, 1e-2),
    "condition-1e10": Spectrum(lambda size: torch.logspace(0, -10, size, dtype=torch.float64), 1e-4),
}


def measure(
    sizes: Sequence[int] = SIZES,
    rounds: int = 25,
    threads: int = 1,
    announce: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """One row per size, spectrum and root.

    ``task, size, spectrum, root, threads, condition_number`` (of ``G + λI``), ``milliseconds`` (median),
    ``ratio_to_cholesky`` with its quartiles, ``residual``. A root that fails has its message under ``failed`` instead
    of figures.

    Args:
        sizes: of the matrices, ≥ 1.
        rounds: roots of each kind up to size 128, ≥ 1; a larger size gets fewer, two at least where `rounds` allows.
        threads: CPU threads of torch, ≥ 1.
        announce: is told what is measured next.

    Raises:
        RootError: `cholesky` fails, which all others are compared with.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    gc.disable()  # a collection would hit one root
    rows = []
    try:
        for size in sizes:
            basis = _orthogonal(size, size)
            for name, spectrum in SPECTRA.items():
                announce(f"size {size}, {name}")
                same = {"task": "roots", "size": size, "spectrum": name}
                problem = _Problem.of(spectrum, basis)
                rows += [same | row for row in problem.rows(max(min(2, rounds), rounds * 128 // max(size, 128)))]
    finally:
        gc.enable()
        torch.set_num_threads(before)
    return rows


@dataclass(frozen=True)
class _Problem:
    """``G = V Λ Vᵀ`` and ``λ`` in float64."""

    V: Tensor
    eigenvalues: Tensor
    damping: Tensor

    @classmethod
    def of(cls, spectrum: Spectrum, basis: Tensor) -> "_Problem":
        eigenvalues = spectrum.eigenvalues(len(basis))
        return cls(basis, eigenvalues, spectrum.relative_damping * eigenvalues.mean())

    def rows(self, rounds: int) -> list[dict[str, Any]]:
        usable, failures = self._usable()
        x = torch.rand(1, len(self.V))
        seconds = interleave({name: partial(_use, compute, x) for name, compute in usable.items()}, rounds)
        condition = float((self.eigenvalues[0] + self.damping) / (self.eigenvalues[-1] + self.damping))
        rows = []
        for name, entrant in ENTRANTS.items():
            row = {"root": name, "threads": torch.get_num_threads(), "condition_number": float(f"{condition:.2g}")}
            if name in failures:
                rows.append(row | {"failed": failures[name]})
            else:
                residual = self._residual(usable[name](), entrant.rank)
                rows.append(row | _figures(seconds[name], seconds[_BASELINE]) | {"residual": residual})
        return rows

    def _usable(self) -> tuple[dict[str, Compute], dict[str, str]]:
        """How each root is computed, and why some cannot be; without `_BASELINE` there is no bench."""
        G, damping = self._matrix().float(), self.damping.float()
        usable, failures = {}, {}
        for name, entrant in ENTRANTS.items():
            try:
                compute = entrant.prepare(G, damping)
                compute()
            except RootError as error:
                if name == _BASELINE:
                    raise
                failures[name] = str(error)
            else:
                usable[name] = compute
        return usable, failures

    def _matrix(self, rank: int | None = None) -> Tensor:
        """``G``, or its exact low-rank view."""
        kept, others = self.eigenvalues[:rank], self.eigenvalues[len(self.eigenvalues[:rank]) :]
        return (self.V * torch.cat((kept, others.mean().expand_as(others)))) @ self.V.T

    def _residual(self, root: RootOperator, rank: int | None) -> float:
        size = len(self.V)
        R = root.apply(torch.eye(size)).double()
        eye = torch.eye(size, dtype=R.dtype)
        error = torch.linalg.matrix_norm(R.mT @ (self._matrix(rank) + self.damping * eye) @ R - eye)
        return float(f"{float(error) / size**0.5:.2g}")


def _use(compute: Compute, x: Tensor) -> None:
    compute().precondition(x)


def _cold(root: Root, G: Tensor, damping: Tensor) -> Compute:
    return lambda: root(G, damping, None)


def _warm(G: Tensor, damping: Tensor) -> Compute:
    last = newton_schulz(G, 2 * damping)
    return lambda: newton_schulz(G, damping, last)


def _low_rank(rank: int, G: Tensor, damping: Tensor) -> Compute:
    """What `SketchEstimate.refresh` does with a sketch of ``G``, the basis being that of `_REFRESHES` before."""
    size, trace = len(G), G.trace()
    rank = min(rank, size)
    basis = _orthogonal(size, min(rank + OVERSAMPLING, size)).float()
    for _ in range(_REFRESHES):
        basis = decompose(G @ basis, basis, trace, rank).range
    sketch = G @ basis

    def refresh() -> RootOperator:
        decomposition = decompose(sketch, basis, trace, rank)
        decomposition.next_sketch()
        return nystrom(decomposition.pairs, damping)

    return refresh


@dataclass(frozen=True)
class Entrant:
    """A row of the table.

    Attributes:
        prepare: takes ``G`` and ``λ``; what it gives is timed.
        rank: of low-rank roots.
    """

    prepare: Callable[[Tensor, Tensor], Compute]
    rank: int | None = None


ENTRANTS = {
    **{name: Entrant(partial(_cold, root)) for name, root in DENSE_ROOTS.items()},
    "newton_schulz, warm": Entrant(_warm),
    **{f"nystrom, rank {rank}": Entrant(partial(_low_rank, rank), rank) for rank in (16, 64)},
}


def _orthogonal(size: int, columns: int) -> Tensor:
    gaussian = torch.randn(size, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return torch.linalg.qr(gaussian).Q


def _figures(seconds: list[float], baseline: list[float]) -> dict[str, float]:
    ratio, lower, upper = median_ratio(seconds, baseline)
    return {
        "milliseconds": round(statistics.median(seconds) * 1e3, 3),
        "ratio_to_cholesky": round(ratio, 2),
        "lower_quartile": round(lower, 2),
        "upper_quartile": round(upper, 2),
    }
