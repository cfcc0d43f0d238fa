"""Running estimates of the local Fisher matrix ``G``, one class for each granularity of the reconstruction.

The state is a dict of tensors of fixed shapes, updated in place; ``weight`` is the sum of the moving average's weights,
by which it is divided. `base.Estimate` is the whole contract.
"""

from sngd_tune.core.estimates.base import Estimate, State
from sngd_tune.core.estimates.dense import BlockEstimate, InputEstimate
from sngd_tune.core.estimates.diagonal import DiagonalEstimate
from sngd_tune.core.estimates.kernel_blocks import PositionBlockEstimate, channel_blocks
from sngd_tune.core.estimates.kron import KronEstimate
from sngd_tune.core.estimates.layer import LayerEstimate
from sngd_tune.core.estimates.sketch import SketchEstimate
from sngd_tune.core.estimates.unit import UnitEstimate
from sngd_tune.core.layers.base import Shape
from sngd_tune.settings import FisherSettings

__all__ = ["Estimate", "State", "make_estimate"]

_OUTPUT_SIDE: dict[str, type[UnitEstimate] | type[KronEstimate] | type[LayerEstimate]] = {
    "unit": UnitEstimate,
    "kron": KronEstimate,
    "layer": LayerEstimate,
}


def make_estimate(shape: Shape, settings: FisherSettings) -> Estimate:
    """The estimate that `settings` ask for, for a site of this shape."""
    if settings.granularity == "diagonal" or shape.one_hot:
        return DiagonalEstimate(shape)
    assert settings.root is not None  # FisherSettings fills it
    if settings.granularity in _OUTPUT_SIDE:
        return _OUTPUT_SIDE[settings.granularity](shape, settings.root)
    if settings.root == "nystrom":
        assert settings.rank is not None
        return SketchEstimate(shape, settings.rank, settings.retained_trace)
    if settings.block == "channel":
        return channel_blocks(shape, settings.root)
    if settings.block == "position":
        return PositionBlockEstimate(shape, settings.root)
    if settings.block is not None:
        return BlockEstimate.even(shape, settings.root, int(settings.block))
    return InputEstimate(shape, settings.root)
