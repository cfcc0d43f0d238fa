"""The gradient noise scale in a scaling study, in sentences, rows and a figure, beside the critical batch size."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sngd_tune.records.colours import BEST, CATEGORIES
from sngd_tune.report.canvas import Drawing, Panel, dot_key, line_key, line_style, log_scale, vertical_log_scale
from sngd_tune.report.scaling.laws import critical_batches
from sngd_tune.report.scaling.values import ScalingReport
from sngd_tune.scaling.critical_batch import CriticalBatch
from sngd_tune.scaling.fits import NoFit
from sngd_tune.scaling.noise_course import NoiseCourse, NoiseStage

__all__ = ["NOISE_COLUMNS", "noise_drawings", "noise_rows", "noise_sentences"]

NOISE_COLUMNS = ("method", "epoch", "training loss", "plain", "in its own coordinates", "own over plain", "seeds")

Triple = tuple[float, float, float]

_OWN, _PLAIN, _CRITICAL = BEST, CATEGORIES[0], "#666666"


def noise_sentences(report: ScalingReport) -> list[str]:
    """What preconditioning makes of the noise scale, and whether the critical batch size agrees."""
    scales = [_scale(each) for each in report.noise]
    until = "up to the target" if report.target is not None else "over the training"
    found = [f"Gradient noise scale of the base point, {until}: {'; '.join(scales)}."] if scales else []
    structured = [each.method for each in report.noise if each.method in _structured(report)]
    fits = critical_batches(report) if structured else {}
    return [*found, *(_answer(report, fits, method) for method in structured)]


def noise_rows(report: ScalingReport) -> list[tuple[Any, ...]]:
    """One a method and epoch, and one for the way to the target, under `NOISE_COLUMNS`."""
    return [_row(course, stage) for course in report.noise for stage in (*course.stages, course.to_target)]


def noise_drawings(report: ScalingReport) -> dict[str, Drawing]:
    """``noise_scale``: a panel a method, against the steps; the critical batch size is a line with its interval."""
    if not report.noise:
        return {}
    batches = critical_batches(report)
    panels = [Panel(each.method, _panel(each, batches.get(each.method))) for each in report.noise]
    keys = [
        *(line_key(_OWN, "in the method's own coordinates"), line_key(_PLAIN, "plain")),
        *(dot_key(_CRITICAL, "mean of the seeds, 95 %"), line_key(_CRITICAL, "critical batch size, 95 %", dashed=True)),
    ]
    return {"noise_scale": Drawing(f"{report.name}: gradient noise scale", panels, keys)}


def _structured(report: ScalingReport) -> list[str]:
    """Methods with local Fisher layers."""
    settings = report.laws.methods.items()
    return [method for method, setting in settings if setting.get("optimizer", "sngd") == "sngd"]


def _scale(course: NoiseCourse) -> str:
    to_target = course.to_target
    if to_target.own is None or to_target.ratio is None:
        return f"{course.method} {_text(to_target.plain)} in plain coordinates"
    if to_target.own == to_target.plain:
        return f"{course.method} {_text(to_target.own)}, whose own coordinates are the plain ones"
    own = f"{course.method} {_text(to_target.own)} in its own coordinates, {_text(to_target.plain)} in plain ones"
    return f"{own}, {_text(to_target.ratio)} times as much ({_verdict(to_target.ratio)})"


def _verdict(ratio: Triple) -> str:
    _, low, high = ratio
    if low > 1:
        return "preconditioning raises it"
    return "preconditioning lowers it" if high < 1 else "not told from 1"


def _answer(report: ScalingReport, batches: Mapping[str, CriticalBatch | NoFit], method: str) -> str:
    """Whether a method with local Fisher layers has a larger critical batch size than those without."""
    fits = {name: fit for name, fit in batches.items() if isinstance(fit, CriticalBatch)}
    others = [name for name in fits if name not in _structured(report)]
    question = f"Does preconditioning raise the critical batch size of {method}?"
    if method not in fits or not others:
        return f"{question} Not decided: the steps to the target along the batch size have no law to compare."
    return f"{question} {' '.join(f'Over {other}: {_compared(fits[method], fits[other])}.' for other in others)}"


def _compared(own: CriticalBatch, other: CriticalBatch) -> str:
    """By intervals that do not meet, which errs on the side of silence."""
    if own.low > other.high:
        return "yes"
    return "no, it is smaller" if own.high < other.low else "not decided, as their intervals meet"


def _row(course: NoiseCourse, stage: NoiseStage) -> tuple[Any, ...]:
    epoch = "to target" if stage.epoch is None else stage.epoch
    scales = (_cell(each) for each in (stage.plain, stage.own, stage.ratio))
    return (course.method, epoch, f"{stage.loss:.3g}", *scales, stage.seeds)


def _cell(scale: Triple | None) -> str | None:
    return None if scale is None else _text(scale)


def _text(scale: Triple | None) -> str:
    """``310 (240 to 400)``."""
    if scale is None or not math.isfinite(scale[0]):
        return "drowned in noise"
    mean, low, high = scale
    return f"{mean:.3g} ({low:.3g} to {high:.3g})" if math.isfinite(high) else f"{mean:.3g}"


def _panel(course: NoiseCourse, critical: CriticalBatch | NoFit | None) -> Any:
    def draw(axis: Any) -> None:
        for colour, scales in ((_PLAIN, [s.plain for s in course.stages]), (_OWN, [s.own for s in course.stages])):
            _curve(axis, [stage.steps for stage in course.stages], scales, colour)
        if isinstance(critical, CriticalBatch):
            axis.axhline(critical.size, color=_CRITICAL, linewidth=1.2, linestyle=line_style(True))
            if math.isfinite(critical.high) and critical.low > 0:
                axis.axhspan(critical.low, critical.high, color=_CRITICAL, alpha=0.12, linewidth=0)
        axis.set_xlabel("steps")
        axis.set_ylabel(f"{course.method} [examples]")
        vertical_log_scale(axis)
        log_scale(axis)

    return draw


def _curve(axis: Any, steps: Sequence[float], scales: Sequence[Triple | None], colour: str) -> None:
    """Means with their intervals; an open end is not drawn."""
    told = [(x, *scale) for x, scale in zip(steps, scales, strict=True) if scale is not None and scale[0] < math.inf]
    axis.plot([x for x, *_ in told], [mean for _, mean, *_ in told], "o-", color=colour, markersize=4, linewidth=1.4)
    closed = [(x, low, high) for x, _, low, high in told if low > 0 and high < math.inf]
    axis.vlines(*([each[i] for each in closed] for i in range(3)), color=colour, linewidth=1, alpha=0.7)
