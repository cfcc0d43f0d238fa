import dataclasses
import json
from pathlib import Path

import pytest

from sngd_tune.records.attempts import Attempts, Lost
from sngd_tune.report.decision.document import ONE_SHEET
from sngd_tune.report.decision.language import LanguageCode
from sngd_tune.report.decision.page import decision_page, write_decision_page
from sngd_tune.report.decision.tables import decision_markdown, decision_tables
from sngd_tune.report.decision.values import Terms
from tests.report.comparison.cells import FAST, MISSING, SLOW, empty, failing, method, workload
from tests.report.decision.comparisons import BASIS, decision, lost, powered, told, undecided, won
from tests.report.html import PageReader, check_self_contained


def test_the_first_line_of_a_lost_comparison_says_so() -> None:
    found = told(decision(*lost()))
    assert found.headline == "Do not adopt sngd: behind on 2 of 3 workloads (a and b); ahead on 1 of 3 workloads (c)."
    assert told(decision(*lost()), "ja").headline.startswith("sngd の採用は推奨しません。全 3 件中 2 件で劣後（a、b）")
    reader = PageReader(decision_page(found))
    shown = [line for line in reader.text if line.strip()]
    assert shown[1] == found.headline  # after the title in the head
    assert decision_markdown(found).splitlines()[0] == f"**{found.headline}**"


def test_a_workload_that_is_behind_stands_first_whatever_the_verdict() -> None:
    mixed = [*won(), workload("c", sngd=method(SLOW), adamw=method(FAST))]
    assert told(decision(*mixed)).headline.startswith("Extend the trial of sngd: behind on 1 of 3 workloads (c); ahead")


def test_the_page_prints_the_rule_with_its_thresholds_and_what_met_them() -> None:
    reader = PageReader(decision_page(told(decision(*won()))))
    text = " ".join(reader.text)
    for part in ("at least 2 workloads, ahead on at least 50% of them", "✓ Behind on none: 0", "Adopt sngd"):
        assert part in text


@pytest.mark.parametrize("code", list(LanguageCode))
@pytest.mark.parametrize("terms", [Terms(), None], ids=["no-terms", "terms"])
def test_every_comparison_has_a_page_that_needs_nothing_else(code: str, terms: Terms | None) -> None:
    estimated = workload("<b>", sngd=powered(method(FAST), 10.0, "estimate"), adamw=powered(method(SLOW), 9.0))
    strange = [
        [estimated, workload("d", sngd=method(MISSING), adamw=method(MISSING))],
        [workload(sngd=failing(), adamw=method(FAST)), workload("e", sngd=empty(), adamw=empty())],
        [workload(sngd=method((1.0,))), workload("f", adamw=method(FAST))],
        [],
    ]
    for results in (won(), lost(), undecided(), *strange):
        found = decision(*results) if terms is None else decision(*results, terms=terms)
        page = decision_page(told(found, code))
        assert f'<html lang="{code}">' in page
        check_self_contained(PageReader(page))


def test_a_saving_that_may_be_chance_stands_in_parentheses_and_an_estimate_is_marked() -> None:
    sides = {"sngd": powered(method(FAST), 10.0, "estimate"), "adamw": powered(method(SLOW), 10.0, "estimate")}
    text = decision_markdown(told(decision(workload(**sides))))
    assert "| digits | 1 sec 1 to 1.3 | ≈ 10 J 10 to 13 | ≈ €0.001 0.001 to 0.0013 |" in text
    assert "(1 sec) −0.6 to 1.1" in decision_markdown(told(decision(*undecided())))


def test_months_are_told_only_at_a_rate() -> None:
    assert "cost a month" in decision_markdown(told(decision(*won())))
    assert "cost a month" not in decision_markdown(told(decision(*won(), terms=Terms())))


def test_terminal_and_page_say_the_same() -> None:
    from rich.console import Console

    found = told(decision(*lost()))
    console = Console(width=400)
    with console.capture() as capture:
        console.print(decision_tables(found))
    page = " ".join(PageReader(decision_page(found)).text)
    for part in found.parts:
        if part.name != "figure":
            assert part.title in capture.get()
        assert part.title in page


def test_json_holds_the_inputs_of_the_rule_and_only_what_json_knows() -> None:
    values = json.loads(json.dumps(decision(*lost()).to_dict(), allow_nan=False))
    assert values["ruling"]["verdict"] == "reject"
    assert [each["name"] for each in values["ruling"]["criteria"] if not each["met"]] == [
        "not_behind",
        "ahead",
        "behind",
    ]
    assert values["evidence"][0]["best"]["ratio"]["verdict"] == "slower"


def test_the_page_is_written_where_it_should_be(tmp_path: Path) -> None:
    path = write_decision_page(tmp_path / "new" / "decision.html", told(decision(*won())))
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_many_workloads_have_their_tables_on_a_second_sheet() -> None:
    def sheets(workloads: int) -> dict[str, int]:
        results = [workload(f"w{n}", sngd=method(FAST), adamw=method(SLOW)) for n in range(workloads)]
        return {part.name: part.sheet for part in told(decision(*results)).parts}

    assert set(sheets(ONE_SHEET).values()) == {1}
    many = sheets(ONE_SHEET + 1)
    assert {name for name, sheet in many.items() if sheet == 2} == {"speed", "savings", "stability"}
    assert list(many.values()) == sorted(many.values())
    results = [workload(f"w{n}", sngd=method(FAST), adamw=method(SLOW)) for n in range(ONE_SHEET + 1)]
    assert decision_page(told(decision(*results))).count('class="row sheet"') == 1
    assert 'class="row sheet"' not in decision_page(told(decision(*results[:ONE_SHEET])))


def test_what_was_cut_off_is_named_as_not_known() -> None:
    attempts = Attempts(begun=40, cut_off=2, lost=(Lost(90.0, None),))
    found = decision(*won(), basis=dataclasses.replace(BASIS, attempts=attempts))
    assert "What 2 attempts of 40 (5%) used after the last report" in decision_markdown(told(found))
    assert "1.5 min" in decision_markdown(told(found))
    assert "途中で打ち切られた" in decision_markdown(told(found, "ja"))
