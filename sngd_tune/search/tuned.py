"""What is tuned anew in a scaling study: at a point along such an axis, the candidates that stand beside it."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.parameters import PARAMETERS, is_active
from sngd_tune.records.scaling import PlannedPoint, ScalingConfig

__all__ = ["candidates", "check_tuned"]


def candidates(config: ScalingConfig, point: PlannedPoint) -> Iterator[PlannedPoint]:
    """A point, and beside it all combinations of factors of what is tuned along its axis; the base lies on all axes.

    Raises:
        ConfigurationError: a value that no factor changes.
    """
    yield point
    for axis in point.moved or config.axes:
        tuned = {name: each.factors for name, each in config.tune.items() if axis in each.axes}
        own = {name: factors for name, factors in tuned.items() if is_active(name, point.parameters)}
        for factors in itertools.product(*own.values()):
            changed = {name: factor for name, factor in zip(own, factors, strict=True) if factor != 1}
            if changed:
                yield _candidate(point, changed)


def check_tuned(config: ScalingConfig, points: Iterable[PlannedPoint]) -> None:
    """Raise ConfigurationError where something would be tuned for no method."""
    found = {name for point in points for name in point.tuned}
    idle = next((name for name in config.tune if name not in found), None)
    if idle is not None:
        raise ConfigurationError(f"tune.{idle}: has no meaning for any method along its axes; leave it out")


def _candidate(point: PlannedPoint, factors: Mapping[str, float]) -> PlannedPoint:
    values = {name: factor * _value(point, name) for name, factor in factors.items()}
    moved = [f"{axis}={point.axes[axis]}" for axis in point.moved]
    marks = ",".join([*moved, *(f"{name}={value:.4g}" for name, value in values.items())])
    parameters = {**point.parameters, **values}
    return dataclasses.replace(point, name=f"{marks}.{point.method}", parameters=parameters, tuned=factors)


def _value(point: PlannedPoint, name: str) -> float:
    """What the factors are of."""
    value = point.parameters.get(name, PARAMETERS[name].default)
    if not isinstance(value, int | float) or value == 0:
        raise ConfigurationError(f"point {point.name}: {name}={value}: no factor changes it; name a value to tune")
    return float(value)
