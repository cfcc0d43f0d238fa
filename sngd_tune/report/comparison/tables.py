"""A comparison as tables for a terminal, and as Markdown. Cells are plain text: what users named is no markup."""

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sngd_tune.report.comparison.cells import method_cells, method_columns, target_line
from sngd_tune.report.comparison.values import ComparisonReport, WorkloadSummary

__all__ = ["LEGEND", "comparison_markdown", "comparison_tables", "escaped"]

LEGEND = (
    "Seconds and steps to the target: median over the seeds [lowest–highest]. Ratio: candidate over method, "
    "median over the seeds [95 % interval; with 5 seeds 94 %]. Test metrics: mean ± standard "
    "deviation over the seeds, at the end of the budget."
)


def comparison_tables(report: ComparisonReport) -> RenderableType:
    """The whole report for a terminal: the verdict, a table a workload, the scores, and what to know about budgets."""
    parts: list[RenderableType] = [Text.assemble((report.name, "bold"), f": {report.sentence}")]
    parts += [_workload_table(each) for each in report.workloads]
    if len(report.workloads) > 1:
        parts.append(_profile_table(report))
    parts += [Text(each.sentence) for each in report.workloads]
    parts += [Text(f"note: {note}") for note in report.notes]
    parts.append(Text(LEGEND, style="dim"))
    return Group(*parts)


def comparison_markdown(report: ComparisonReport) -> str:
    """The report as Markdown: verdict, and a table a workload."""
    parts = [f"**{escaped(report.name)}**: {escaped(report.sentence)}"]
    for workload in report.workloads:
        columns = method_columns(workload)
        rows = [columns, ["---", *["--:"] * (len(columns) - 1)]]
        cells = [[escaped(cell or "–") for cell in method_cells(workload, each)] for each in workload.methods]
        table = "\n".join(f"| {' | '.join(row)} |" for row in [*rows, *cells])
        parts += [f"**{escaped(workload.workload)}** ({target_line(workload)})", table, escaped(workload.sentence)]
    if report.notes:
        parts.append("\n".join(f"- {escaped(note)}" for note in report.notes))
    return "\n\n".join([*parts, LEGEND]) + "\n"


def _workload_table(workload: WorkloadSummary) -> Table:
    table = _table(f"{workload.workload}: {target_line(workload)}", method_columns(workload))
    for method in workload.methods:
        cells = [Text(cell or "-") for cell in method_cells(workload, method)]
        table.add_row(*cells, style="bold" if method is workload.methods[0] else None)
    return table


def _profile_table(report: ComparisonReport) -> Table:
    names = [each.workload for each in report.workloads]
    table = _table("Time to the target over the best method's", ["method", "score", *names])
    for each in report.profile:
        factors = [each.factors[name] for name in names]
        table.add_row(*map(Text, (each.method, f"{each.score:.2f}", *(_factor(value) for value in factors))))
    return table


def _factor(value: float) -> str:
    return "missed" if value == float("inf") else f"{value:.2f}"


def _table(title: str, columns: list[str]) -> Table:
    table = Table(title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if place else "left", overflow="fold")
    return table


def escaped(text: str) -> str:
    """What would be markup in a cell of Markdown is plain text."""
    for sign in ("\\", "|", "*", "_", "`", "<", "["):
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
