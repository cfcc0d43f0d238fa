"""A report as tables for a terminal. Cells are plain text: brackets in a user's names or errors are no markup."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sngd_tune.records.outcome import Outcome
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.report.assignments import assignments, split_parameters
from sngd_tune.report.energy import energy_text
from sngd_tune.report.statistics import Difference, Spread
from sngd_tune.report.summary import StudyReport
from sngd_tune.report.values import Confirmation, Failure

__all__ = ["report_tables", "trials_table"]

_MAX_FAILURES = 10


def report_tables(report: StudyReport, limit: int = 10) -> RenderableType:
    """The whole report, with at most `limit` trials of the ranking; parts that have nothing to say are left out."""
    parts: list[RenderableType] = [_heading(report)]
    if report.ranking:
        parts.append(trials_table(f"Best trials by {report.objectives[0]}", report.ranking[:limit], report.objectives))
    if report.pareto:
        parts.append(trials_table("Pareto front", report.pareto, report.objectives))
    if report.confirmations:
        parts.append(_confirmation_table(report.confirmations))
    if report.differences:
        parts.append(_difference_table(report.differences))
    if report.failures:
        parts.append(_failure_table(report.failures))
    return Group(*parts)


def trials_table(title: str, records: Sequence[TrialRecord], objectives: Sequence[str]) -> Table:
    """Trials in the order given with the parameters in which they differ; those that all share stand below."""
    differing, shared = split_parameters(records)
    seconds = () if "training_seconds" in objectives else ("seconds",)
    numbers = ("", *objectives, "epochs", *seconds)
    table = _table(title, ("", "trial", *objectives, "epochs", *seconds, "parameters"), right=numbers)
    for place, record in enumerate(records, start=1):
        values = [record.objectives.get(name) for name in objectives]
        took = (record.training_seconds,) if seconds else ()
        own = {name: record.parameters[name] for name in differing if name in record.parameters}
        _add(table, place, record.trial, *values, record.epochs, *took, assignments(own), bold=place == 1)
    if shared:
        table.caption = Text(f"all with {assignments(shared)}")
    return table


def _heading(report: StudyReport) -> Text:
    counts = ", ".join(f"{report.outcomes[each]} {_words(each)}" for each in Outcome if each in report.outcomes)
    budget = report.budget
    retries = f", {budget.retries} repeated attempts" if budget.retries else ""
    return Text.assemble(
        (report.study, "bold"),
        f": workload {report.workload}, {budget.trials} trials ({counts or 'none begun'})\n",
        f"{_cell(budget.device_seconds)} s of training in {_cell(budget.wall_seconds)} s{retries}\n",
        f"energy: {energy_text(budget)}",
    )


def _confirmation_table(confirmations: Sequence[Confirmation]) -> Table:
    """Mean ± standard deviation (n − 1), and the range."""
    metrics = list(dict.fromkeys(metric for each in confirmations for metric in each.metrics))
    columns = [column for metric in metrics for column in (_words(metric), "min to max")]
    columns = ["candidate", "runs", "failed", *columns, "seconds"]
    table = _table("Trained again on fresh seeds", columns, right=columns[1:])
    for each in confirmations:
        cells = [cell for metric in metrics for cell in _spread_cells(each.metrics.get(metric))]
        seconds = each.training_seconds.mean if each.training_seconds else None
        _add(table, each.candidate, each.runs, each.failed, *cells, seconds)
    return table


def _difference_table(differences: Sequence[Difference]) -> Table:
    columns = ("metric", "mean", "95 % interval", "pairs", "best is")
    table = _table("Best − default, paired by seed", columns, right=columns[1:4])
    for each in differences:
        known = each.low is not None and each.high is not None
        interval = f"{each.low:+.3g} to {each.high:+.3g}" if known else None
        verdict = "no different" if each.verdict == "no difference" else each.verdict
        _add(table, _words(each.metric), f"{each.mean:+.3g}", interval, each.n, verdict)
    return table


def _failure_table(failures: Sequence[Failure]) -> Table:
    table = _table("Failed", ("trial", "outcome", "reason"))
    for failure in failures[:_MAX_FAILURES]:
        _add(table, failure.trial, _words(failure.outcome), failure.reason)
    if len(failures) > _MAX_FAILURES:
        table.caption = Text(f"and {len(failures) - _MAX_FAILURES} more")
    return table


def _table(title: str, columns: Sequence[str], right: Sequence[str] = ()) -> Table:
    table = Table(
        title=Text(title, style="bold"),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in columns:
        table.add_column(Text(column), justify="right" if column in right else "left", overflow="fold")
    return table


def _add(table: Table, *cells: Any, bold: bool = False) -> None:
    table.add_row(*(Text(_cell(cell)) for cell in cells), style="bold" if bold else None)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _spread_cells(spread: Spread | None) -> tuple[str | None, str | None]:
    if spread is None:
        return None, None
    deviation = "" if spread.deviation is None else f" ± {spread.deviation:.2g}"
    return f"{_cell(spread.mean)}{deviation}", f"{_cell(spread.low)} to {_cell(spread.high)}"


def _words(name: str) -> str:
    return name.replace("_", " ")
