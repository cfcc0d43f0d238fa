"""Running estimates of the local Fisher matrix ``G``, one class for each granularity of the reconstruction.

The state is a dict of tensors of fixed shapes, updated in place; ``weight`` is the sum of the moving average's weights,
by which it is divided (the correction for its start, Kingma and Ba 2015). The methods are the whole contract:
`init`, `update`, `mean_diagonal`, `refresh` for training, `snapshot` for diagnosis.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from sngd_tune.core.nystrom import OVERSAMPLING, Decomposition, decompose, nystrom
from sngd_tune.core.operators import (
    BlockOperator,
    DiagonalOperator,
    LowRankOperator,
    RootOperator,
    SymmetricOperator,
    TriangularOperator,
    split_blocks,
)
from sngd_tune.core.roots import DENSE_ROOTS
from sngd_tune.core.snapshots import DenseSnapshot, DiagonalSnapshot, LowRankSnapshot, Snapshot
from sngd_tune.settings import FisherSettings

__all__ = ["Estimate", "State", "make_estimate"]

State = dict[str, Tensor]

#: Rows of ``G`` that are updated at a time.
_STRIP = 200

#: Inputs up to which a low-rank root is applied as a dense matrix (measured on a CPU: 26 µs against 37 at 81 inputs).
_NARROW = 128


class Estimate(ABC):
    """How much of ``G`` a layer with `d` inputs keeps."""

    def __init__(self, d: int):
        self.d = d

    @abstractmethod
    def init(self, dtype: torch.dtype, device: torch.device | str, generator: torch.Generator) -> State:
        """The state before any batch."""

    @abstractmethod
    def update(self, state: State, a: Tensor, decay: float) -> None:
        """Take the batch ``a: [n, d]`` into the running average, in place."""

    @abstractmethod
    def mean_diagonal(self, state: State) -> Tensor:
        """``tr(G) / d``, ``[]``."""

    @abstractmethod
    def refresh(self, state: State, damping: Tensor) -> RootOperator:
        """The root for ``λ = damping`` (``[]``); may rotate the state's own basis. Raises RootError."""

    @abstractmethod
    def operator(self, tensors: State) -> RootOperator:
        """The operator that is made of these tensors."""

    @abstractmethod
    def identity(self, dtype: torch.dtype, device: torch.device | str) -> RootOperator:
        """``R = I`` in this estimate's form."""

    @abstractmethod
    def snapshot(self, state: State) -> Snapshot:
        """``G`` as it stands, for diagnosis."""


def _advance_weight(state: State, decay: float) -> None:
    state["weight"].mul_(decay).add_(1 - decay)


class DiagonalEstimate(Estimate):
    """``diag E[a²]``, ``[d]``."""

    def init(self, dtype: torch.dtype, device: torch.device | str, generator: torch.Generator) -> State:
        return {
            "weight": torch.zeros((), dtype=dtype, device=device),
            "value": torch.zeros(self.d, dtype=dtype, device=device),
        }

    def update(self, state: State, a: Tensor, decay: float) -> None:
        state["value"].mul_(decay).add_(a.square().mean(0), alpha=1 - decay)
        _advance_weight(state, decay)

    def mean_diagonal(self, state: State) -> Tensor:
        return state["value"].mean() / state["weight"]

    def refresh(self, state: State, damping: Tensor) -> RootOperator:
        return DiagonalOperator((state["value"] / state["weight"] + damping).rsqrt())

    def operator(self, tensors: State) -> RootOperator:
        return DiagonalOperator(**tensors)

    def identity(self, dtype: torch.dtype, device: torch.device | str) -> RootOperator:
        return DiagonalOperator.identity(self.d, dtype, device)

    def snapshot(self, state: State) -> Snapshot:
        return DiagonalSnapshot(state["value"] / state["weight"])


class InputEstimate(Estimate):
    """All of ``E[a aᵀ]``, ``[d, d]``, with a dense root."""

    def __init__(self, d: int, root: str):
        super().__init__(d)
        self.root = root

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the kept matrix."""
        return (self.d, self.d)

    def init(self, dtype: torch.dtype, device: torch.device | str, generator: torch.Generator) -> State:
        return {
            "weight": torch.zeros((), dtype=dtype, device=device),
            "value": torch.zeros(self.shape, dtype=dtype, device=device),
        }

    def update(self, state: State, a: Tensor, decay: float) -> None:
        # Only what lies on and below the diagonal, in strips: the half above would cost as much again.
        for start in range(0, self.d, _STRIP):
            strip = slice(start, min(start + _STRIP, self.d))
            value = state["value"][strip, : strip.stop]
            value.addmm_(a[:, strip].mT, a[:, : strip.stop], beta=decay, alpha=(1 - decay) / a.shape[0])
        _advance_weight(state, decay)

    def mean_diagonal(self, state: State) -> Tensor:
        return state["value"].diagonal(dim1=-2, dim2=-1).sum() / (self.d * state["weight"])

    def refresh(self, state: State, damping: Tensor) -> RootOperator:
        return DENSE_ROOTS[self.root](self._matrix(state), damping)

    def _matrix(self, state: State) -> Tensor:
        """``G``, both halves."""
        lower = state["value"].tril() / state["weight"]
        return lower + lower.tril(-1).mT

    def operator(self, tensors: State) -> RootOperator:
        return TriangularOperator(**tensors) if self.root == "cholesky" else SymmetricOperator(**tensors)

    def identity(self, dtype: torch.dtype, device: torch.device | str) -> RootOperator:
        form = TriangularOperator if self.root == "cholesky" else SymmetricOperator
        return form.identity(self.shape, dtype, device)

    def snapshot(self, state: State) -> Snapshot:
        return DenseSnapshot(self._matrix(state))


class BlockEstimate(InputEstimate):
    """``E[a aᵀ]`` in ``k`` diagonal blocks of at most `largest`, ``[k, b, b]``.

    The blocks are of one size, ``b = ⌈d / k⌉``, so that the padding (with 0) stays below `k`: 81 inputs under
    ``block:64`` are two blocks of 41, not 64 and a padded 17.
    """

    def __init__(self, d: int, root: str, largest: int):
        super().__init__(d, root)
        self.count = -(-d // largest)
        self.block = -(-d // self.count)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.count, self.block, self.block)

    def update(self, state: State, a: Tensor, decay: float) -> None:
        blocks = split_blocks(a, self.block)
        state["value"].baddbmm_(blocks.mT, blocks, beta=decay, alpha=(1 - decay) / a.shape[0])
        _advance_weight(state, decay)

    def refresh(self, state: State, damping: Tensor) -> RootOperator:
        return BlockOperator(super().refresh(state, damping), self.d, self.block)

    def operator(self, tensors: State) -> RootOperator:
        return BlockOperator(super().operator(tensors), self.d, self.block)

    def identity(self, dtype: torch.dtype, device: torch.device | str) -> RootOperator:
        return BlockOperator(super().identity(dtype, device), self.d, self.block)

    def snapshot(self, state: State) -> Snapshot:
        return DenseSnapshot(self._matrix(state), padding=self.count * self.block - self.d)

    def _matrix(self, state: State) -> Tensor:
        return state["value"] / state["weight"]


class SketchEstimate(Estimate):
    """The leading `rank` eigenpairs of ``E[a aᵀ]`` and the mean of the rest, from a sketch (`core.nystrom`).

    A layer of few inputs applies its low-rank root as one dense matrix: one small product costs less than two.
    """

    def __init__(self, d: int, rank: int):
        super().__init__(d)
        self.rank = min(rank, d)
        self.columns = min(self.rank + OVERSAMPLING, d)
        self._narrow = d <= _NARROW

    def init(self, dtype: torch.dtype, device: torch.device | str, generator: torch.Generator) -> State:
        gaussian = torch.randn(self.d, self.columns, dtype=torch.float64, generator=generator)
        basis = torch.linalg.qr(gaussian).Q.to(dtype=dtype, device=device)
        scalar = torch.zeros((), dtype=dtype, device=device)
        return {"weight": scalar, "trace": scalar.clone(), "sketch": torch.zeros_like(basis), "basis": basis}

    def update(self, state: State, a: Tensor, decay: float) -> None:
        share = (1 - decay) / a.shape[0]
        state["sketch"].addmm_(a.mT, a @ state["basis"], beta=decay, alpha=share)
        flat = a.reshape(-1)
        state["trace"].mul_(decay).add_(torch.dot(flat, flat), alpha=share)
        _advance_weight(state, decay)

    def mean_diagonal(self, state: State) -> Tensor:
        return state["trace"] / (self.d * state["weight"])

    def refresh(self, state: State, damping: Tensor) -> RootOperator:
        decomposition = self._decompose(state)
        state["sketch"].copy_(decomposition.next_sketch() * state["weight"])
        state["basis"].copy_(decomposition.range)
        root = nystrom(decomposition.pairs, damping)
        return root.dense() if self._narrow else root

    def operator(self, tensors: State) -> RootOperator:
        return SymmetricOperator(**tensors) if self._narrow else LowRankOperator(**tensors)

    def identity(self, dtype: torch.dtype, device: torch.device | str) -> RootOperator:
        if self._narrow:
            return SymmetricOperator.identity((self.d, self.d), dtype, device)
        return LowRankOperator.identity(self.d, self.rank, dtype, device)

    def snapshot(self, state: State) -> Snapshot:
        return LowRankSnapshot(self._decompose(state).pairs)

    def _decompose(self, state: State) -> Decomposition:
        weight = state["weight"]
        return decompose(state["sketch"] / weight, state["basis"], state["trace"] / weight, self.rank)


def make_estimate(d: int, settings: FisherSettings) -> Estimate:
    """The estimate that `settings` ask for, for a layer with `d` inputs (the bias's 1 included)."""
    if settings.granularity == "diagonal":
        return DiagonalEstimate(d)
    if settings.root == "nystrom":
        assert settings.rank is not None  # FisherSettings fills it
        return SketchEstimate(d, settings.rank)
    assert settings.root is not None
    if settings.block is not None:
        return BlockEstimate(d, settings.root, int(settings.block))
    return InputEstimate(d, settings.root)
