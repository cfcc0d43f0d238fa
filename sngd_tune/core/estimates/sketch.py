"""``"input"`` at low rank, from a sketch of ``G`` that is never formed."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sngd_tune.core.estimates.base import Estimate, State, advance_weight, probed
from sngd_tune.core.inputs import Inputs
from sngd_tune.core.layers.base import Shape
from sngd_tune.core.nystrom import OVERSAMPLING, Decomposition, decompose, nystrom
from sngd_tune.core.operators import LowRankOperator, RootOperator
from sngd_tune.core.snapshots import LowRankSnapshot, Snapshot

__all__ = ["SketchEstimate"]


class SketchEstimate(Estimate):
    """The leading `rank` eigenpairs of ``E[a aᵀ]`` and the mean of the rest, from a sketch (`core.nystrom`)."""

    fixed = ("basis",)
    moved = ("sketch", "basis")

    def __init__(self, shape: Shape, rank: int, retained_trace: float | None = None):
        super().__init__(shape)
        self.rank = min(rank, shape.d)
        self.columns = min(self.rank + OVERSAMPLING, shape.d)
        self.retained_trace = retained_trace

    def init(self, dtype: torch.dtype, device: torch.device | str, generator: torch.Generator) -> State:
        size = (*self.shape.lead, self.shape.d, self.columns)
        if torch.device(device).type == "meta":
            basis = torch.empty(size, dtype=dtype, device=device)
        else:
            gaussian = torch.randn(size, dtype=torch.float64, generator=generator)
            basis = torch.linalg.qr(gaussian).Q.to(dtype=dtype, device=device)
        return {
            "weight": torch.zeros((), dtype=dtype, device=device),
            "trace": torch.zeros(self.shape.lead, dtype=dtype, device=device),
            "sketch": torch.zeros_like(basis),
            "basis": basis,
        }

    def update(self, state: State, inputs: Inputs, gradients: Sequence[Tensor], decay: float) -> None:
        state["sketch"].mul_(decay).add_(inputs.sketch(state["basis"]), alpha=1 - decay)
        state["trace"].mul_(decay).add_(inputs.squared_norm(), alpha=1 - decay)
        advance_weight(state, decay)

    def mean_diagonal(self, state: State) -> Tensor:
        return state["trace"] / (self.shape.d * state["weight"])

    def refresh(self, state: State, damping: Tensor, last: RootOperator | None) -> RootOperator:
        decomposition = self._decompose(state)
        state["sketch"].copy_(decomposition.next_sketch() * state["weight"])
        state["basis"].copy_(decomposition.range)
        return nystrom(decomposition.pairs, damping)

    def fingerprint(self, state: State) -> Tensor:
        # In the basis, which only a refresh turns; it holds the directions that carry most of G.
        return probed(state["sketch"] / state["weight"])

    def operator(self, tensors: State) -> RootOperator:
        return LowRankOperator(**tensors)

    def identity(self, dtype: torch.dtype, device: torch.device | str) -> RootOperator:
        return LowRankOperator.identity(self.shape.d, self.rank, dtype, device, self.shape.lead)

    def snapshot(self, state: State) -> Snapshot:
        return LowRankSnapshot(self._decompose(state).pairs)

    def _decompose(self, state: State) -> Decomposition:
        weight = state["weight"]
        return decompose(
            state["sketch"] / weight, state["basis"], state["trace"] / weight, self.rank, self.retained_trace
        )
