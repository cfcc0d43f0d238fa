"""What was tuned anew at one value of an axis, and what was chosen there."""

from collections.abc import Mapping
from dataclasses import dataclass

from sngd_tune.records.scaling import PlannedPoint
from sngd_tune.records.strict import Scalar

__all__ = ["Choice"]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Of the candidates of one method at one value of an axis.

    Attributes:
        axis: that is looked along.
        value: where on it.
        method: label of the method.
        taken: name of the point that is best over all seeds; None while no seed has ended with all candidates.
        factors: its factor by tuned parameter, 1 included.
        edges: parameters of which it has the least or the largest factor tried.
        by_seed: name of the point that each seed measures, which the other seeds chose; a lone seed chooses for itself.
    """

    axis: str
    value: Scalar
    method: str
    taken: str | None
    factors: Mapping[str, float]
    edges: tuple[str, ...]
    by_seed: Mapping[int, str]

    def has(self, point: PlannedPoint) -> bool:
        """Whether a point is one of the candidates."""
        along = set(point.moved) <= {self.axis} and point.axes.get(self.axis) == self.value
        return along and point.method == self.method and set(point.tuned) <= set(self.factors)

    @property
    def agreed(self) -> int:
        """Seeds that measure the point that is best over all."""
        return sum(name == self.taken for name in self.by_seed.values())
