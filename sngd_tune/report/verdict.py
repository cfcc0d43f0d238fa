"""What came out, in plain words: the first lines of a page."""

from sngd_tune.records.outcome import Outcome
from sngd_tune.records.study import StudyConfig
from sngd_tune.report.assignments import assignments
from sngd_tune.report.canvas import words
from sngd_tune.report.statistics import Difference
from sngd_tune.report.summary import StudyReport
from sngd_tune.report.values import Confirmation

__all__ = ["duration", "verdict"]


_UNCONFIRMED = "It is not confirmed on fresh seeds: this is the best of many values, hence likely too good."


def verdict(report: StudyReport, config: StudyConfig) -> str:
    """Paragraphs: the winner; what its confirmation says against the default; its settings; what went wrong."""
    parts = [
        _winner(report, config.search.seeds),
        *_confirmed(report),
        _settings(report, config),
        _progress(report, config.search.trainings),
    ]
    return "\n\n".join(part for part in parts if part)


def duration(seconds: float) -> str:
    """Seconds in the unit that reads well: ``"45 s"``, ``"3.2 min"``, ``"1.5 h"``.

    >>> duration(0.512), duration(99.7), duration(190), duration(5400)
    ('0.51 s', '100 s', '3.2 min', '1.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _winner(report: StudyReport, seeds: int) -> str:
    best, objective = report.best, report.objectives[0]
    if best is None:
        return "No trial has completed, so there is no winner."
    value = f"{words(objective)} {best.objectives[objective]:.4g}" + (f", the mean of {seeds} seeds," * (seeds > 1))
    took = f"{best.epochs} epochs ({duration(best.training_seconds)} of training)"
    return f"Trial {best.trial} won the search with {value} after {took}."


def _settings(report: StudyReport, config: StudyConfig) -> str:
    """What was searched; fixed values are the same in every trial."""
    if report.best is None:
        return ""
    searched = {name: value for name, value in report.best.parameters.items() if name in config.space}
    return f"Its settings: {assignments(searched)}."


def _confirmed(report: StudyReport) -> list[str]:
    sides = {each.candidate: each for each in report.confirmations}
    best, default = sides.get("best"), sides.get("default")
    if best is None or not best.metrics:
        return [_UNCONFIRMED] if report.best else []
    reached = "; ".join(_against(metric, best, default) for metric in best.metrics)
    runs = f"{best.runs} fresh seed{'s' if best.runs != 1 else ''}"
    failed = f" ({best.failed} more failed)" if best.failed else ""
    found = [f"Trained again on {runs}{failed}, its settings reach on the test set: {reached}."]
    if report.differences:
        found.append(" ".join(_difference(each) for each in report.differences))
    return found


def _against(metric: str, best: Confirmation, default: Confirmation | None) -> str:
    text = f"{words(metric)} {_spread(best, metric)}"
    return f"{text}, the untuned default {_spread(default, metric)}" if default and metric in default.metrics else text


def _spread(confirmation: Confirmation, metric: str) -> str:
    found = confirmation.metrics[metric]
    return f"{found.mean:.4g}" + ("" if found.deviation is None else f" ± {found.deviation:.2g}")


def _difference(difference: Difference) -> str:
    metric, mean = words(difference.metric), f"{difference.mean:+.3g}"
    if difference.low is None or difference.high is None:
        return f"In {metric} the difference is {mean} over {difference.n} pairs of runs, too few to tell from chance."
    interval = f"95 % interval {difference.low:+.3g} to {difference.high:+.3g}, {difference.n} pairs of runs"
    if difference.verdict == "no difference":
        return f"In {metric} no difference from the default is shown ({mean}, {interval})."
    return f"In {metric} it is {difference.verdict} than the default by {abs(difference.mean):.3g} ({interval})."


def _progress(report: StudyReport, planned: int) -> str:
    finished = sum(count for outcome, count in report.outcomes.items() if outcome.finished)
    failed = len(report.failures)
    parts = [f"{finished} of {planned} trials have finished; the search is not over." if finished < planned else ""]
    if report.outcomes.get(Outcome.RUNNING):
        parts.append(f"{report.outcomes[Outcome.RUNNING]} are running.")
    if failed:
        parts.append(f"{failed} training{'s' if failed != 1 else ''} failed; the reasons stand below.")
    return " ".join(part for part in parts if part)
