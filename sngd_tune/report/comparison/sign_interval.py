"""The interval of the sign test for the median of a few values, of which some may be infinite.

It lies between order statistics that are interpolated to 95 % (Hettmansperger and Sheather 1986) and takes nothing for
granted about the values' distribution. The widest one, from the lowest value to the highest, covers the median with
1 − 2^(1 − n): 75 % of the time with 3 values, 87.5 % with 4, 94 % with 5. So up to 5 values it is their range.
"""

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["COVERAGE", "MIN_VALUES", "Interval", "sign_coverage", "sign_interval"]

#: Below this many values there is no interval: with 4 it covers 87.5 % only, and errs as often as that says.
MIN_VALUES = 5
COVERAGE = 0.95


@dataclass(frozen=True)
class Interval:
    """Both ends, which may be infinite, and how surely the median lies between them: 0.94 with 5 values, else 0.95."""

    low: float
    high: float
    coverage: float

    def leaves_out(self, value: float) -> bool:
        """Whether the value, which is no end either, is outside."""
        return not self.low <= value <= self.high


def sign_interval(values: np.ndarray) -> Interval | None:
    """The interval of their median; None with fewer than `MIN_VALUES`.

    No end falls where a value rises, as long as all are finite. Beside an infinite one there is no way to interpolate,
    and the wider end stands: who needs the order there as well has a scale on which nothing is infinite (`ratios`).
    """
    ordered, n = np.sort(values), len(values)
    if n < MIN_VALUES:
        return None
    outer = 1
    while sign_coverage(n, outer + 1) >= COVERAGE:
        outer += 1
    more, less = sign_coverage(n, outer), sign_coverage(n, outer + 1)
    if more <= COVERAGE:
        return Interval(float(ordered[0]), float(ordered[-1]), more)
    share = (more - COVERAGE) / (more - less)
    inward = (n - outer) * share / (outer + (n - 2 * outer) * share)
    low = _between(ordered[outer - 1], ordered[outer], inward)
    return Interval(low, _between(ordered[n - outer], ordered[n - outer - 1], inward), COVERAGE)


def sign_coverage(n: int, k: int) -> float:
    """How surely the median lies between the k-th smallest and the k-th largest of n values."""
    return 1 - 2 * sum(math.comb(n, i) for i in range(k)) / 2**n


def _between(outer: float, inner: float, inward: float) -> float:
    """Part of the way inwards."""
    return float((1 - inward) * outer + inward * inner) if np.isfinite([outer, inner]).all() else float(outer)
