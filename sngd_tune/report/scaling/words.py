"""A scaling study in sentences."""

import math

from sngd_tune.report.canvas import words
from sngd_tune.report.scaling.laws import critical_batches
from sngd_tune.report.scaling.values import ScalingReport
from sngd_tune.scaling.critical_batch import CriticalBatch
from sngd_tune.scaling.fits import NoFit, PowerLaw
from sngd_tune.scaling.series import Series

__all__ = ["exponent", "interval", "sentences"]


def sentences(report: ScalingReport) -> list[str]:
    """What came out, axis by axis."""
    found = [sentence for axis in report.axes for sentence in _axis(report, axis)]
    done = sum(each.completed for each in report.points)
    first = f"{done} of {report.planned} trainings have completed"
    first += f", {len(report.missing)} failed or were not tried" if report.missing else ""
    settings = "Settings are those of the file at every point; none was tuned anew."
    return [f"{first}. {settings}", *found, *_critical(report)]


def exponent(fit: PowerLaw | NoFit | None) -> str:
    """``0.48 (0.31 to 0.65), with a floor``, or a dash."""
    if not isinstance(fit, PowerLaw):
        return "–"
    return f"{fit.exponent:.2f} ({interval(fit)})" + (", over a floor" if fit.floor > 0 else "")


def interval(fit: PowerLaw) -> str:
    """``0.31 to 0.65``."""
    return f"{_end(fit.low)} to {_end(fit.high)}"


def _critical(report: ScalingReport) -> list[str]:
    found = [
        f"{method} {fit.size:.3g} ({fit.low:.3g} to {fit.high:.3g})"
        for method, fit in critical_batches(report).items()
        if isinstance(fit, CriticalBatch)
    ]
    return [f"Critical batch size under the file's settings: {'; '.join(found)}."] if found else []


def _axis(report: ScalingReport, axis: str) -> list[str]:
    steps = [
        curve for method in report.methods if (curve := report.series_of(axis, "step_seconds", method)) is not None
    ]
    laws = [f"{curve.method} {exponent(curve.law)}" for curve in steps if isinstance(curve.law, PowerLaw)]
    name = words(axis)
    found = [f"Along {name}, the time of a step goes with the power: {'; '.join(laws)}."] if laws else []
    for curve in steps:
        overhead = report.series_of(axis, "overhead_seconds", curve.method)
        if overhead is not None and _preconditions(report, axis, curve.method):
            found += [text for other in steps if other is not curve and (text := _ratio(curve, other, overhead, name))]
    return found


def _ratio(curve: Series, other: Series, overhead: Series, axis: str) -> str | None:
    """How a method's step compares with another's from end to end, where that one has no local Fisher layers."""
    shared = [value for value in curve.values if value in other.values]
    if len(shared) < 2:
        return None
    first, last = (curve.mean(value) / other.mean(value) for value in (shared[0], shared[-1]))
    ends = f"{first:.2f} at {axis} {shared[0]} and {last:.2f} at {shared[-1]}"
    return f"A step of {curve.method} takes, of one of {other.method}, {ends}{_compared(overhead, other)}."


def _compared(overhead: Series, other: Series) -> str:
    """The exponent of the overhead against that of the other's step, by their intervals."""
    mine, theirs = overhead.law, other.law
    if not isinstance(mine, PowerLaw) or not isinstance(theirs, PowerLaw):
        return ""
    if mine.low > theirs.high:
        verdict = "grows faster than that step"
    elif mine.high < theirs.low:
        verdict = "grows more slowly than that step"
    else:
        verdict = "grows no differently from that step, as far as this tells"
    return f"; what it adds to the passes (power {exponent(mine)}) {verdict}"


def _preconditions(report: ScalingReport, axis: str, method: str) -> bool:
    curve = report.series_of(axis, "statistics_seconds", method)
    return curve is not None and any(curve.mean(value) > 0 for value in curve.values)


def _end(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "open"
