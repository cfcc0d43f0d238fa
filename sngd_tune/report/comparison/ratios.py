"""The paired ratio of two methods' times (or steps) to a target, of which some are infinite: misses.

The statistic is the median over seeds of candidate / baseline. Its interval is that of the sign test, between order
statistics interpolated to 95 % (Hettmansperger and Sheather 1986), on a log scale; misses are the largest values and
need no assumption. The widest such interval, from the lowest ratio to the highest, covers the median with
1 − 2^(1 − n): 75 % with 3 seeds, 87.5 % with 4, 94 % with 5. So up to 5 seeds the interval is the range of the ratios,
and a verdict means that all of them agree, which with 5 happens to two identical methods in 6 % of comparisons.

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
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sngd_tune.report.comparison.runs import MISSED

__all__ = ["MIN_PAIRS", "Ratio", "paired_ratio", "sign_coverage"]

Verdict = Literal["faster", "slower", "no difference", "too few runs", "both miss"]

#: Below this many pairs there is no verdict: with 4 the interval covers 87.5 % only, and errs as often as that says.
MIN_PAIRS = 5

_COVERAGE = 0.95


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Candidate over baseline, of times or of steps to the target.

    Attributes:
        n: pairs, that is, seeds on which both were trained to an end.
        median: over the seeds; 0 where the baseline missed in most, `MISSED` where the candidate did; 1 for two misses.
        low, high: the interval; None with fewer than `MIN_PAIRS` pairs, or where nobody reached the target.
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
    logs = np.sort(_log_ratios(one, other))
    n = len(seeds)
    median = _exp(_middle(logs[(n - 1) // 2], logs[n // 2]))
    if np.isinf(one).all() and np.isinf(other).all():
        return Ratio(n=n, median=1.0, low=None, high=None, coverage=None, verdict="both miss")
    if n < MIN_PAIRS:
        return Ratio(n=n, median=median, low=None, high=None, coverage=None, verdict="too few runs")
    low, high = _interval(logs)
    coverage = min(_COVERAGE, sign_coverage(n, 1))
    return Ratio(n=n, median=median, low=_exp(low), high=_exp(high), coverage=coverage, verdict=_verdict(low, high))


def _log_ratios(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.log(one) - np.log(other)
    return np.where(np.isnan(logs), 0.0, logs)  # two misses are a tie


def _interval(logs: np.ndarray) -> tuple[float, float]:
    """Between the order statistics that cover the median with just more and just less than 95 %."""
    n, outer = len(logs), 1
    while sign_coverage(n, outer + 1) >= _COVERAGE:
        outer += 1
    more, less = sign_coverage(n, outer), sign_coverage(n, outer + 1)
    if more <= _COVERAGE:
        return float(logs[0]), float(logs[-1])
    share = (more - _COVERAGE) / (more - less)
    inward = (n - outer) * share / (outer + (n - 2 * outer) * share)
    return (
        _between(logs[outer - 1], logs[outer], inward),
        _between(logs[n - outer], logs[n - outer - 1], inward),
    )


def sign_coverage(n: int, k: int) -> float:
    """How surely the median lies between the k-th smallest and the k-th largest of n values."""
    return 1 - 2 * sum(math.comb(n, i) for i in range(k)) / 2**n


def _between(outer: float, inner: float, inward: float) -> float:
    """Part of the way inwards; beside a miss there is no way to interpolate, and the wider end stands."""
    return float((1 - inward) * outer + inward * inner) if np.isfinite([outer, inner]).all() else float(outer)


def _middle(low: float, high: float) -> float:
    """The geometric mean of the middle two ratios; of one that is 0 and one that is infinite: 1."""
    return 0.0 if math.isinf(low) and low == -high else float((low + high) / 2)


def _exp(log: float) -> float:
    return MISSED if log > 700 else math.exp(log)


def _verdict(low: float, high: float) -> Verdict:
    if low <= 0 <= high:
        return "no difference"
    return "slower" if low > 0 else "faster"
