"""``"layer"``: all of the layer's Fisher matrix, for small layers and as a reference."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sngd_tune.core.estimates.base import Estimate, State, advance_weight
from sngd_tune.core.estimates.dense import InputEstimate
from sngd_tune.core.inputs import Inputs
from sngd_tune.core.layers.base import Shape
from sngd_tune.core.operators import LayerOperator, RootOperator
from sngd_tune.core.snapshots import Snapshot

__all__ = ["LayerEstimate"]

#: Numbers in a temporary of `LayerEstimate.update`, which holds the gradient of each example.
_LARGEST = 2**22


class LayerEstimate(Estimate):
    """``E[(g ⊗ a)(g ⊗ a)ᵀ]``, ``[*lead, d_out·d, d_out·d]``, in the order of ``W.flatten(-2)``, with a dense root."""

    def __init__(self, shape: Shape, root: str):
        super().__init__(shape)
        self._whole = InputEstimate(Shape(shape.lead, 1, shape.d_out * shape.d), root)

    def init(self, dtype: torch.dtype, device: torch.device | str, generator: torch.Generator) -> State:
        return self._whole.init(dtype, device, generator)

    def update(self, state: State, inputs: Inputs, gradients: Sequence[Tensor], decay: float) -> None:
        self._whole.take(state["value"], self._weight_gradients(inputs, gradients), inputs.count, decay)
        advance_weight(state, decay)

    def _weight_gradients(self, inputs: Inputs, gradients: Sequence[Tensor]) -> Iterator[Tensor]:
        """The gradients ``g ⊗ a`` of the rows, ``[*lead, m, d_out·d]``, as many at a time as fit."""
        at_once = max(1, _LARGEST // (self.shape.matrices * self.shape.d_out * self.shape.d))
        start = 0
        for rows in inputs.chunks():
            for a in rows.split(at_once, dim=-2):
                stop = start + a.shape[-2]
                for g in gradients:
                    yield (g[..., start:stop, :, None] * a.unsqueeze(-2)).flatten(-2)
                start = stop

    def mean_diagonal(self, state: State) -> Tensor:
        return self._whole.mean_diagonal(state)

    @property
    def starts_from_last(self) -> bool:
        return self._whole.starts_from_last

    def refresh(self, state: State, damping: Tensor, last: RootOperator | None) -> RootOperator:
        before = last.inner if isinstance(last, LayerOperator) else None
        return LayerOperator(self._whole.refresh(state, damping, before))

    def fingerprint(self, state: State) -> Tensor:
        return self._whole.fingerprint(state)

    def operator(self, tensors: State) -> RootOperator:
        return LayerOperator(self._whole.operator(tensors))

    def identity(self, dtype: torch.dtype, device: torch.device | str) -> RootOperator:
        return LayerOperator(self._whole.identity(dtype, device))

    def snapshot(self, state: State) -> Snapshot:
        return self._whole.snapshot(state)
