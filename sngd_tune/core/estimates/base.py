"""The contract of running estimates of the local Fisher matrix ``G``."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from sngd_tune.core.inputs import Inputs
from sngd_tune.core.layers.base import Shape
from sngd_tune.core.operators import RootOperator
from sngd_tune.core.snapshots import Snapshot

__all__ = ["Estimate", "State", "advance_weight"]

State = dict[str, Tensor]


class Estimate(ABC):
    """How much of the Fisher matrix is kept for a site of shape `shape`."""

    def __init__(self, shape: Shape):
        self.shape = shape

    @abstractmethod
    def init(self, dtype: torch.dtype, device: torch.device | str, generator: torch.Generator) -> State:
        """The state before any batch."""

    @abstractmethod
    def update(self, state: State, inputs: Inputs, gradients: Sequence[Tensor], decay: float) -> None:
        """Take a batch into the running average, in place.

        Args:
            state: as `init` makes it.
            inputs: the rows ``a``.
            gradients: rows ``g: [*lead, n, d_out]`` of one backward pass each, in the order of `inputs`; their
                contributions add up. Empty for estimates that need none.
            decay: weight of the past.
        """

    @abstractmethod
    def mean_diagonal(self, state: State) -> Tensor:
        """Mean of the diagonal of ``G``, ``[*lead]``: what the relative damping multiplies."""

    @abstractmethod
    def refresh(self, state: State, damping: Tensor, last: RootOperator | None) -> RootOperator:
        """The root for ``λ = damping`` (of the shape of `mean_diagonal`); may rotate the state's own basis.

        Args:
            state: as `init` makes it.
            damping: > 0.
            last: the root before, from which an iteration may start.

        Raises:
            RootError: there is none.
        """

    @abstractmethod
    def operator(self, tensors: State) -> RootOperator:
        """The operator that is made of these tensors."""

    @abstractmethod
    def identity(self, dtype: torch.dtype, device: torch.device | str) -> RootOperator:
        """``R = I`` in this estimate's form."""

    @abstractmethod
    def snapshot(self, state: State) -> Snapshot:
        """``G`` as it stands, for diagnosis."""


def advance_weight(state: State, decay: float) -> None:
    """The sum of the moving average's weights, by which it is divided (Kingma and Ba 2015)."""
    state["weight"].mul_(decay).add_(1 - decay)
