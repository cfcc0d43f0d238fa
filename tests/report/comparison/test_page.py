from pathlib import Path

from sngd_tune.records.importance import Importance
from sngd_tune.report.comparison.page import comparison_page, write_comparison_page
from sngd_tune.report.comparison.summary import WorkloadResults, summarize_comparison
from sngd_tune.report.page import Section, TextBlock, render
from tests.report.comparison.cells import FAST, MISSING, SLOW, empty, failing, method, workload
from tests.report.html import PageReader, check_self_contained


def _read(*results: WorkloadResults, **changes: object) -> tuple[PageReader, str]:
    report = summarize_comparison("trial <b>", "sngd", results)
    html = render(comparison_page(report, results, **{"importances": {}, **changes}))
    reader = PageReader(html)
    return reader, " ".join(reader.text)


def test_the_page_says_the_verdict_first_and_then_everything(tmp_path: Path) -> None:
    results = [
        workload(sngd=method(SLOW), adamw=method(FAST), sgd=method(MISSING)),
        workload("hard", sngd=method(FAST), adamw=failing(), sgd=empty()),
    ]
    importances = {"digits": {"adamw": [Importance(parameter="lr", share=0.8, trials=30)]}}
    report = summarize_comparison("trial", "sngd", results)
    machine = Section("Machine and versions", [TextBlock("one processor")], "machine")
    path = write_comparison_page(tmp_path / "report.html", report, results, importances, machine)
    reader = PageReader(path.read_text(encoding="utf-8"))
    check_self_contained(reader)
    text = " ".join(reader.text)
    parts = ["sngd lost on 1 of 2", "Over all workloads", "Stability", "Winning settings", "Budgets"]
    parts += ["What was tuned", "adamw on digits", "one processor", "Failures"]
    places = [text.rindex(part) for part in parts[1:]]
    assert places == sorted(places)
    assert text.index(parts[0]) < places[0]
    for part in ("adamw, on digits, hard:", "sgd: not begun", "ValueError: <b>[x]</b> 0", "python -m somewhere", "lr"):
        assert part in text


def test_one_method_one_seed_and_nothing_begun_have_pages() -> None:
    for results in ([workload(sngd=method((1.0,)))], [workload(sngd=empty(), adamw=empty())], []):
        reader, text = _read(*results)
        check_self_contained(reader)
        assert "Comparison trial <b>" in text
        assert "What came out" in text


def test_a_space_that_all_workloads_share_stands_once() -> None:
    same = [workload(name, sngd=method(FAST), adamw=method(SLOW)) for name in ("a", "b")]
    other = workload("c", sngd=method(FAST, fixed={"batch_size": 7}), adamw=method(SLOW))
    _, text = _read(*same, other)
    assert text.count("sngd, on a, b:") == text.count("sngd, on c:") == text.count("adamw, on a, b, c:") == 1
