"""A scaling study as rows, and as tables for a terminal."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sngd_tune.records.strict import Scalar
from sngd_tune.report.canvas import words
from sngd_tune.report.scaling.laws import critical_batches, theory_of, worker_scalings
from sngd_tune.report.scaling.noise import NOISE_COLUMNS, noise_rows
from sngd_tune.report.scaling.numbers import exponent, interval
from sngd_tune.report.scaling.overhead import RATIO_COLUMNS, ratio_rows
from sngd_tune.report.scaling.tuning import CHOICE_COLUMNS, choice_rows
from sngd_tune.report.scaling.values import PointSummary, ScalingReport
from sngd_tune.report.scaling.words import sentences
from sngd_tune.scaling.fits import NoFit, PowerLaw
from sngd_tune.scaling.series import Series

__all__ = [
    "BATCH_COLUMNS",
    "POINT_COLUMNS",
    "USE_COLUMNS",
    "WORKER_COLUMNS",
    "batch_rows",
    "law_rows",
    "point_rows",
    "scaling_tables",
    "use_rows",
    "worker_rows",
]

POINT_COLUMNS = (
    *("point", "trainings", "ms a step", "of it overhead", "examples a second", "peak MB"),
    *("steps to target", "s to target", "final loss"),
)
WORKER_COLUMNS = (
    *("scaling", "method", "workers", "ms a step", "of it communication", "speedup", "efficiency", "serial share"),
)
BATCH_COLUMNS = (
    *("method", "critical batch size", "95 % interval", "fewest steps", "fewest examples", "reached", "to know"),
)
USE_COLUMNS = ("variant", "trials", "at a time", "s in which any ran", "trials an hour", "idle")


def scaling_tables(report: ScalingReport) -> RenderableType:
    """The whole report: what came out, the points, the laws."""
    parts: list[RenderableType] = [Text("\n".join(sentences(report)))]
    if report.points:
        parts.append(_table(f"Points of {report.name}", POINT_COLUMNS, point_rows(report)))
    for title, columns, found in (
        ("Tuned anew", CHOICE_COLUMNS, choice_rows(report)),
        ("Workers", WORKER_COLUMNS, worker_rows(report)),
        ("Critical batch size", BATCH_COLUMNS, batch_rows(report)),
        ("Gradient noise scale", NOISE_COLUMNS, noise_rows(report)),
    ):
        if found:
            parts.append(_table(title, columns, found))
    if report.uses:
        parts.append(_table("Use of the machine", USE_COLUMNS, use_rows(report)))
    for axis in report.axes:
        rows = [(measure, method, text) for measure, method, text in _exponents(report, axis)]
        if rows:
            parts.append(_table(f"Exponents along {words(axis)}", ("measure", "method", "exponent"), rows))
        ratios = ratio_rows(report, axis)
        if ratios:
            parts.append(_table(f"Ratios along {words(axis)}", RATIO_COLUMNS, ratios))
    if report.missing:
        rows = [(each.trial, words(each.outcome), each.reason) for each in report.missing]
        parts.append(_table("Failed, or not tried", ("trial", "outcome", "reason"), rows))
    return Group(*parts)


def point_rows(report: ScalingReport) -> list[tuple[Any, ...]]:
    """One a point, under `POINT_COLUMNS`; numbers are in the column's unit."""
    return [_row(each) for each in report.points]


def use_rows(report: ScalingReport) -> list[tuple[Any, ...]]:
    """One a variant, under `USE_COLUMNS`."""
    return [
        (name, use.trials, use.at_a_time, use.seconds, round(use.trials_per_hour), f"{use.idle_share:.0%}")
        for name, use in report.uses.items()
    ]


def worker_rows(report: ScalingReport) -> list[tuple[Any, ...]]:
    """One a method and number of workers, under `WORKER_COLUMNS`."""
    rows = []
    for each in worker_scalings(report):
        share = each.serial
        text = share.reason if isinstance(share, NoFit) else f"{share.share:.2f} ({share.low:.2f} to {share.high:.2f})"
        for found, waits in zip(each.efficiencies, each.communication, strict=True):
            step = found.workers, found.seconds * 1e3, f"{waits:.0%}"
            rows.append((each.kind, each.method, *step, f"{found.speedup:.2f}", f"{found.efficiency:.0%}", text))
    return rows


def batch_rows(report: ScalingReport) -> list[tuple[Any, ...]]:
    """One a method, under `BATCH_COLUMNS`."""
    rows: list[tuple[Any, ...]] = []
    for method, fit in critical_batches(report).items():
        if isinstance(fit, NoFit):
            rows.append((method, None, None, None, None, None, fit.reason))
            continue
        high = f"{fit.high:.3g}" if math.isfinite(fit.high) else "open"
        note = "outside of the measured batches" if fit.extrapolated else None
        counts = f"{fit.reached} of {fit.reached + fit.missed}"
        row = f"{fit.size:.3g}", f"{fit.low:.3g} to {high}", f"{fit.least_steps:.3g}", f"{fit.least_examples:.3g}"
        rows.append((method, *row, counts, note))
    return rows


def law_rows(report: ScalingReport, axis: str) -> list[tuple[Any, ...]]:
    """One a curve in which a law was sought."""
    return [
        _law_row(curve, report.laws.methods) for curve in report.series if curve.axis == axis and curve.law is not None
    ]


def _row(summary: PointSummary) -> tuple[Any, ...]:
    has = summary.measures
    step, overhead = has.get("step_seconds"), has.get("overhead_seconds")
    return (
        summary.point.name,
        summary.completed,
        _scaled(step, 1e3),
        f"{overhead / step:.0%}" if step and overhead is not None else None,
        _rounded(has.get("examples_per_second")),
        _rounded(_scaled(has.get("peak_memory_bytes"), 1e-6)),
        _reached(has.get("steps_to_target")),
        _reached(has.get("seconds_to_target")),
        has.get("final_loss"),
    )


def _law_row(curve: Series, settings: Mapping[str, Mapping[str, Scalar]]) -> tuple[Any, ...]:
    start = words(curve.measure).replace(" ", "\N{NO-BREAK SPACE}"), curve.label
    if isinstance(curve.law, NoFit):
        return (*start, None, None, None, None, None, curve.law.reason)
    law = curve.law
    assert isinstance(law, PowerLaw)
    residual = max(map(abs, law.residuals))
    floor = f"{law.floor:.3g}" if law.floor > 0 else None
    expected = theory_of(curve, settings)
    theory = None if expected is None else f"{expected:g}"
    return (*start, f"{law.exponent:.2f}", interval(law), theory, floor, f"{math.expm1(residual):.0%}", None)


def _exponents(report: ScalingReport, axis: str) -> list[tuple[str, str, str]]:
    found = [curve for curve in report.series if curve.axis == axis and isinstance(curve.law, PowerLaw)]
    return [(words(curve.measure), curve.label, exponent(curve.law)) for curve in found]


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _rounded(value: float | None) -> int | None:
    return None if value is None or not math.isfinite(value) else round(value)


def _reached(value: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:.3g}" if math.isfinite(value) else "missed"


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    table = Table(title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
