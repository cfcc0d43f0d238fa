"""``"diagonal"``, and what embeddings keep under any granularity: ``diag E[a²]``."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sngd_tune.core.estimates.base import Estimate, State, advance_weight
from sngd_tune.core.inputs import Inputs
from sngd_tune.core.operators import DiagonalOperator, RootOperator
from sngd_tune.core.snapshots import DiagonalSnapshot, Snapshot

__all__ = ["DiagonalEstimate"]


class DiagonalEstimate(Estimate):
    """``diag E[a²]``, ``[*lead, d]``."""

    def init(self, dtype: torch.dtype, device: torch.device | str, generator: torch.Generator) -> State:
        return {
            "weight": torch.zeros((), dtype=dtype, device=device),
            "value": torch.zeros(*self.shape.lead, self.shape.d, dtype=dtype, device=device),
        }

    def update(self, state: State, inputs: Inputs, gradients: Sequence[Tensor], decay: float) -> None:
        state["value"].mul_(decay).add_(inputs.diagonal(), alpha=1 - decay)
        advance_weight(state, decay)

    def mean_diagonal(self, state: State) -> Tensor:
        return state["value"].mean(-1) / state["weight"]

    def refresh(self, state: State, damping: Tensor, last: RootOperator | None) -> RootOperator:
        return DiagonalOperator((state["value"] / state["weight"] + damping.unsqueeze(-1)).rsqrt())

    def operator(self, tensors: State) -> RootOperator:
        return DiagonalOperator(**tensors)

    def identity(self, dtype: torch.dtype, device: torch.device | str) -> RootOperator:
        return DiagonalOperator.identity(self.shape.d, dtype, device, self.shape.lead)

    def snapshot(self, state: State) -> Snapshot:
        return DiagonalSnapshot(state["value"] / state["weight"])
