"""What a training or a study on a larger model, larger batches or more workers would take, from the fits of a smaller.

Laws are along one axis with all others at their base, so several are combined as factors (`products.multiplied`). Where
the study is a grid of two axes, it has measured what that misses: the largest miss enters the interval as an error of
its own. Elsewhere it is an assumption, and the plan says so, as it does where a law is asked beyond its measured range.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

from sngd_tune.energy.cost import Prices
from sngd_tune.errors import ConfigurationError
from sngd_tune.records.parameters import nearest
from sngd_tune.scaling.curves import Curves
from sngd_tune.scaling.fits import NoFit, PowerLaw
from sngd_tune.scaling.products import Product, multiplied

__all__ = ["Estimate", "Plan", "Wish", "estimate", "make_plan"]

_HOUR = 3600.0
_STEP, _TARGET, _MEMORY = "step_seconds", "seconds_to_target", "peak_memory_bytes"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its error bar.

    Attributes:
        value, low, high: the estimate and its 95 % prediction interval.
        beyond: of each axis on which a law was asked outside of its measured range: axis, asked, start, stop. Nothing
            but the law's form vouches for the interval then.
    """

    value: float
    low: float
    high: float
    beyond: tuple[tuple[str, float, float, float], ...] = ()

    def __mul__(self, factor: float) -> "Estimate":
        """Times a number that is known, ≥ 0."""
        return Estimate(value=self.value * factor, low=self.low * factor, high=self.high * factor, beyond=self.beyond)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is planned.

    Attributes:
        sizes: value by axis; the others stay at their base.
        trials: trainings, ≥ 1; 1 is a single training.
        workers: trainings that run at a time, ≥ 1, each on devices of its own.
        steps: of each training; None: as many as the target takes.
        devices: of each training, ≥ 1.
        prices: of a device-hour; energy is not planned, so a price for it has no say.

    Raises:
        ConfigurationError: a value out of its range.
    """

    sizes: Mapping[str, float]
    trials: int = 1
    workers: int = 1
    steps: int | None = None
    devices: int = 1
    prices: Prices = field(default_factory=Prices)

    def __post_init__(self) -> None:
        for axis, value in self.sizes.items():
            if not 0 < value < math.inf:
                raise ConfigurationError(f"{axis}={value:g}: must be above 0 and finite")
        for name in ("trials", "workers", "steps", "devices"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigurationError(f"{name}={value}: must be ≥ 1")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one method would take.

    Attributes:
        method: its label.
        step_seconds: of one step; None without a law, as all below.
        training_seconds: of one training.
        study_seconds: from the first trial to the last, all places of the cluster filled round by round.
        device_hours: of the whole cluster for that long: idle devices are paid as well.
        cost: in the currency of the price.
        memory_bytes: of a worker at its peak.
        missing: why a figure is None, one sentence each.
        products: of the laws that were multiplied, as far as a grid tells how well they do.
        assumed: pairs of axes whose laws were multiplied and no grid tells.
    """

    method: str
    step_seconds: Estimate | None
    training_seconds: Estimate | None
    study_seconds: Estimate | None
    device_hours: Estimate | None
    cost: Estimate | None
    memory_bytes: Estimate | None
    missing: tuple[str, ...]
    products: tuple[Product, ...] = ()
    assumed: tuple[tuple[str, str], ...] = ()

    @property
    def extrapolated(self) -> tuple[str, ...]:
        """Where laws were asked beyond what was measured, one sentence for each axis."""
        found = [each.beyond for each in (self.step_seconds, self.training_seconds, self.memory_bytes) if each]
        return tuple(
            f"{axis}={asked:g} lies beyond the measured {start:g} to {stop:g}"
            for axis, asked, start, stop in dict.fromkeys(beyond for each in found for beyond in each)
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "extrapolated": list(self.extrapolated)}


def make_plan(curves: Curves, method: str, wish: Wish) -> Plan:
    """Plan with one method of a scaling study.

    Raises:
        ConfigurationError: an unknown method or axis.
    """
    if method not in curves.methods:
        raise ConfigurationError(f"method={method!r}: not in these fits{nearest(method, curves.methods)}")
    figures = {measure: estimate(curves, measure, method, wish.sizes) for measure in (_STEP, _TARGET, _MEMORY)}
    needed = (_STEP, _MEMORY) if wish.steps is not None else (_STEP, _TARGET, _MEMORY)
    step, target, memory = (each if isinstance(each, Estimate) else None for each in figures.values())
    training = target if wish.steps is None else step * wish.steps if step is not None else None
    price = wish.prices.device_hour
    study = training * math.ceil(wish.trials / wish.workers) if training is not None else None
    moved = _moved(curves, wish.sizes)
    told = [_products(curves, name, method, moved) for name in needed if isinstance(figures[name], Estimate)]
    hours = study * (wish.workers * wish.devices / _HOUR) if study is not None else None
    return Plan(
        method=method,
        step_seconds=step,
        training_seconds=training,
        study_seconds=study,
        device_hours=hours,
        cost=hours * price if hours is not None and price is not None else None,
        memory_bytes=memory,
        missing=tuple(f"{name}: {each.reason}" for name in needed if isinstance(each := figures[name], NoFit)),
        products=tuple(each for found in told for each in found.values() if each is not None),
        assumed=tuple(dict.fromkeys(axes for found in told for axes, each in found.items() if each is None)),
    )


def estimate(curves: Curves, measure: str, method: str, sizes: Mapping[str, float]) -> Estimate | NoFit:
    """A measure of a method at other sizes, or why nothing can be said.

    Args:
        curves: of the scaling study.
        measure: one of `scaling.measures.MEASURES`.
        method: one of ``curves.methods``.
        sizes: value by axis; the others stay at their base.

    Raises:
        ConfigurationError: an axis that the study did not look along, or whose values are no numbers.
    """
    moved = _moved(curves, sizes)
    laws = [_law(curves, measure, method, axis) for axis in moved]
    reasons = [law.reason for law in laws if isinstance(law, NoFit)]
    if reasons:
        return NoFit("; ".join(reasons))
    known = [law for law in laws if isinstance(law, PowerLaw)]
    if not known:
        return _at_base(curves, measure, method)
    joint = multiplied(known, [sizes[axis] for axis in moved], [_base(curves, axis) for axis in moved])
    misses = [each.error for each in _products(curves, measure, method, moved).values() if each is not None]
    error = math.exp(math.hypot(math.log(joint.high / joint.value), *misses))
    beyond = tuple(
        (axis, sizes[axis], law.start, law.stop)
        for axis, law in zip(moved, known, strict=True)
        if not law.start <= sizes[axis] <= law.stop
    )
    return Estimate(value=joint.value, low=joint.value / error, high=joint.value * error, beyond=beyond)


def _moved(curves: Curves, sizes: Mapping[str, float]) -> list[str]:
    """Axes that are away from their base."""
    return [axis for axis in sizes if sizes[axis] != _base(curves, axis)]


def _products(curves: Curves, measure: str, method: str, axes: Sequence[str]) -> dict[tuple[str, str], Product | None]:
    """For each pair of axes what a grid tells; None where there is none."""
    return {pair: curves.product(pair, measure, method) for pair in combinations(sorted(axes), 2)}


def _base(curves: Curves, axis: str) -> float:
    if axis not in curves.base:
        raise ConfigurationError(f"{axis}: the study did not look along it{nearest(axis, curves.base)}")
    value = curves.base[axis]
    if isinstance(value, bool | str):
        raise ConfigurationError(f"{axis}: its values are no numbers, so there is no law along it; leave it out")
    return float(value)


def _law(curves: Curves, measure: str, method: str, axis: str) -> PowerLaw | NoFit:
    curve = curves.find(axis, measure, method)
    if curve is None:
        return NoFit(f"nothing was measured along {axis}")
    return curve.law if isinstance(curve.law, PowerLaw) else NoFit(f"no law along {axis}: {curve.law.reason}")


def _at_base(curves: Curves, measure: str, method: str) -> Estimate | NoFit:
    """By the law with most points through it."""
    found: Sequence[tuple[str, PowerLaw]] = [
        (each.axis, each.law)
        for each in curves.curves
        if (each.measure, each.method) == (measure, method) and isinstance(each.law, PowerLaw)
    ]
    if not found:
        return NoFit("no law along any axis")
    axis, law = max(found, key=lambda each: len(each[1].x))
    there = law.predict(_base(curves, axis))
    return Estimate(value=there.value, low=there.low, high=there.high)
