"""``"input"`` with a dense root, and ``"block:…"``."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from sngd_tune.core.estimates.base import Estimate, State, advance_weight, probed
from sngd_tune.core.inputs import Inputs, distinct
from sngd_tune.core.layers.base import Shape
from sngd_tune.core.operators import (
    BlockOperator,
    EigenbasisOperator,
    MatrixOperator,
    RootOperator,
    SymmetricOperator,
    TriangularOperator,
    split_blocks,
)
from sngd_tune.core.roots import DENSE_ROOTS
from sngd_tune.core.snapshots import DenseSnapshot

__all__ = ["BlockEstimate", "InputEstimate"]

#: Rows of ``G`` that are updated at a time.
_STRIP = 200

_FORMS: dict[str, type[MatrixOperator] | type[TriangularOperator] | type[EigenbasisOperator]] = {
    "cholesky": TriangularOperator,
    "eigenbasis": EigenbasisOperator,
    "newton_schulz": MatrixOperator,
}


class InputEstimate(Estimate):
    """All of ``E[a aᵀ]``, ``[*lead, d, d]``, with a dense root."""

    def __init__(self, shape: Shape, root: str):
        super().__init__(shape)
        self.root = root
        self._form = _FORMS.get(root, SymmetricOperator)

    @property
    def kept(self) -> tuple[int, ...]:
        """Shape of the kept matrices."""
        return (*self.shape.lead, self.shape.d, self.shape.d)

    def init(self, dtype: torch.dtype, device: torch.device | str, generator: torch.Generator) -> State:
        return {
            "weight": torch.zeros((), dtype=dtype, device=device),
            "value": torch.zeros(self.kept, dtype=dtype, device=device),
        }

    def update(self, state: State, inputs: Inputs, gradients: Sequence[Tensor], decay: float) -> None:
        self.take(state["value"], inputs.chunks(), inputs.count, decay)
        advance_weight(state, decay)

    def take(self, value: Tensor, chunks: Iterable[Tensor], count: int, decay: float) -> None:
        """Take ``Σ a aᵀ / count`` over rows ``[*lead, m, d]``, which come in pieces, into the average `value`."""
        value.mul_(decay)
        for rows in chunks:
            self._add(value, rows, (1 - decay) / count)

    def _add(self, value: Tensor, rows: Tensor, share: float) -> None:
        if value.dim() > 2:
            rows = distinct(rows)
            value.add_(rows.mT @ rows, alpha=share)
            return
        # Only what lies on and below the diagonal, in strips: the half above would cost as much again.
        for start in range(0, self.shape.d, _STRIP):
            strip = slice(start, min(start + _STRIP, self.shape.d))
            value[strip, : strip.stop].addmm_(rows[:, strip].mT, rows[:, : strip.stop], alpha=share)

    def mean_diagonal(self, state: State) -> Tensor:
        return state["value"].diagonal(dim1=-2, dim2=-1).mean(-1) / state["weight"]

    @property
    def starts_from_last(self) -> bool:
        return self.root == "newton_schulz"

    def refresh(self, state: State, damping: Tensor, last: RootOperator | None) -> RootOperator:
        return DENSE_ROOTS[self.root](self._matrix(state), damping, last)

    def fingerprint(self, state: State) -> Tensor:
        return probed(self._matrix(state))

    def _matrix(self, state: State) -> Tensor:
        """``G``, both halves; the upper one copied strip by strip, as a whole transpose misses the cache."""
        G = state["value"] / state["weight"]
        for start in range(0, self.shape.d, _STRIP):
            strip = slice(start, min(start + _STRIP, self.shape.d))
            G[..., : strip.start, strip] = G[..., strip, : strip.start].mT
            corner = G[..., strip, strip].tril()
            G[..., strip, strip] = corner + corner.tril(-1).mT
        return G

    def operator(self, tensors: State) -> RootOperator:
        return self._form(**tensors)

    def identity(self, dtype: torch.dtype, device: torch.device | str) -> RootOperator:
        return self._form.identity(self.kept, dtype, device)

    def snapshot(self, state: State) -> DenseSnapshot:
        return DenseSnapshot(self._matrix(state))


class BlockEstimate(InputEstimate):
    """``E[a aᵀ]`` in ``k`` diagonal blocks, ``[*lead, k, b, b]``; the last block is padded with 0.

    Args:
        shape: of the site.
        root: of each block.
        block: ``b``.
    """

    def __init__(self, shape: Shape, root: str, block: int):
        super().__init__(shape, root)
        self.block = block
        self.count = -(-shape.d // block)

    @classmethod
    def even(cls, shape: Shape, root: str, largest: int) -> "BlockEstimate":
        """Blocks of one size, at most `largest`, so that the padding stays below their number.

        (81 inputs under ``block:64`` are two blocks of 41, not 64 and a padded 17.)
        """
        count = -(-shape.d // largest)
        return cls(shape, root, -(-shape.d // count))

    @property
    def kept(self) -> tuple[int, ...]:
        return (*self.shape.lead, self.count, self.block, self.block)

    def _add(self, value: Tensor, rows: Tensor, share: float) -> None:
        blocks = split_blocks(distinct(rows), self.block)
        if value.dim() == 3:
            value.baddbmm_(blocks.mT, blocks, alpha=share)
        else:
            value.add_(blocks.mT @ blocks, alpha=share)

    def mean_diagonal(self, state: State) -> Tensor:
        diagonal = state["value"].diagonal(dim1=-2, dim2=-1)
        return diagonal.sum((-2, -1)) / (self.shape.d * state["weight"])

    def refresh(self, state: State, damping: Tensor, last: RootOperator | None) -> RootOperator:
        inner = last.inner if isinstance(last, BlockOperator) else None
        each = damping.unsqueeze(-1).expand(*self.shape.lead, self.count)
        return self._blocks(super().refresh(state, each, inner))

    def operator(self, tensors: State) -> RootOperator:
        return self._blocks(super().operator(tensors))

    def identity(self, dtype: torch.dtype, device: torch.device | str) -> RootOperator:
        return self._blocks(super().identity(dtype, device))

    def _blocks(self, inner: RootOperator) -> RootOperator:
        return BlockOperator(inner, self.shape.d, self.block)

    def snapshot(self, state: State) -> DenseSnapshot:
        return DenseSnapshot(self._matrix(state), padding=self.count * self.block - self.shape.d)

    def _matrix(self, state: State) -> Tensor:
        return state["value"] / state["weight"]
