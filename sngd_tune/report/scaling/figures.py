"""The figures of a scaling study: measured points, and the fitted law within the measured range and nowhere else."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sngd_tune.report.canvas import (
    BEST,
    CATEGORIES,
    Drawing,
    Panel,
    dot_key,
    line_key,
    line_style,
    log_scale,
    vertical_log_scale,
    words,
)
from sngd_tune.report.scaling.laws import theory_of
from sngd_tune.report.scaling.noise import noise_drawings
from sngd_tune.report.scaling.values import ScalingReport
from sngd_tune.scaling.fits import PowerLaw
from sngd_tune.scaling.measures import MEASURES
from sngd_tune.scaling.series import Series

__all__ = ["axis_drawings", "parts_drawings", "write_scaling_figures"]

_PLAIN = ("count", "loss")  # units that say nothing
_SIGN = "#666666"  # of keys that are for all colours
#: Panels of an axis, in this order.
_SHOWN = (
    *("step_seconds", "overhead_seconds", "peak_memory_bytes", "examples_per_second"),
    *("steps_to_target", "seconds_to_target", "loss_at_budget", "joules_per_step"),
)
_PARTS = (
    *("forward_backward_seconds", "statistics_seconds", "refresh_seconds", "update_seconds"),
    "communication_seconds",
)
_UNITS = {"peak_memory_bytes": (1e6, "MB"), "step_seconds": (1e-3, "ms"), "overhead_seconds": (1e-3, "ms")}
_UNITS |= dict.fromkeys(_PARTS, (1e-3, "ms"))


def write_scaling_figures(folder: Path, report: ScalingReport) -> list[Path]:
    """Draw a scaling study into PNG files; the paths of those that its trainings allow.

    Raises:
        LedgerError: they cannot be written.
    """
    drawings = {**axis_drawings(report), **parts_drawings(report), **noise_drawings(report)}
    return [drawing.save(folder / f"{name}.png") for name, drawing in drawings.items()]


def axis_drawings(report: ScalingReport) -> dict[str, Drawing]:
    """One drawing for each axis by its name: all methods, a panel for each measure."""
    drawings = {}
    for axis in report.axes:
        own = [curve for curve in report.series if curve.axis == axis]
        looks = _looks(report, own)
        panels = [_panel(name, group, looks) for name in _SHOWN if (group := _of(own, name))]
        if panels:
            keys = [line_key(colour, label) for label, colour in looks.items()]
            drawings[axis] = Drawing(f"{report.name}: {words(axis)}", panels, [*keys, *_signs(own)])
    return drawings


def parts_drawings(report: ScalingReport) -> dict[str, Drawing]:
    """The parts of a step by axis, for methods with local Fisher layers: ``width_parts_sngd``."""
    drawings = {}
    looks = dict(zip(_PARTS, (CATEGORIES[5], *CATEGORIES[:4]), strict=True))
    for axis, method in itertools.product(report.axes, report.methods):
        found = [curve for name in _PARTS if (curve := report.series_of(axis, name, method)) is not None]
        own = [curve for curve in found if any(curve.flat)]
        if any(each.measure == "refresh_seconds" for each in own):
            caption = f"parts of a step of {method}, ms"
            expected = {each.measure: theory_of(each, report.laws.methods) for each in own}
            panel = Panel(caption, _draw(own, looks, expected))
            keys = [line_key(looks[each.measure], _part(each.measure)) for each in own]
            keys += [*_signs(own), line_key(_SIGN, "theory's slope", dashed=True)]
            drawings[f"{axis}_parts_{method}"] = Drawing(f"{report.name}: {caption}", [panel], keys)
    return drawings


def _of(curves: Sequence[Series], name: str) -> list[Series]:
    """The curves of a measure that have anything to draw."""
    found = [curve for curve in curves if curve.measure == name]
    return found if any(math.isfinite(number) for curve in found for number in curve.flat) else []


def _panel(name: str, curves: Sequence[Series], looks: Mapping[str, str]) -> Panel:
    unit = _UNITS.get(name, (1.0, MEASURES[name].unit))[1]
    return Panel(f"{_label(name)}, {unit}" if unit not in _PLAIN else _label(name), _draw(curves, looks))


def _draw(
    curves: Sequence[Series], looks: Mapping[str, str], expected: Mapping[str, float | None] | None = None
) -> Any:
    """Methods by their looks; with `expected`, parts of a step by theirs, beside theory's slopes."""

    def draw(axis: Any) -> None:
        numeric = all(curve.numeric for curve in curves)
        factor, unit = _UNITS.get(curves[0].measure, (1.0, MEASURES[curves[0].measure].unit))
        for curve in curves:
            colour = looks[curve.label if expected is None else curve.measure]
            _points(axis, curve, colour, factor, numeric)
            if isinstance(curve.law, PowerLaw):
                _law(axis, curve.law, colour, factor)
            slope = (expected or {}).get(curve.measure)
            if slope is not None and numeric:
                _slope(axis, curve, slope, colour, factor)
        axis.set_xlabel(words(curves[0].axis))
        label = _label(curves[0].measure) if expected is None else "part of a step"
        axis.set_ylabel(label if unit in _PLAIN else f"{label} [{unit}]")
        if all(value > 0 for curve in curves for value in curve.flat if _shown(curve, value)):
            vertical_log_scale(axis)
        if numeric:
            log_scale(axis)

    return draw


def _points(axis: Any, curve: Series, colour: str, factor: float, numeric: bool) -> None:
    """A dot for each seed; where no law is drawn a thin line joins the means."""
    places = list(curve.values) if numeric else list(range(len(curve.values)))
    dots = [
        (place, number / factor)
        for place, found in zip(places, curve.values.values(), strict=True)
        for number in found
        if _shown(curve, number)
    ]
    if not dots:
        return
    axis.scatter(*zip(*dots, strict=True), s=16, color=colour, linewidths=0, alpha=0.75, zorder=3)
    if not isinstance(curve.law, PowerLaw):
        means = [(place, curve.mean(value) / factor) for place, value in zip(places, curve.values, strict=True)]
        shown = [(place, mean) for place, mean in means if math.isfinite(mean) and mean > 0]
        if shown:
            axis.plot(*zip(*shown, strict=True), color=colour, linewidth=0.8, alpha=0.6)
    if not numeric:
        axis.set_xticks(places, [str(value) for value in curve.values])


def _law(axis: Any, law: PowerLaw, colour: str, factor: float) -> None:
    """Within the measured range."""
    x = np.geomspace(law.start, law.stop, 60)
    axis.plot(x, [law(each) / factor for each in x], color=colour, linewidth=1.8)


def _slope(axis: Any, curve: Series, slope: float, colour: str, factor: float) -> None:
    """Theory's slope, through the last measured mean: it is for large sizes. One decade, within the measured range."""
    last = list(curve.values)[-1]
    stop, mean = float(last), curve.mean(last) / factor
    start = max(float(next(iter(curve.values))), stop / 10)
    if mean > 0:
        ends = [mean * (start / stop) ** slope, mean]
        axis.plot([start, stop], ends, color=colour, linewidth=1, linestyle=line_style(True), alpha=0.8)


def _signs(curves: Sequence[Series]) -> list[Any]:
    """What dots and lines mean."""
    laws = any(isinstance(curve.law, PowerLaw) for curve in curves)
    dots = dot_key(_SIGN, "a training")
    return [dots, line_key(_SIGN, "fitted law, measured range")] if laws else [dots]


def _looks(report: ScalingReport, series: Sequence[Series]) -> dict[str, str]:
    """A colour for each line, the same on all axes."""
    ordered = sorted(series, key=lambda each: report.methods.index(each.method))
    labels = dict.fromkeys(each.label for each in ordered)
    return dict(zip(labels, itertools.cycle((BEST, *CATEGORIES)), strict=False))


def _label(name: str) -> str:
    """Of a measure, without the unit that it is not shown in."""
    return words(name).removesuffix(" seconds").removesuffix(" bytes")


def _part(name: str) -> str:
    return words(name.removesuffix("_seconds"))


def _shown(curve: Series, number: float) -> bool:
    """What has a place on a logarithmic scale, where one is sought."""
    return math.isfinite(number) and (number > 0 or not MEASURES[curve.measure].fitted)
