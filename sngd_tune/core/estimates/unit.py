"""``"unit"``: one matrix for each output, ``G_j = E[g_j² a aᵀ]`` (relative Fisher of a unit; Sun and Nielsen 2017)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sngd_tune.core.estimates.base import Estimate, State, advance_weight
from sngd_tune.core.estimates.dense import InputEstimate
from sngd_tune.core.inputs import Inputs
from sngd_tune.core.layers.base import Shape
from sngd_tune.core.operators import RootOperator, UnitOperator
from sngd_tune.core.snapshots import Snapshot

__all__ = ["UnitEstimate"]

#: Numbers in a temporary of `UnitEstimate.update`, which holds the inputs once for each output at a time.
_LARGEST = 2**22
#: Least scale of a unit for its damping, relative to the mean over the units beside it.
_QUIET = 1e-3


class UnitEstimate(Estimate):
    """``E[g_j² a aᵀ]`` for each output ``j``, ``[*lead, d_out, d, d]``, with dense roots.

    Damping is relative to each unit's own ``mean(diag G_j)``, so that units with small gradients keep their geometry.
    A unit that is (nearly) dead has (nearly) no scale of its own and would take unbounded steps once it wakes up: its
    scale counts as 1e-3 of the mean over the units of its matrix at least.
    """

    def __init__(self, shape: Shape, root: str):
        super().__init__(shape)
        self._units = InputEstimate(Shape((*shape.lead, shape.d_out), 1, shape.d), root)

    def init(self, dtype: torch.dtype, device: torch.device | str, generator: torch.Generator) -> State:
        return self._units.init(dtype, device, generator)

    def update(self, state: State, inputs: Inputs, gradients: Sequence[Tensor], decay: float) -> None:
        squares = torch.stack([g.square() for g in gradients]).sum(0)  # [*lead, n, d_out]
        state["value"].mul_(decay)
        start = 0
        for rows in inputs.chunks():
            stop = start + rows.shape[-2]
            self._add(state["value"], rows, squares[..., start:stop, :].mT, (1 - decay) / inputs.count)
            start = stop
        advance_weight(state, decay)

    def _add(self, value: Tensor, rows: Tensor, squares: Tensor, share: float) -> None:
        """Add ``share · Σ g_j² a aᵀ``, as many outputs at a time as fit.

        Args:
            value: ``[*lead, d_out, d, d]``, in place.
            rows: ``a: [*lead, m, d]``.
            squares: ``g²: [*lead, d_out, m]``.
            share: weight of the sum.
        """
        rows = rows.unsqueeze(-3)
        at_once = max(1, _LARGEST // max(rows.numel(), 1))
        for start in range(0, self.shape.d_out, at_once):
            some = slice(start, start + at_once)
            weighted = rows * squares[..., some, :, None]
            value[..., some, :, :].add_(weighted.mT @ rows, alpha=share)

    def mean_diagonal(self, state: State) -> Tensor:
        """Mean of the diagonal of each ``G_j``, ``[*lead, d_out]``, at least 1e-3 of the mean over ``j``."""
        own = self._units.mean_diagonal(state)
        return torch.maximum(own, _QUIET * own.mean(-1, keepdim=True))

    def damped_mean(self, state: State, damping: Tensor) -> Tensor:
        """As in the base class, of each ``G_j`` as it is: a dead unit gets the identity, not the root of its floor."""
        return self._units.mean_diagonal(state) + damping

    @property
    def damping_shape(self) -> tuple[int, ...]:
        return (*self.shape.lead, self.shape.d_out)

    @property
    def starts_from_last(self) -> bool:
        return self._units.starts_from_last

    def refresh(self, state: State, damping: Tensor, last: RootOperator | None) -> RootOperator:
        before = last.inner if isinstance(last, UnitOperator) else None
        return UnitOperator(self._units.refresh(state, damping, before))

    def fingerprint(self, state: State) -> Tensor:
        return self._units.fingerprint(state)

    def operator(self, tensors: State) -> RootOperator:
        return UnitOperator(self._units.operator(tensors))

    def identity(self, dtype: torch.dtype, device: torch.device | str) -> RootOperator:
        return UnitOperator(self._units.identity(dtype, device))

    def snapshot(self, state: State) -> Snapshot:
        return self._units.snapshot(state)
