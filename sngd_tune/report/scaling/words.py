"""A scaling study in sentences."""

from sngd_tune.report.canvas import words
from sngd_tune.report.scaling.laws import critical_batches
from sngd_tune.report.scaling.noise import noise_sentences
from sngd_tune.report.scaling.numbers import exponent
from sngd_tune.report.scaling.overhead import overhead_sentences
from sngd_tune.report.scaling.tuning import edge_sentences, settings_sentence, settings_were
from sngd_tune.report.scaling.values import ScalingReport
from sngd_tune.scaling.critical_batch import CriticalBatch
from sngd_tune.scaling.fits import PowerLaw

__all__ = ["sentences"]


def sentences(report: ScalingReport) -> list[str]:
    """What came out, axis by axis."""
    found = [sentence for axis in report.axes for sentence in _axis(report, axis)]
    done = sum(each.completed for each in report.points)
    first = f"{done} of {report.planned} trainings have completed"
    first += f", {len(report.missing)} failed or were not tried" if report.missing else ""
    start = f"{first}. {settings_sentence(report)}"
    return [start, *edge_sentences(report), *found, *_products(report), *_critical(report), *noise_sentences(report)]


def _products(report: ScalingReport) -> list[str]:
    """Of a grid: what multiplying the laws of its axes misses; `sngd-tune plan` multiplies them."""
    found = [each for each in report.laws.products if each.measure == "step_seconds"]
    return [
        f"Laws of the time of a step along {' and '.join(map(words, each.axes))} multiply {each} on the grid "
        f"({each.method}, predicted over measured at {each.points} points)."
        for each in found
    ]


def _critical(report: ScalingReport) -> list[str]:
    found = [
        f"{method} {fit.size:.3g} ({fit.low:.3g} to {fit.high:.3g})"
        for method, fit in critical_batches(report).items()
        if isinstance(fit, CriticalBatch)
    ]
    return [f"Critical batch size, {settings_were(report, 'batch_size')}: {'; '.join(found)}."] if found else []


def _axis(report: ScalingReport, axis: str) -> list[str]:
    steps = [
        curve for method in report.methods if (curve := report.series_of(axis, "step_seconds", method)) is not None
    ]
    laws = [f"{curve.method} {exponent(curve.law)}" for curve in steps if isinstance(curve.law, PowerLaw)]
    name = words(axis)
    found = [f"Along {name}, the time of a step goes with the power: {'; '.join(laws)}."] if laws else []
    return [*found, *overhead_sentences(report, axis)]
