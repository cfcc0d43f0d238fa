"""What a training to the target saves: over seeds that both methods were trained on, with an interval for each amount.

Both sides of a pair had the same seed, so what is typical is the median over the pairs of what the baseline took more,
and its interval is that of the sign test (`comparison.sign_interval`), amount by amount: time, energy and cost need not
agree. The difference of two medians has no such interval; the ratio's, times the baseline's median, would leave out
that this median is uncertain too; and percentile bootstraps of 5 to 10 pairs err too often (`comparison.ratios`).
A side that misses takes infinitely long; two that miss save nothing. Beside an infinite saving the interval is the
wider one, and it may include 0 where that of the ratio leaves 1 out, or the other way round.

What is computed from a saving with a factor or a divisor that is no sample, such as a rate or the tuning that was done,
has the interval whose ends are computed alike.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from sngd_tune.energy.cost import Amounts, Prices, Usage, payback, per_month, saved
from sngd_tune.report.comparison.sign_interval import Interval, sign_interval
from sngd_tune.report.decision.values import Range

__all__ = ["Saving", "savings"]

_NAMES = tuple(field.name for field in fields(Amounts))


@dataclass(frozen=True, kw_only=True)
class Saving:
    """A saving in time, energy and cost.

    Attributes:
        typical: medians over the pairs.
        interval: None with too few pairs.
        shown: names of the amounts whose interval leaves 0 out.
    """

    typical: Amounts
    interval: Range | None
    shown: tuple[str, ...]

    def each_month(self, trainings: float) -> tuple[Amounts, Range | None]:
        """At so many trainings, > 0."""
        found = self.interval and Range(
            low=per_month(self.interval.low, trainings),
            high=per_month(self.interval.high, trainings),
            coverage=self.interval.coverage,
        )
        return per_month(self.typical, trainings), found

    def pays_back(self, extra: Amounts) -> tuple[Amounts, Range | None]:
        """The number of trainings after which what tuning took is earned; the larger the saving, the fewer."""
        found = self.interval and Range(
            low=payback(extra, self.interval.high),
            high=payback(extra, self.interval.low),
            coverage=self.interval.coverage,
        )
        return payback(extra, self.typical), found


def savings(own: Mapping[int, Usage | None], baseline: Mapping[int, Usage | None], prices: Prices) -> Saving | None:
    """What a training of the candidate saves; None without a pair, and where the median pair has a miss.

    Args:
        own: of one training of the candidate to the target, by seed; None: it missed.
        baseline: the same of the baseline.
        prices: of the user.
    """
    pairs = [_saved(own[seed], baseline[seed], prices) for seed in sorted(own.keys() & baseline.keys())]
    columns = {name: [getattr(pair, name) for pair in pairs] for name in _NAMES}
    known = {name: values for name, values in columns.items() if values and None not in values}
    medians = {name: statistics.median(values) for name, values in known.items()}
    if not math.isfinite(medians.get("seconds", math.inf)):
        return None
    intervals = {name: _interval(values) for name, values in known.items()}
    return Saving(
        typical=_amounts(medians),
        interval=_range(intervals),
        shown=tuple(name for name, interval in intervals.items() if interval and interval.leaves_out(0.0)),
    )


def _saved(own: Usage | None, baseline: Usage | None, prices: Prices) -> Amounts:
    if own is not None and baseline is not None:
        return saved(baseline, own, prices)
    amount = 0.0 if own is baseline else math.inf if baseline is None else -math.inf
    return Amounts(seconds=amount, joules=amount, cost=amount)


def _interval(values: Sequence[float]) -> Interval | None:
    return sign_interval(np.array(values))


def _range(intervals: Mapping[str, Interval | None]) -> Range | None:
    found = {name: interval for name, interval in intervals.items() if interval is not None}
    if not found:
        return None
    low, high = ({name: getattr(each, end) for name, each in found.items()} for end in ("low", "high"))
    return Range(low=_amounts(low), high=_amounts(high), coverage=found["seconds"].coverage)


def _amounts(values: Mapping[str, Any]) -> Amounts:
    return Amounts(seconds=values["seconds"], joules=values.get("joules"), cost=values.get("cost"))
