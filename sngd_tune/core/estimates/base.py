"""The contract of running estimates of the local Fisher matrix ``G``."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from sngd_tune.core.inputs import Inputs
from sngd_tune.core.layers.base import Shape
from sngd_tune.core.operators import RootOperator
from sngd_tune.core.snapshots import Snapshot

__all__ = ["Estimate", "State", "advance_weight", "probed"]

State = dict[str, Tensor]

#: Columns that a fingerprint keeps of a matrix: the error of the norm's estimate is about ``1 / sqrt(2 · 8)`` of it.
_PROBES = 8


class Estimate(ABC):
    """How much of the Fisher matrix is kept for a site of shape `shape`."""

    #: State that no batch changes: the same in every process that started from the same seed.
    fixed: ClassVar[tuple[str, ...]] = ()
    #: State that `refresh` changes.
    moved: ClassVar[tuple[str, ...]] = ()

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

    @property
    def damping_shape(self) -> tuple[int, ...]:
        """Shape of λ: one for each matrix that is damped by itself."""
        return self.shape.lead

    @abstractmethod
    def mean_diagonal(self, state: State) -> Tensor:
        """Mean of the diagonal of ``G``, of shape `damping_shape`: what the relative damping multiplies."""

    def damped_mean(self, state: State, damping: Tensor) -> Tensor:
        """Mean of the diagonal of the damped ``G``, of shape `damping_shape`: ``c²`` of ``root_scale="unit"``."""
        return self.mean_diagonal(state) + damping

    @property
    def starts_from_last(self) -> bool:
        """Whether `refresh` makes use of the root before."""
        return False

    @abstractmethod
    def refresh(self, state: State, damping: Tensor, last: RootOperator | None) -> RootOperator:
        """The root for ``λ = damping`` (of the shape of `mean_diagonal`); may rotate the state's own basis.

        Args:
            state: as `init` makes it.
            damping: > 0.
            last: the root before, from which an iteration may start; of ``(G + λI)⁻¹`` itself, not a multiple of it.

        Raises:
            RootError: there is none.
        """

    def fingerprint(self, state: State) -> Tensor:
        """A linear image of ``G``, of a fixed shape, whose Frobenius norm estimates that of ``G``; drift is told by it.

        Taken after a refresh it compares with those taken up to the next one. Not finite before the first batch.
        """
        kept = [value for name, value in state.items() if name != "weight"]
        return torch.cat([probed(value / state["weight"]).flatten() for value in kept])

    @abstractmethod
    def operator(self, tensors: State) -> RootOperator:
        """The operator that is made of these tensors."""

    @abstractmethod
    def identity(self, dtype: torch.dtype, device: torch.device | str) -> RootOperator:
        """``R = I`` in this estimate's form."""

    @abstractmethod
    def snapshot(self, state: State) -> Snapshot:
        """``G`` as it stands, for diagnosis."""


def probed(matrix: Tensor, seed: int = 0) -> Tensor:
    """``M Z`` for ``M: [..., m, d]`` and fixed random signs ``Z``, scaled so that ``E‖M Z‖² = ‖M‖²`` (Hutchinson 1990).

    ``[..., m, 8]``; a matrix of no more than 8 columns stays as it is. Another `seed` gives other signs.
    """
    d = matrix.shape[-1]
    if d <= _PROBES or matrix.is_meta:
        return matrix[..., :_PROBES]
    return matrix @ _signs(d, d + seed, matrix.dtype, matrix.device)


@lru_cache(maxsize=256)
def _signs(d: int, seed: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Random signs over ``√8``, ``[d, 8]``: drawing them anew would cost more than the product."""
    signs = torch.randint(2, (d, _PROBES), generator=torch.Generator().manual_seed(seed)).mul_(2).sub_(1)
    return signs.to(dtype=dtype, device=device).div_(_PROBES**0.5)


def advance_weight(state: State, decay: float) -> None:
    """The sum of the moving average's weights, by which it is divided (Kingma and Ba 2015)."""
    state["weight"].mul_(decay).add_(1 - decay)
