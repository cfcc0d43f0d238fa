"""Roots over columns in another order: ``block:position`` keeps a kernel position's channels together."""

from collections.abc import Callable

import torch
from torch import Tensor

from sngd_tune.core.operators import RootOperator
from sngd_tune.core.operators.block import RearrangedOperator

__all__ = ["PermutedOperator", "by_channel", "by_position"]


def by_position(x: Tensor, positions: int) -> Tensor:
    """Columns ``[..., C·K (+1)]`` from channel by channel to position by position; a bias's column stays the last."""
    return _transposed(x, positions, (-1, positions))


def by_channel(x: Tensor, positions: int) -> Tensor:
    """Inverse of `by_position`."""
    return _transposed(x, positions, (positions, -1))


def _transposed(x: Tensor, positions: int, sizes: tuple[int, int]) -> Tensor:
    # Views and one copy: an index would be one more tensor to keep on the right device.
    kernel = x.shape[-1] // positions * positions
    moved = x[..., :kernel].unflatten(-1, sizes).transpose(-2, -1).flatten(-2)
    return moved if kernel == x.shape[-1] else torch.cat((moved, x[..., kernel:]), dim=-1)


class PermutedOperator(RearrangedOperator):
    """``P R Pᵀ`` for an operator ``R`` over columns that lie position by position.

    Args:
        inner: ``R``.
        positions: K ≥ 1, of the kernel.
    """

    def __init__(self, inner: RootOperator, positions: int):
        super().__init__(inner)
        self.positions = positions

    def _through(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return by_channel(function(by_position(x, self.positions)), self.positions)
