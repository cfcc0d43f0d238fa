"""The paired ratio of two methods' times (or steps) to a target, of which some are infinite: misses.

The statistic is the median over seeds of candidate / baseline. Its interval is that of the sign test, interpolated to
95 % (`sign_interval`), on the scale (candidate − baseline) / (candidate + baseline): a miss against a hit is 1, a hit
against a miss −1, a tie, two misses among them, 0. Nothing on it is infinite, so a training that becomes faster, or
reaches a target that it missed, lowers both ends or leaves them: better results never give a worse verdict. On a
logarithmic scale, which has no way to interpolate beside a miss, they did with 6 pairs and more.

Up to 5 seeds the interval is the range of the ratios, and a verdict means that all of them agree, which with 5 happens
to two identical methods in 6 % of comparisons.

Bootstraps (percentile, over seeds) were tried. Identical methods are called different in this share of 2,000
comparisons (the last column: 4,000 others); times are log-normal (σ = 0.3), "shared" gives both methods one more
factor per seed (σ = 0.5), and each training misses with the probability that is given:

=====  ======  ======  ===================  ===================  ==============
pairs  shared  misses  bootstrap, median    bootstrap, ratio of  interpolated
                       of ratios            medians              order statist.
=====  ======  ======  ===================  ===================  ==============
3      no      0       25 %                 25 %                 25 %
5      no      0       6.5 %                6.5 %                6.5 %
8      no      0       8.2 %                6.2 %                5.7 %
10     no      0       6.6 %                5.2 %                5.6 %
3      yes     0       26 %                 26 %                 24 %
5      yes     0       5.8 %                5.8 %                5.4 %
8      yes     0       7.0 %                4.8 %                5.7 %
10     yes     0       6.5 %                3.0 %                4.6 %
3      no      20 %    23 %                 23 %                 22 %
5      no      20 %    5.8 %                5.8 %                4.9 %
8      no      20 %    6.8 %                5.5 %                3.7 %
10     no      20 %    5.7 %                4.8 %                4.4 %
3      yes     20 %    22 %                 22 %                 22 %
5      yes     20 %    5.3 %                5.3 %                4.8 %
8      yes     20 %    8.0 %                6.3 %                3.5 %
10     yes     20 %    6.0 %                4.0 %                4.4 %
=====  ======  ======  ===================  ===================  ==============

With 7 pairs the first bootstrap errs in 13 %. A true ratio of 0.7 (shared factor, no misses, 10 pairs) is found in
63 %, 42 % and 57 % of comparisons, by the three in this order; with 5 pairs all three find it in 32 %.

The scale was checked by simulation (40,000 comparisons a line, σ = 0.3, nothing shared). Where a training misses with
20 %, identical methods are called different in 5.2, 3.9, 4.4 and 5.0 % with 6, 8, 10 and 12 pairs (on the logarithmic
scale in 5.1, 3.4, 4.4 and 5.1 %). Where the candidate alone misses, with 0 to 30 %, the interval covers the true median
with 94.5 to 95.2 %; with 45 %, where the median itself is next to a miss, with 92.5 % (6 pairs) to 94.6 % (10).
Without interpolation the interval is safe there, but finds a true ratio of 0.7 in 17 % with 8 pairs instead of 48 %.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sngd_tune.report.comparison.runs import MISSED
from sngd_tune.report.comparison.sign_interval import sign_interval

__all__ = ["Ratio", "paired_ratio"]

Verdict = Literal["faster", "slower", "no difference", "too few runs", "both miss"]


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Candidate over baseline, of times or of steps to the target.

    Attributes:
        n: pairs, that is, seeds on which both were trained to an end.
        median: over the seeds; 0 where the baseline missed in most, `MISSED` where the candidate did; 1 for two misses.
        low, high: the interval; None with fewer than `MIN_VALUES` pairs, or where nobody reached the target.
        coverage: of the interval, 0.94 with 5 pairs and 0.95 with more; None without one.
        verdict: ``"faster"`` or ``"slower"`` where the interval, its ends included, leaves 1 out.
    """

    n: int
    median: float
    low: float | None
    high: float | None
    coverage: float | None
    verdict: Verdict


def paired_ratio(candidate: Mapping[int, float], baseline: Mapping[int, float]) -> Ratio | None:
    """Compare two methods seed by seed; None where they have no seed in common.

    Args:
        candidate: time, or steps, to the target by seed, > 0; `MISSED` where it was not reached.
        baseline: the same of the other method.
    """
    seeds = sorted(candidate.keys() & baseline.keys())
    if not seeds:
        return None
    one, other = (np.array([side[seed] for seed in seeds], dtype=float) for side in (candidate, baseline))
    contrasts = _contrasts(one, other)
    n, median, interval = len(seeds), _median(contrasts), sign_interval(contrasts)
    if np.isinf(one).all() and np.isinf(other).all():
        return Ratio(n=n, median=1.0, low=None, high=None, coverage=None, verdict="both miss")
    if interval is None:
        return Ratio(n=n, median=median, low=None, high=None, coverage=None, verdict="too few runs")
    low, high = _ratio(interval.low), _ratio(interval.high)
    verdict = _verdict(interval.low, interval.high)
    return Ratio(n=n, median=median, low=low, high=high, coverage=interval.coverage, verdict=verdict)


def _contrasts(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Difference over sum: from −1, where the other alone missed, to 1."""
    with np.errstate(invalid="ignore"):
        contrasts = (one - other) / (one + other)
    contrasts = np.where(np.isinf(one), 1.0, np.where(np.isinf(other), -1.0, contrasts))
    return np.where(one == other, 0.0, contrasts)


def _ratio(contrast: float) -> float:
    return MISSED if contrast == 1 else float((1 + contrast) / (1 - contrast))


def _median(contrasts: np.ndarray) -> float:
    """Of the ratios; with an even number the geometric mean of the middle two, of 0 and infinity that of a tie."""
    ordered, n = np.sort(contrasts), len(contrasts)
    low, high = _ratio(ordered[(n - 1) // 2]), _ratio(ordered[n // 2])
    if low == high:
        return low
    return 1.0 if low == 0 and high == MISSED else math.sqrt(low) * math.sqrt(high)


def _verdict(low: float, high: float) -> Verdict:
    if low <= 0 <= high:
        return "no difference"
    return "slower" if low > 0 else "faster"
