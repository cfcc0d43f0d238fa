"""What time and energy cost, what a method saves with each training, and when that has paid for its tuning. Pure.

What is not known stays None: no price is assumed, no missing energy is guessed, and energies of different sources are
neither added nor compared.
"""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.energy import WATT_HOUR, Energy, total

__all__ = ["Amounts", "Prices", "Usage", "break_even", "payback", "per_month", "saved"]

_HOUR = 3600.0
_KWH = 1000 * WATT_HOUR


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What the user pays. Both count where both are given: name no price per kWh where the device's hour includes it.

    Args:
        device_hour: of one device, ≥ 0; None: not known.
        kwh: of electricity, ≥ 0; None: not known.
        currency: only shown.

    Raises:
        ConfigurationError: a price is negative, infinite or NaN.
    """

    device_hour: float | None = None
    kwh: float | None = None
    currency: str = ""

    def __post_init__(self) -> None:
        for name in ("device_hour", "kwh"):
            price = getattr(self, name)
            if price is not None and not (math.isfinite(price) and price >= 0):
                raise ConfigurationError(
                    f"prices.{name}={price}: a price is a finite number ≥ 0; leave it out if unknown"
                )


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one training, or all of a tuning, used.

    Attributes:
        seconds: of devices: seconds of all trainings together, ≥ 0.
        energy: None where it is not known.
    """

    seconds: float
    energy: Energy | None = None

    def __add__(self, other: "Usage") -> "Usage":
        """Both together; energy is known where both are, from one source."""
        return Usage(seconds=self.seconds + other.seconds, energy=total([self.energy, other.energy]))

    def cost(self, prices: Prices) -> float | None:
        """In `prices.currency`; None without any price, and where one for energy is given but no energy is known."""
        return _cost(self.seconds, None if self.energy is None else self.energy.joules, prices)


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """One figure each for time, energy and cost: of a saving, s, J and money; of a break-even, trainings.

    Attributes:
        seconds: as measured.
        joules: None where energy is unknown on a side, or of different sources.
        cost: None where a price or the energy that it is for is unknown.
    """

    seconds: float
    joules: float | None
    cost: float | None


def saved(baseline: Usage, method: Usage, prices: Prices) -> Amounts:
    """What the method uses less than the baseline; negative where it uses more."""
    seconds = baseline.seconds - method.seconds
    joules = _saved_joules(baseline.energy, method.energy)
    return Amounts(seconds=seconds, joules=joules, cost=_cost(seconds, joules, prices))


def per_month(amounts: Amounts, trainings: float) -> Amounts:
    """What `saved` says of one training, for so many of them a month (≥ 0)."""
    return _each(amounts, Amounts(seconds=trainings, joules=trainings, cost=trainings), operator.mul)


def break_even(extra: float, saving: float) -> float:
    """The number of later trainings that pays back a tuning.

    >>> break_even(extra=10.0, saving=4.0), break_even(extra=-1.0, saving=4.0), break_even(extra=10.0, saving=0.0)
    (3.0, 0.0, inf)

    Args:
        extra: what the method's tuning took more than the baseline's; ≤ 0 where it took no more.
        saving: of each later training, in the same unit.

    Returns:
        A whole number ≥ 0: 0 where there is nothing to pay back; inf where a training saves nothing.
    """
    if saving <= 0:
        return math.inf
    needed = max(0.0, extra) / saving
    return float(math.ceil(needed)) if math.isfinite(needed) else math.inf


def payback(extra: Amounts, saving: Amounts) -> Amounts:
    """`break_even` by time, by energy and by cost; None where an amount that it takes is not known.

    Args:
        extra: what the method's tuning took more than the baseline's.
        saving: with each later training.
    """
    return _each(extra, saving, break_even)


def _saved_joules(baseline: Energy | None, method: Energy | None) -> float | None:
    if baseline is None or method is None or baseline.source != method.source:
        return None
    return (baseline - method).joules


def _cost(seconds: float, joules: float | None, prices: Prices) -> float | None:
    if (prices.device_hour is None and prices.kwh is None) or (prices.kwh is not None and joules is None):
        return None
    return seconds / _HOUR * (prices.device_hour or 0.0) + (joules or 0.0) / _KWH * (prices.kwh or 0.0)


def _each(one: Amounts, other: Amounts, combine: Callable[[float, float], float]) -> Amounts:
    """Combine them amount by amount; None where one is."""

    def both(a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None else combine(a, b)

    return Amounts(
        seconds=combine(one.seconds, other.seconds),
        joules=both(one.joules, other.joules),
        cost=both(one.cost, other.cost),
    )
