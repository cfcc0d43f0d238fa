"""The laws of several axes taken as factors of one, and how far a grid shows that to miss."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sngd_tune.scaling.fits import PowerLaw, Prediction

__all__ = ["Product", "misses", "multiplied"]


@dataclass(frozen=True, kw_only=True)
class Product:
    """What two laws multiplied predict, over what a grid measured, where both axes are away from their base.

    Attributes:
        axes: the two, by alphabet.
        measure: what was measured.
        method: label of the method.
        points: of the grid, ≥ 1.
        low, high: the least and the largest ratio of predicted to measured (geometric mean of the seeds), > 0. It holds
            what each law misses, and the interaction of the two axes, which no law has.
    """

    axes: tuple[str, str]
    measure: str
    method: str
    points: int
    low: float
    high: float

    @property
    def error(self) -> float:
        """The largest miss on either side, as a logarithm, ≥ 0."""
        return max(abs(math.log(self.low)), abs(math.log(self.high)))

    def __str__(self) -> str:
        return f"within a factor of {self.low:.2f} to {self.high:.2f}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `from_dict` reads it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Product":
        """What `to_dict` made."""
        first, second = fields["axes"]
        return cls(**{**fields, "axes": (first, second)})


def multiplied(laws: Sequence[PowerLaw], sizes: Sequence[float], bases: Sequence[float]) -> Prediction:
    """The first law, times the ratios that the others give over their base value.

    Errors of the laws are taken as independent: they add as squares of logarithms.

    Args:
        laws: of one measure, each along an axis of its own with all others at their base; at least one.
        sizes: asked along each.
        bases: value of each axis where it is not what is looked along.
    """
    first = laws[0].predict(sizes[0])
    ratios = (law.ratio(size, base) for law, size, base in zip(laws, sizes, bases, strict=True))
    factors = [first, *list(ratios)[1:]]
    value = math.prod(each.value for each in factors)
    error = math.exp(math.hypot(*(math.log(each.high / each.value) for each in factors)))
    return Prediction(value, value / error, value * error, any(each.extrapolated for each in factors))


def misses(
    laws: Sequence[PowerLaw], bases: Sequence[float], grid: Mapping[tuple[float, float], Sequence[float]]
) -> list[float]:
    """What two laws multiplied predict over what was measured (geometric mean), at each point of a grid.

    Args:
        laws: along each of the two axes.
        bases: of each axis.
        grid: one value a seed, > 0 and finite, by the values of both axes.
    """
    return [
        multiplied(laws, at, bases).value / math.exp(math.fsum(map(math.log, values)) / len(values))
        for at, values in grid.items()
    ]
