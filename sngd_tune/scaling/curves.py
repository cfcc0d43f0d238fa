"""The curves of a scaling study: one fit for each axis, measure and method, and the file that keeps them."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.scaling import Measurement
from sngd_tune.records.strict import Scalar
from sngd_tune.scaling.fits import NoFit, PowerLaw, fit_power_law
from sngd_tune.scaling.measures import MEASURES
from sngd_tune.scaling.products import Product, misses

__all__ = ["Curve", "Curves", "fit_curves", "fit_products"]

_SCHEMA = 1
#: Units of what may have a floor: time, memory, energy and counts. A rate has none.
_WITH_FLOOR = ("s", "B", "J", "count")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What was fitted.

    Attributes:
        axis: what was changed.
        measure: what was measured.
        method: label of the method.
        law: of the measure along the axis, all other axes at their base values; or why there is none.
    """

    axis: str
    measure: str
    method: str
    law: PowerLaw | NoFit


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Of a scaling study.

    Attributes:
        workload: its name, without sizes.
        base: value of each axis where it is not what is looked along, and of the workload's sizes that never change.
        methods: flat trial parameters of each at the base point.
        curves: in the order of axes, measures and methods.
        products: of a grid: how well the laws of its two axes multiply; empty where one axis was moved at a time.
    """

    workload: str
    base: Mapping[str, Scalar]
    methods: Mapping[str, Mapping[str, Scalar]]
    curves: tuple[Curve, ...]
    products: tuple[Product, ...] = ()

    def find(self, axis: str, measure: str, method: str) -> Curve | None:
        """The curve; None where nothing was measured."""
        wanted = axis, measure, method
        return next((each for each in self.curves if (each.axis, each.measure, each.method) == wanted), None)

    def product(self, axes: tuple[str, str], measure: str, method: str) -> Product | None:
        """Of the laws along two axes, in either order; None where no grid tells."""
        wanted = tuple(sorted(axes)), measure, method
        return next((each for each in self.products if (each.axes, each.measure, each.method) == wanted), None)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `read` reads it."""
        curves = [
            {
                "axis": each.axis,
                "measure": each.measure,
                "method": each.method,
                ("law" if isinstance(each.law, PowerLaw) else "no_fit"): each.law.to_dict(),
            }
            for each in self.curves
        ]
        methods = {method: dict(parameters) for method, parameters in self.methods.items()}
        return {
            "schema": _SCHEMA,
            "workload": self.workload,
            "base": dict(self.base),
            "methods": methods,
            "curves": curves,
            "products": [each.to_dict() for each in self.products],
        }

    @classmethod
    def read(cls, file: Path) -> "Curves":
        """From a file that holds `to_dict` as JSON.

        Raises:
            ConfigurationError: it cannot be read, or holds something else.
        """
        try:
            fields = json.loads(file.read_text(encoding="utf-8"))
            if fields["schema"] != _SCHEMA:
                raise ConfigurationError(f"{file}: schema {fields['schema']}: must be {_SCHEMA}; fit the study again")
            return cls(
                workload=fields["workload"],
                base=fields["base"],
                methods=fields["methods"],
                curves=tuple(map(_curve, fields["curves"])),
                products=tuple(map(Product.from_dict, fields.get("products", ()))),  # not in files of before
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"{file}: not the fits of a scaling study ({error!r}); name the fits.json in its run directory"
            ) from error


def fit_curves(measurements: Iterable[Measurement]) -> tuple[Curve, ...]:
    """One curve for each axis, method and measure that is fitted; a grid's points off the base do not enter."""
    groups: dict[tuple[str, str, str], list[tuple[Scalar, float]]] = {}
    for each in measurements:
        if not each.held:
            for measure, value in ((name, y) for name, y in each.measures.items() if MEASURES[name].fitted):
                groups.setdefault((each.axis, measure, each.method), []).append((each.value, value))
    return tuple(
        Curve(axis=axis, measure=measure, method=method, law=_law(points, floor=MEASURES[measure].unit in _WITH_FLOOR))
        for (axis, measure, method), points in groups.items()
    )


def fit_products(
    measurements: Iterable[Measurement], curves: Iterable[Curve], base: Mapping[str, Scalar]
) -> tuple[Product, ...]:
    """How well the laws of two axes multiply, for each method and measure with a law along both.

    Of a measure that is infinite somewhere (a target that was missed), or 0, nothing is said.

    Args:
        measurements: of a scaling study; only what a grid has away from the base on both axes enters.
        curves: `fit_curves` of the same.
        base: value of each axis at the base point.
    """
    laws = {(each.axis, each.measure, each.method): each.law for each in curves if isinstance(each.law, PowerLaw)}
    found = []
    for (first, second, measure, method), grid in _grids(measurements, base).items():
        axes = first, second
        both = [law for axis in axes if (law := laws.get((axis, measure, method))) is not None]
        if len(both) == 2 and all(0 < value < math.inf for values in grid.values() for value in values):
            numbers = {(float(x), float(y)): values for (x, y), values in grid.items()}
            ratios = misses(both, [float(base[axis]) for axis in axes], numbers)
            low, high = min(ratios), max(ratios)
            found.append(Product(axes=axes, measure=measure, method=method, points=len(grid), low=low, high=high))
    return tuple(found)


_Grid = dict[tuple[Scalar, Scalar], list[float]]


def _grids(measurements: Iterable[Measurement], base: Mapping[str, Scalar]) -> dict[tuple[str, str, str, str], _Grid]:
    """By two axes, measure and method: the values of seeds where both axes are away from their base."""
    grids: dict[tuple[str, str, str, str], _Grid] = {}
    for each in measurements:
        for other, held in each.held.items():
            if each.axis < other and each.value != base[each.axis]:  # the point lies on the other's curve as well
                for measure, value in each.measures.items():
                    grid = grids.setdefault((each.axis, other, measure, each.method), {})
                    grid.setdefault((each.value, held), []).append(value)
    return grids


def _law(points: list[tuple[Scalar, float]], *, floor: bool) -> PowerLaw | NoFit:
    numbers = [(value, y) for value, y in points if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(points):
        return NoFit("the values of this axis are no numbers")
    x, y = [x for x, _ in numbers], [y for _, y in numbers]
    return fit_power_law(x, y, floor=floor)


def _curve(fields: Mapping[str, Any]) -> Curve:
    law = PowerLaw.from_dict(fields["law"]) if "law" in fields else NoFit(**fields["no_fit"])
    return Curve(axis=fields["axis"], measure=fields["measure"], method=fields["method"], law=law)
