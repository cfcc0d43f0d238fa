"""What a study found, as tables of a page: confirmation, ranking, failures."""

from collections.abc import Sequence

from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.report.assignments import assignments, split_parameters
from sngd_tune.report.canvas import words
from sngd_tune.report.page import Block, TableBlock
from sngd_tune.report.statistics import Difference, Spread
from sngd_tune.report.summary import StudyReport

__all__ = ["confirmation_blocks", "failures_blocks", "trials_blocks"]

_MOST_TRIALS = 20


def confirmation_blocks(report: StudyReport) -> list[Block]:
    """Both candidates on fresh seeds, and what lies between them."""
    blocks: list[Block] = []
    if report.confirmations:
        metrics = list(dict.fromkeys(metric for each in report.confirmations for metric in each.metrics))
        columns = ["candidate", "runs", "failed", *(head for name in metrics for head in (words(name), "range"))]
        rows = []
        for each in report.confirmations:
            spreads = [cell for name in metrics for cell in _spread(each.metrics.get(name))]
            seconds = each.training_seconds.mean if each.training_seconds else None
            rows.append((each.candidate, each.runs, each.failed, *spreads, seconds))
        align = ("left", *("right",) * len(columns))
        caption = (
            "Trained again on fresh seeds: mean ± standard deviation (n − 1), and the range from lowest to highest"
        )
        blocks.append(TableBlock([*columns, "seconds"], rows, caption, align))
    if report.differences:
        blocks.append(_difference_table(report.differences))
    return blocks


def _difference_table(differences: Sequence[Difference]) -> TableBlock:
    columns = ("metric", "mean difference", "95 % interval", "pairs", "best is")
    rows = []
    for each in differences:
        interval = None if each.low is None or each.high is None else f"{each.low:+.3g} to {each.high:+.3g}"
        verdict = "no different" if each.verdict == "no difference" else each.verdict
        rows.append((words(each.metric), f"{each.mean:+.3g}", interval, each.n, verdict))
    align = ("left", "right", "right", "right", "left")
    return TableBlock(columns, rows, "Best − default, paired by seed (Student's interval)", align)


def _spread(spread: Spread | None) -> tuple[str | None, str | None]:
    if spread is None:
        return None, None
    deviation = "" if spread.deviation is None else f" ± {spread.deviation:.2g}"
    return f"{spread.mean:.4g}{deviation}", f"{spread.low:.4g} … {spread.high:.4g}"


def trials_blocks(report: StudyReport) -> list[Block]:
    """The ranking, and the front of several objectives; a column for each parameter in which they differ."""
    blocks: list[Block] = []
    if report.ranking:
        rest = f", the first {_MOST_TRIALS} of {len(report.ranking)}" if len(report.ranking) > _MOST_TRIALS else ""
        caption = f"Completed trials by {words(report.objectives[0])}{rest}"
        blocks.append(_trial_table(caption, report.ranking[:_MOST_TRIALS], report.objectives))
    if report.pareto:
        blocks.append(_trial_table("Pareto front of the objectives", report.pareto, report.objectives))
    return blocks


def _trial_table(caption: str, records: Sequence[TrialRecord], objectives: Sequence[str]) -> TableBlock:
    differing, shared = split_parameters(records)
    seconds = () if "training_seconds" in objectives else ("seconds",)
    columns = ["", "trial", *map(words, objectives), "epochs", *seconds, *map(words, differing)]
    rows = []
    for place, record in enumerate(records, start=1):
        values = [record.objectives.get(name) for name in objectives]
        took = (record.training_seconds,) if seconds else ()
        rows.append((place, record.trial, *values, record.epochs, *took, *map(record.parameters.get, differing)))
    return TableBlock(columns, rows, f"{caption}; all with {assignments(shared)}" if shared else caption)


def failures_blocks(report: StudyReport) -> list[Block]:
    """Each failed training with its reason."""
    if not report.failures:
        return []
    rows = [(failure.trial, words(failure.outcome), failure.reason) for failure in report.failures]
    return [TableBlock(("trial", "outcome", "reason"), rows, "What failed, and the last line of its error")]
