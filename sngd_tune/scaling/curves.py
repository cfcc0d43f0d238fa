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

__all__ = ["Curve", "Curves", "Quantity", "fit_curves", "ratio_law"]

_SCHEMA = 1
#: Units of what may have a floor: time, memory, energy and counts. A rate has none.
_WITH_FLOOR = ("s", "B", "J", "count")

#: What is measured, and the method with which: ``("step_seconds", "sngd")``.
Quantity = tuple[str, str]


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
    """

    workload: str
    base: Mapping[str, Scalar]
    methods: Mapping[str, Mapping[str, Scalar]]
    curves: tuple[Curve, ...]

    def find(self, axis: str, measure: str, method: str) -> Curve | None:
        """The curve; None where nothing was measured."""
        wanted = axis, measure, method
        return next((each for each in self.curves if (each.axis, each.measure, each.method) == wanted), None)

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
            curves = tuple(map(_curve, fields["curves"]))
            return cls(workload=fields["workload"], base=fields["base"], methods=fields["methods"], curves=curves)
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


def ratio_law(measurements: Iterable[Measurement], axis: str, over: Quantity, under: Quantity) -> PowerLaw | NoFit:
    """How one quantity over another goes along an axis, training by training of the same seed.

    An interval of the exponent that lies below 0, or holds 0, says that the first does not grow faster. Taken from the
    two laws apart it would be wider, as what slows down a machine for a while slows down both.

    Args:
        measurements: of a scaling study.
        axis: along which.
        over: the numerator, such as ``("overhead_seconds", "sngd")``.
        under: the denominator, such as ``("forward_backward_seconds", "sngd")``.
    """
    values: dict[Quantity, dict[tuple[Scalar, int], float]] = {over: {}, under: {}}
    for each in measurements:
        if each.axis == axis and not each.held:
            for measure, method in values:
                if method == each.method and measure in each.measures:
                    values[measure, method][each.value, each.seed] = each.measures[measure]
    pairs = [(x, y, values[under][x, seed]) for (x, seed), y in values[over].items() if (x, seed) in values[under]]
    bad = next((x for x, y, z in pairs if not (0 < y < math.inf and 0 < z < math.inf)), None)
    if bad is not None:
        return NoFit(f"a value at {bad} that is not above 0 and finite has no ratio")
    return _law([(x, y / z) for x, y, z in pairs], floor=False)


def _law(points: list[tuple[Scalar, float]], *, floor: bool) -> PowerLaw | NoFit:
    numbers = [(value, y) for value, y in points if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(points):
        return NoFit("the values of this axis are no numbers")
    x, y = [x for x, _ in numbers], [y for _, y in numbers]
    return fit_power_law(x, y, floor=floor)


def _curve(fields: Mapping[str, Any]) -> Curve:
    law = PowerLaw.from_dict(fields["law"]) if "law" in fields else NoFit(**fields["no_fit"])
    return Curve(axis=fields["axis"], measure=fields["measure"], method=fields["method"], law=law)
