"""One layer under one setting, put up by itself: the very operations of a fused step on it, ready to be timed.

Nothing is shared with the model or with its optimizer: parameters, gradients and states are the rig's own.
"""

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sngd_tune.core.account import Match
from sngd_tune.core.bases import make_base
from sngd_tune.core.estimates import State
from sngd_tune.core.inputs import Inputs, Rows
from sngd_tune.core.layers.attention import SharedRows
from sngd_tune.core.layers.base import Seen, Site
from sngd_tune.core.layers.linear import MatrixSite
from sngd_tune.core.local_fisher import LocalFisher
from sngd_tune.core.operators import Parts
from sngd_tune.core.safety import norms
from sngd_tune.core.trained import Trained
from sngd_tune.errors import NonFiniteError
from sngd_tune.selection.observation import Observation, Pass
from sngd_tune.settings import FisherSettings

__all__ = ["PlainRig", "Rig", "Specimen", "canonical", "specimen"]

#: Rows of the batches that a refresh follows on: enough for a ``G`` like the running one, without the price of all.
_ROWS = 512
_LR = 1e-16  # of no effect on the price


def canonical(settings: FisherSettings) -> FisherSettings:
    """The same as far as it decides the time of a statistics batch, a refresh or an update, and all else at one value.

    Intervals are 1, so that whatever is shown is taken. The damping is the default one (it decides how many iterations
    `denman_beavers` and `newton_schulz` take: little) with an absolute part, so that a layer without inputs has a root.
    """
    keep = "granularity", "root", "rank", "retained_trace", "root_scale", "sharing", "positions", "step_bound"
    return FisherSettings(
        **{name: getattr(settings, name) for name in keep},
        absolute_damping=1e-6,
        fisher_interval=1,
        statistics_interval=1,
        warmup_batches=0,
        refresh_schedule="fixed",
    )


@dataclass(frozen=True)
class Specimen:
    """A layer with one batch in it.

    Attributes:
        name: of the site.
        site: of its weights.
        parameters: of any values.
        gradients: shaped as these.
        passes: what the batch showed.
    """

    name: str
    site: Site
    parameters: Parts
    gradients: Parts
    passes: tuple[Pass, ...]

    def halved(self, times: int) -> "Specimen":
        """A matrix layer of ``2^-times`` the inputs and outputs, on as many rows; random numbers."""
        if not times:
            return self
        shape = self.site.shape
        bias, scale = len(self.parameters) > 1, 2**-times
        channels = max(1, round((shape.d - bias) // shape.positions * scale))
        d_in = channels * shape.positions
        small = replace(shape, d_out=max(1, round(shape.d_out * scale)), d=d_in + bias)
        like = self.parameters[0]
        generator = torch.Generator(like.device).manual_seed(0)

        def random(*size: int) -> Tensor:
            return torch.randn(*shape.lead, *size, dtype=like.dtype, device=like.device, generator=generator)

        sizes = [(small.d_out, d_in), (small.d_out,)][: 1 + bias]

        def rows(inputs: Inputs) -> Inputs:
            some = Rows(random(inputs.count, small.d), inputs.examples)
            if isinstance(inputs, SharedRows):  # one for all matrices
                return SharedRows(Rows(some.rows()[0], inputs.examples), shape.matrices)
            return some

        passes = (Pass(rows(each.inputs), random(each.inputs.count, small.d_out)) for each in self.passes)
        site = MatrixSite("", ("weight", "bias")[: 1 + bias], small)
        return Specimen(
            self.name, site, tuple(random(*s) for s in sizes), tuple(random(*s) for s in sizes), tuple(passes)
        )


def specimen(match: Match, seen: Observation) -> Specimen:
    """The layer of a site, with what was seen in it; its parameters are copied."""
    parameters = tuple(parameter.detach().clone() for parameter in match.parameters)
    shaped = match.site.shaped(seen.gradients, match.parameters)
    gradients = tuple(g.to(p.dtype, copy=True) for g, p in zip(shaped, parameters, strict=True))
    return Specimen(match.name or "model", match.site, parameters, gradients, seen.passes)


class PlainRig:
    """The part of a fused step that moves a layer's parameters, without a local Fisher layer.

    Args:
        layer: what is moved.
        base: name of the base optimizer.
    """

    def __init__(self, layer: Specimen, base: str):
        self._base = make_base(base)
        self._group = {**self._base.hyperparameters, "lr": _LR, "weight_decay": 0.0}
        self._states: dict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.parameters = tuple(parameter.clone().requires_grad_() for parameter in layer.parameters)
        for parameter, gradient in zip(self.parameters, layer.gradients, strict=True):
            parameter.grad = gradient.clone()
        self.trained = self._all_trained(layer)

    def _all_trained(self, layer: Specimen) -> list[Trained]:
        return [Trained("", 0, (parameter,)) for parameter in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """As `SNGD.step` does it."""
        moving = [(each, gradients) for each in self.trained if (gradients := each.gradients) is not None]
        lengths = iter(norms([gradient for _, parts in moving for gradient in parts]))
        updates = [each.update(parts, [next(lengths) for _ in parts]) for each, parts in moving]
        self._base.bound([(update, _LR) for update in updates])
        directions = self._base.directions(updates, self._states, self._group)
        moved = [d if d.dtype == p.dtype else d.to(p.dtype) for d, p in zip(directions, self.parameters, strict=True)]
        torch._foreach_add_(list(self.parameters), moved, alpha=-_LR)


class Rig(PlainRig):
    """The same with a local Fisher layer.

    Args:
        layer: what is moved.
        settings: as `canonical` makes them.
        base: name of the base optimizer.
    """

    def __init__(self, layer: Specimen, settings: FisherSettings, base: str):
        weight = layer.parameters[0]
        self._name = layer.name
        self._fisher = LocalFisher(
            layer.site.shape, settings, name=layer.name, dtype=weight.dtype, device=weight.device
        )
        self._passes = layer.passes
        super().__init__(layer, base)
        self._start: tuple[State, Tensor] | None = None

    def _all_trained(self, layer: Specimen) -> list[Trained]:
        return [Trained("", 0, self.parameters, self._fisher, layer.site)]

    def statistics(self) -> None:
        """Take the batch into ``G``."""
        for each in self._passes:
            self._show(each.inputs, each.gradients)
        self._fisher.close()

    def _show(self, inputs: Inputs, gradients: Tensor | None) -> None:
        if not self._fisher.collector.waits:
            self._fisher.observe(Seen(inputs, None, _as_it_is))
            return
        assert gradients is not None  # CostModel refuses settings that need what the layer does not show
        output = gradients.detach().requires_grad_()  # any tensor of the shape of s
        self._fisher.observe(Seen(inputs, output, _as_it_is))
        torch.autograd.grad(output, output, gradients / inputs.count)  # as of a loss that is a mean over the rows

    def settle(self) -> None:
        """Bring ``G``, the root and the base's state to where a refresh finds them: the root is of half of the rows."""
        for share in (0.5, 1.0):
            for each in self._passes:
                self._show(*_some(each, share, self.parameters[0].device))
            self._fisher.close()
            if self._start is None:
                damping = self._damping()
                self._start = self._fisher.compute(damping), damping
                self.rewind()
        self.update()

    def rewind(self) -> None:
        """Back to the root before `refresh`."""
        assert self._start is not None  # settled
        self._fisher.install(*self._start)

    def refresh(self) -> None:
        """A refresh and the update behind it, which fills what the new operator keeps."""
        before, damping = self._fisher.root, self._damping()
        self._fisher.install(self._fisher.compute(damping), damping)
        with torch.no_grad():
            self._base.rebase(self._states[self.parameters[0]], before, self._fisher.root)
        self.update()

    def _damping(self) -> Tensor:
        damping = self._fisher.plan()
        if damping is None:
            raise NonFiniteError(f"{self._name}: what the batch shows of it holds NaN or infinity; look at the data")
        return damping


def _some(each: Pass, share: float, device: torch.device) -> tuple[Inputs, Tensor | None]:
    """The first `share` of some rows of a pass, which lie evenly in it."""
    count = each.inputs.count
    index = torch.arange(0, count, -(-count // _ROWS), device=device)
    index = index[: max(1, round(len(index) * share))]
    return each.inputs.take(index), None if each.gradients is None else each.gradients.index_select(-2, index)


def _as_it_is(gradient: Tensor) -> Tensor:
    return gradient
