"""What one batch shows of every layer: its inputs, the gradients of its pre-activations, its weight gradient.

Everything that the probe estimates and the cost model times begins here; the model is observed as the fused form
observes it, but nothing enters a running ``G``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sngd_tune.core.account import Match
from sngd_tune.core.inputs import Inputs
from sngd_tune.core.layers.base import Seen
from sngd_tune.core.observers import Observers
from sngd_tune.core.operators import Parts, join
from sngd_tune.core.pending import PendingBatch

__all__ = ["Observation", "Pass", "observe"]


@dataclass(frozen=True)
class Pass:
    """One forward pass through a layer.

    Attributes:
        inputs: the rows ``a: [*lead, n, d]``, in the precision of the statistics.
        gradients: the rows ``g: [*lead, n, d_out]``, each row's own; None where the layer does not show them.
    """

    inputs: Inputs
    gradients: Tensor | None


@dataclass(frozen=True)
class Observation:
    """One batch in one layer.

    Attributes:
        passes: forward passes of the layer, at least one.
        gradients: mean gradient of the batch as matrices, ``([*lead, d_out, d_in], [*lead, d_out])``.
    """

    passes: tuple[Pass, ...]
    gradients: Parts

    @property
    def gradient(self) -> Tensor:
        """Weight and bias in one, ``[*lead, d_out, d]``."""
        return join(self.gradients)

    @property
    def rows(self) -> int:
        """``n`` over all passes: examples times positions."""
        return sum(each.inputs.count for each in self.passes)


def observe(
    model: nn.Module, found: Sequence[Match], loss: Callable[[], Tensor]
) -> tuple[float, dict[str, Observation]]:
    """One forward and backward pass in training mode; gradients are left in ``.grad``.

    Args:
        model: as it is, on any device.
        found: the sites to look at.
        loss: evaluates the model on a batch and gives the mean loss; gradients are cleared before.

    Returns:
        the loss, and what was seen by the name of the site; sites that the batch did not reach are left out.
    """
    recorders = {match.name: _Recorder(_dtype(match)) for match in found}
    observers = Observers(list(found), recorders)
    try:
        model.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
    finally:
        observers.close()
    seen = {match.name: _observation(match, recorders[match.name]) for match in found}
    return float(value.detach()), {name: each for name, each in seen.items() if each is not None}


@dataclass
class _Recorder:
    """Stands where a `LocalFisher` would."""

    dtype: torch.dtype
    waiting: list[PendingBatch] = field(default_factory=list)
    observing: bool = True

    def follow(self, weight: Tensor) -> None:
        """Nothing to move."""

    def observe(self, seen: Seen) -> None:
        if not seen.inputs.count:
            return
        batch = PendingBatch(seen.inputs.to(self.dtype), self.dtype, seen.inputs.count, None, seen.arrange)
        if seen.output is not None:
            batch.watch(seen.output, own=True, collecting=lambda: True)
        self.waiting.append(batch)


def _observation(match: Match, recorder: _Recorder) -> Observation | None:
    found = [parameter.grad for parameter in match.parameters]
    if not recorder.waiting or any(gradient is None for gradient in found):
        return None
    gradients = match.site.matrices(tuple(g.detach().to(recorder.dtype).clone() for g in found if g is not None))
    passes = (Pass(each.inputs, each.gradients[0] if each.gradients else None) for each in recorder.waiting)
    return Observation(tuple(passes), gradients)


def _dtype(match: Match) -> torch.dtype:
    return torch.float64 if match.parameters[0].dtype == torch.float64 else torch.float32
