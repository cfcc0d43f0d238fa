"""The figures of a comparison as the text of table cells: the same for a terminal, for Markdown and for the page."""

import math

from sngd_tune.report.canvas import words
from sngd_tune.report.comparison.ratios import Ratio
from sngd_tune.report.comparison.values import MethodSummary, ToTarget, WorkloadSummary
from sngd_tune.report.comparison.words import factor
from sngd_tune.report.statistics import Spread

__all__ = ["method_cells", "method_columns", "sized", "spread_cell", "target_line"]


def method_columns(workload: WorkloadSummary) -> list[str]:
    """Headings of `method_cells`."""
    return [
        "method",
        "trials",
        "device s",
        "reached",
        "s to target",
        "steps to target",
        "ratio, s",
        "ratio, steps",
        *map(words, _metrics(workload)),
    ]


def method_cells(workload: WorkloadSummary, method: MethodSummary) -> list[str | None]:
    """The row of one method; None where there is nothing to say."""
    trials = f"{method.trials}" if method.trials == method.planned else f"{method.trials} of {method.planned}"
    reached = method.seconds.reached if method.seconds else None
    return [
        method.method if method.status == "complete" else f"{method.method} ({method.status})",
        trials,
        sized(method.device_seconds),
        f"{reached.count} of {reached.of}" if reached else None,
        _to_target(method.seconds),
        _to_target(method.steps),
        _ratio(method.seconds_ratio),
        _ratio(method.steps_ratio),
        *(spread_cell(method.test.get(metric)) for metric in _metrics(workload)),
    ]


def target_line(workload: WorkloadSummary) -> str:
    """What had to be reached, and in how long a training."""
    target, sign = workload.target, "≤" if workload.target.metric.endswith("loss") else "≥"
    return f"{words(target.metric)} {sign} {target.value:g}; {workload.seconds:g} s a training"


def sized(value: float) -> str:
    """Three digits, whole from 100 on: ``"3.14"``, ``"1234"``; ``"missed"`` for a target that was not reached.

    >>> sized(3.14159), sized(1234.4), sized(math.inf)
    ('3.14', '1234', 'missed')
    """
    if math.isinf(value):
        return "missed"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def spread_cell(spread: Spread | None) -> str | None:
    """Mean ± standard deviation over the seeds."""
    if spread is None:
        return None
    return f"{spread.mean:.4g}" + ("" if spread.deviation is None else f" ± {spread.deviation:.2g}")


def _to_target(found: ToTarget | None) -> str | None:
    """Median, and the range where there is one."""
    if found is None:
        return None
    low, median, high = sized(found.low), sized(found.median), sized(found.high)
    return median if low == high else f"{median} [{low}–{high}]"


def _ratio(ratio: Ratio | None) -> str | None:
    if ratio is None or ratio.verdict == "both miss":
        return None if ratio is None else "both miss"
    if ratio.low is None or ratio.high is None:
        return f"{factor(ratio.median)}, {ratio.verdict}"
    return f"{factor(ratio.median)} [{factor(ratio.low)}–{factor(ratio.high)}], {ratio.verdict}"


def _metrics(workload: WorkloadSummary) -> list[str]:
    """Test metrics that any method has, the one that decides first."""
    return list(dict.fromkeys(metric for method in workload.methods for metric in method.test))
