"""What a scaling study draws: the measured values of one measure of one method along one axis, and the law in them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sngd_tune.records.scaling import Measurement
from sngd_tune.records.strict import Scalar
from sngd_tune.scaling.curves import Curve
from sngd_tune.scaling.fits import NoFit, PowerLaw
from sngd_tune.scaling.measures import MEASURES

__all__ = ["Series", "series_of"]


@dataclass(frozen=True, kw_only=True)
class Series:
    """One measure of one method along one axis.

    Attributes:
        axis, method, held, measure: as `Measurement` has them.
        values: of the measure, one a seed, by value of the axis; numbers ascending, words in the order of the file.
        law: through them, or why there is none; None where none is sought.
    """

    axis: str
    method: str
    measure: str
    held: Mapping[str, Scalar]
    values: Mapping[Scalar, tuple[float, ...]]
    law: PowerLaw | NoFit | None

    @property
    def label(self) -> str:
        """The method, with what is held away from its base: ``"sngd, batch_size=256"``."""
        return ", ".join([self.method, *(f"{axis}={value}" for axis, value in self.held.items())])

    @property
    def numeric(self) -> bool:
        """Whether the axis has numbers."""
        return all(map(_number, self.values))

    @property
    def flat(self) -> tuple[float, ...]:
        """All values."""
        return tuple(number for found in self.values.values() for number in found)

    def mean(self, value: Scalar) -> float:
        """Over the seeds; infinite where one of them is."""
        found = self.values[value]
        return math.fsum(found) / len(found)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; a missed target is null. `fits.json` has the laws."""
        points = [{"value": value, "seeds": [_plain(each) for each in found]} for value, found in self.values.items()]
        own = {"axis": self.axis, "method": self.method, "held": dict(self.held), "measure": self.measure}
        return {**own, "unit": MEASURES[self.measure].unit, "points": points}


def series_of(measured: Iterable[Measurement], laws: Sequence[Curve]) -> list[Series]:
    """All of them, axis by axis and measure by measure; of a single value there is none.

    Args:
        measured: points of all curves.
        laws: `curves.fit_curves` of the same.
    """
    groups: dict[tuple[Any, ...], dict[Scalar, list[float]]] = {}
    for each in measured:
        for name, number in each.measures.items():
            key = each.axis, name, each.method, tuple(each.held.items())
            groups.setdefault(key, {}).setdefault(each.value, []).append(number)
    order = {name: place for place, name in enumerate(MEASURES)}
    axes = list(dict.fromkeys(key[0] for key in groups))
    keys = sorted(groups, key=lambda key: (axes.index(key[0]), order[key[1]]))
    fitted = {(law.axis, law.measure, law.method): law.law for law in laws if MEASURES[law.measure].fitted}
    return [_series(key, groups[key], fitted.get(key[:3])) for key in keys if len(groups[key]) > 1]


def _series(key: tuple[Any, ...], found: Mapping[Scalar, list[float]], law: PowerLaw | NoFit | None) -> Series:
    axis, name, method, held = key
    names = sorted(found, key=float) if all(map(_number, found)) else list(found)
    values = {value: tuple(found[value]) for value in names}
    sought = law if not held and any(number for each in values.values() for number in each) else None
    return Series(axis=axis, measure=name, method=method, held=dict(held), values=values, law=sought)


def _number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
