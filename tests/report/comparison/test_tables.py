import io
import math

from rich.console import Console, RenderableType

from sngd_tune.report.comparison.summary import ComparisonReport, WorkloadResults, summarize_comparison
from sngd_tune.report.comparison.tables import comparison_markdown, comparison_tables
from tests.report.comparison.cells import FAST, MISSING, SLOW, empty, failing, method, workload


def _report(*results: WorkloadResults, name: str = "trial") -> ComparisonReport:
    return summarize_comparison(name, "sngd", results)


def _text(table: RenderableType) -> str:
    console = Console(width=220, file=io.StringIO(), record=True)
    console.print(table)
    return console.export_text()


def test_markdown_has_a_table_for_each_workload() -> None:
    found = comparison_markdown(
        _report(workload(sngd=method(FAST), adamw=method(SLOW)), workload("hard", sngd=method(FAST), adamw=empty()))
    )
    rows = [line for line in found.splitlines() if line.startswith("|")]
    assert len(rows) == 8
    assert len({line.count("|") for line in rows[:4]}) == 1
    assert rows[1].startswith("| --- | --: |")
    assert rows[3] == (
        "| adamw | 4 | 40 | 5 of 5 | 2.1 \\[1.9–2.3] | 60 | 0.50 \\[0.43–0.55], faster "
        "| 1.00 \\[1.00–1.00], no difference | 0.908 ± 0.0084 | 0.092 ± 0.0084 |"
    )
    assert rows[7].startswith("| adamw (missing) | 0 of 4 | 0 | – |")
    assert "- hard: adamw: not begun" in found
    assert "validation loss ≤ 0.5; 10 s a training" in found


def test_misses_and_few_seeds_are_named() -> None:
    found = comparison_markdown(_report(workload(sngd=method(FAST), adamw=method(MISSING))))
    assert "| 0 of 5 | missed | missed | 0.00 \\[0.00–0.00], faster |" in found
    found = comparison_markdown(_report(workload(sngd=method(MISSING), adamw=method(MISSING))))
    assert "both miss" in found
    some = (1.0, 1.0, 1.0, 1.0, math.inf)
    found = comparison_markdown(_report(workload(sngd=method(some), adamw=method((2.0,) * 5))))
    assert "0.50 \\[0.50–∞], no difference" in found
    assert "1 \\[1–missed]" in found
    found = comparison_markdown(_report(workload(sngd=method((1.0,)), adamw=method((2.0,)))))
    assert "0.50, too few runs" in found


def test_names_are_no_markup() -> None:
    report = _report(workload("a_b|c*", **{"sngd": method(FAST), "[/red]<x>": method(SLOW)}), name="[bold]n|m")
    found = comparison_markdown(report)
    assert "\\[/red]\\<x>" in found
    assert "a\\_b\\|c\\*" in found
    assert "[bold]n|m" in _text(comparison_tables(report))
    assert "[/red]<x>" in _text(comparison_tables(report))


def test_the_terminal_gets_verdict_tables_scores_and_notes() -> None:
    found = _text(
        comparison_tables(
            _report(
                workload(sngd=method(SLOW), adamw=method(FAST)),
                workload("hard", sngd=method(FAST), adamw=method(SLOW), sgd=failing()),
            )
        )
    )
    assert found.index("sngd lost on 1 of 2") < found.index("won on 1 of 2") < found.index("digits: validation loss")
    for part in ("score", "2.00 [1.", "slower", "note: hard: sgd: no trial", "missed"):
        assert part in found


def test_a_report_of_nothing_is_printed() -> None:
    assert "not compared" in _text(comparison_tables(_report()))
    assert "not compared" in comparison_markdown(_report())
