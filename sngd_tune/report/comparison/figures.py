"""The figures of a comparison: validation curves, times to the target, progress of searches, performance profile."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.report.canvas import (
    BEST,
    CATEGORIES,
    PLAIN,
    Drawing,
    Panel,
    dot_key,
    limit,
    line_key,
    line_style,
    log_scale,
    whole_numbers,
    words,
)
from sngd_tune.report.comparison.profiles import LARGEST_FACTOR, MethodProfile
from sngd_tune.report.comparison.runs import MethodResults, WorkloadResults, completed, timed_runs
from sngd_tune.report.comparison.values import ComparisonReport, MethodSummary, SearchPoint, WorkloadSummary

__all__ = ["profile_drawing", "workload_drawings", "write_comparison_figures"]

_Position = Callable[[EpochMetrics], float]
#: Colour and whether dashed, by method.
_Looks = Mapping[str, tuple[str, bool]]


def write_comparison_figures(folder: Path, report: ComparisonReport, results: Sequence[WorkloadResults]) -> list[Path]:
    """Draw a comparison into PNG files; the paths of those that its trainings allow.

    Args:
        folder: made where it does not exist.
        report: of `results`.
        results: of all workloads, in the order of the report's.

    Raises:
        LedgerError: they cannot be written.
    """
    drawings = {"profile": profile_drawing(report)}
    for summary, measured in zip(report.workloads, results, strict=True):
        for name, drawing in workload_drawings(report, summary, measured).items():
            drawings[f"{summary.workload}_{name}"] = drawing
    return [drawing.save(folder / f"{name}.png") for name, drawing in drawings.items() if drawing is not None]


def workload_drawings(
    report: ComparisonReport, summary: WorkloadSummary, results: WorkloadResults
) -> dict[str, Drawing]:
    """The drawings of one workload by name: ``curves``, ``times``, ``search``; those that have something to show."""
    looks = _looks(report)
    drawings = {
        "curves": _curves(summary, results, looks),
        "times": _times(summary, looks),
        "search": _search(summary, results, looks),
    }
    return {name: drawing for name, drawing in drawings.items() if drawing is not None}


def profile_drawing(report: ComparisonReport) -> Drawing | None:
    """The performance profile; None where no method reached any target."""
    looks = _looks(report)
    if not any(math.isfinite(value) for each in report.profile for value in each.factors.values()):
        return None

    def draw(axis: Any) -> None:
        for each in report.profile:
            steps = _profile_steps(each)
            axis.step(steps, [each.share(at) for at in steps], where="post", **_line(looks[each.method]))
        axis.set_xlim(1, LARGEST_FACTOR)
        axis.set_ylim(-0.03, 1.03)
        axis.set_xlabel("factor of the best time")
        axis.set_ylabel("share of workloads")

    panels = [Panel("share of the workloads on which a method's time is within a factor of the best", draw)]
    keys = [_key(looks, each.method, f"{each.method}, score {each.score:.2f}") for each in report.profile]
    return Drawing(f"{report.name}: performance profile", panels, keys)


def _profile_steps(profile: MethodProfile) -> list[float]:
    inside = [value for value in profile.factors.values() if value < LARGEST_FACTOR]
    return sorted({1.0, *inside, LARGEST_FACTOR})


def _curves(summary: WorkloadSummary, results: WorkloadResults, looks: _Looks) -> Drawing | None:
    """The target's metric by step and by second: median and range over the seeds of the settings that are timed."""
    metric, target = results.target.metric, results.target.value
    runs = {name: _evaluated(results.methods[name], results) for name in _names(summary)}
    runs = {name: found for name, found in runs.items() if found}
    if not runs:
        return None
    values = [float(getattr(each, metric)) for found in runs.values() for run in found for each in run]

    def panel(label: str, position: _Position) -> Panel:
        def draw(axis: Any) -> None:
            for name, found in runs.items():
                _band(axis, found, position, metric, looks[name])
            axis.axhline(target, color=PLAIN, linewidth=1, linestyle=line_style(dashed=True))
            axis.set_xlabel(label)
            axis.set_ylabel(words(metric))
            limit([*values, target], [axis], metric)

        return Panel(f"{words(metric)} by {label}, median and range over the seeds", draw)

    keys = [_key(looks, name, f"{name}, {len(found)} seeds") for name, found in reversed(runs.items())]
    panels = [panel("step", lambda each: each.steps), panel("seconds of training", lambda each: each.training_seconds)]
    return Drawing(f"{summary.workload}: re-trainings", panels, [*keys, line_key(PLAIN, "target", dashed=True)])


def _evaluated(method: MethodResults, results: WorkloadResults) -> list[list[EpochMetrics]]:
    """The evaluations of each completed training; those without a finite value of the target's metric left out."""
    metric = results.target.metric
    curves = [method.epochs.get(record.trial, ()) for record in completed(timed_runs(method, results.target))]
    finite = [[each for each in curve if _finite(getattr(each, metric))] for curve in curves]
    return [curve for curve in finite if curve]


def _band(
    axis: Any, runs: Sequence[Sequence[EpochMetrics]], position: _Position, metric: str, look: tuple[str, bool]
) -> None:
    at, values = held(
        [[position(each) for each in run] for run in runs], [[getattr(each, metric) for each in run] for run in runs]
    )
    axis.fill_between(at, values.min(axis=0), values.max(axis=0), step="post", color=look[0], alpha=0.18, linewidth=0)
    marker = "o" if len(at) == 1 else None  # a line of one point is invisible
    axis.step(at, np.median(values, axis=0), where="post", marker=marker, **_line(look))


def held(positions: Sequence[Sequence[float]], values: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Curves on one grid, each value held until the next evaluation.

    Args:
        positions: of each curve's evaluations, rising; each has at least one.
        values: the same shape.

    Returns:
        positions of all evaluations from the first that every curve has on, ``[points]``; values ``[curves, points]``.
    """
    start = max(each[0] for each in positions)
    grid = np.unique([at for each in positions for at in each if at >= start])
    rows = [
        np.asarray(of, dtype=float)[np.searchsorted(at, grid, side="right") - 1]
        for at, of in zip(positions, values, strict=True)
    ]
    return grid, np.stack(rows)


def _times(summary: WorkloadSummary, looks: _Looks) -> Drawing | None:
    """A dot for each seed; misses stand as crosses at the end of the budget."""
    shown = [each for each in summary.methods if each.runs]
    if not shown:
        return None

    def draw(axis: Any) -> None:
        for row, method in enumerate(shown):
            _dots(axis, row, method, summary.seconds, looks[method.method][0])
        axis.axvline(summary.seconds, color=PLAIN, linewidth=1, linestyle=line_style(dashed=True))
        axis.set_yticks(range(len(shown)), [each.method for each in shown])
        axis.set_ylim(len(shown) - 0.5, -0.5)
        axis.set_xlabel("seconds of training to the target")
        reached = [run.seconds for each in shown for run in each.runs if 0 < run.seconds < math.inf]
        if reached and summary.seconds / min(reached) > 10:
            axis.set_xlim(min(reached) / 1.3, summary.seconds * 1.3)
            log_scale(axis)
        else:
            axis.set_xlim(0, summary.seconds * 1.05)

    keys = [
        dot_key(PLAIN, "one seed"),
        dot_key(PLAIN, "missed", marker="x"),
        dot_key(PLAIN, "median", marker="|"),
        line_key(PLAIN, "end of the budget", dashed=True),
    ]
    return Drawing(f"{summary.workload}: time to the target", [Panel("time to the target, a dot a seed", draw)], keys)


def _dots(axis: Any, row: int, method: MethodSummary, budget: float, colour: str) -> None:
    offsets = np.linspace(-0.2, 0.2, len(method.runs)) if len(method.runs) > 1 else np.zeros(1)
    for offset, run in zip(offsets, method.runs, strict=True):
        missed = math.isinf(run.seconds)
        marker, at = ("x", budget) if missed else ("o", run.seconds)
        axis.plot(at, row + offset, marker=marker, color=colour, markersize=5, linestyle="", clip_on=False)
    if method.seconds and math.isfinite(method.seconds.median):
        axis.plot(method.seconds.median, row, marker="|", color=colour, markersize=22, markeredgewidth=2)


def _search(summary: WorkloadSummary, results: WorkloadResults, looks: _Looks) -> Drawing | None:
    """The best trial of each search until then, by what it had used."""
    progress = {each.method: [p for p in each.progress if p.best is not None] for each in summary.methods}
    progress = {name: points for name, points in progress.items() if points}
    if not progress:
        return None
    objective = results.methods[next(iter(progress))].config.objectives[0]
    last = {each.method: each.progress[-1] for each in summary.methods if each.method in progress}
    values = [float(point.best or 0.0) for points in progress.values() for point in points]

    def panel(label: str, position: Callable[[SearchPoint], float]) -> Panel:
        def draw(axis: Any) -> None:
            for name, points in progress.items():
                every = [*points, last[name]]
                best = [point.best for point in every]
                axis.step([position(each) for each in every], best, where="post", **_line(looks[name]))
            axis.set_xlabel(label)
            axis.set_ylabel(words(objective))
            limit(values, [axis], objective)
            if label == "trials ended":
                whole_numbers(axis)

        return Panel(f"best so far of each search against {label}", draw)

    panels = [
        panel("device seconds", lambda point: point.device_seconds),
        panel("trials ended", lambda point: point.trials),
    ]
    return Drawing(f"{summary.workload}: searches", panels, [_key(looks, name, name) for name in progress])


def _looks(report: ComparisonReport) -> dict[str, tuple[str, bool]]:
    """The candidate stands out; where the colours are used up, the others begin anew with dashes."""
    names = dict.fromkeys(each.method for workload in report.workloads for each in workload.methods)
    others = [name for name in names if name != report.candidate]
    cycle = itertools.product((False, True), CATEGORIES)
    looks = {name: (colour, dashed) for name, (dashed, colour) in zip(others, itertools.cycle(cycle), strict=False)}
    return {report.candidate: (BEST, False), **looks}


def _line(look: tuple[str, bool]) -> dict[str, Any]:
    return {"color": look[0], "linestyle": line_style(look[1]), "linewidth": 2.2 if look[0] == BEST else 1.6}


def _key(looks: _Looks, method: str, label: str) -> Any:
    return line_key(looks[method][0], label, dashed=looks[method][1])


def _names(summary: WorkloadSummary) -> list[str]:
    """Methods in the order of drawing: the candidate last, in front of the others."""
    return [each.method for each in reversed(summary.methods)]


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
