"""``block:channel`` and ``block:position``: blocks that follow the kernel of a convolution."""

from torch import Tensor

from sngd_tune.core.estimates.base import State
from sngd_tune.core.estimates.dense import BlockEstimate
from sngd_tune.core.layers.base import Shape
from sngd_tune.core.operators import RootOperator
from sngd_tune.core.permuted import PermutedOperator, by_position

__all__ = ["PositionBlockEstimate", "channel_blocks"]


def channel_blocks(shape: Shape, root: str) -> BlockEstimate:
    """One block of K for each input channel; the bias's 1 has a padded block of its own."""
    return BlockEstimate(shape, root, shape.positions)


class PositionBlockEstimate(BlockEstimate):
    """One block of all channels for each of the K kernel positions; the bias's 1 has a padded block of its own.

    (With one position there is one block, the bias's 1 included: ``"input"``.)
    """

    def __init__(self, shape: Shape, root: str):
        super().__init__(shape, root, shape.d // shape.positions)

    def _add(self, value: Tensor, rows: Tensor, share: float) -> None:
        super()._add(value, by_position(rows, self.shape.positions), share)

    def refresh(self, state: State, damping: Tensor, last: RootOperator | None) -> RootOperator:
        return super().refresh(state, damping, last.inner if isinstance(last, PermutedOperator) else None)

    def _blocks(self, inner: RootOperator) -> RootOperator:
        return PermutedOperator(super()._blocks(inner), self.shape.positions)
