import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from sngd_tune.errors import LedgerError
from sngd_tune.records.selection import SelectionRecord
from sngd_tune.report.page import CodeBlock, FigureBlock, Page, Section, TableBlock, TextBlock, render
from sngd_tune.report.selection import (
    choice_table,
    explanation,
    overview,
    probe_table,
    rate_table,
    reason_table,
    selection_values,
    sentences,
    step_table,
)
from sngd_tune.report.selection_page import selection_page, write_selection_figures, write_selection_page
from tests.report.html import PageReader, check_self_contained
from tests.selection.samples import choice, plain_choice, probe, selection

USAGE = 'import yaml\noptimizer = SNGD(model, best["fisher"], **best["sngd"])'


@pytest.fixture(scope="module")
def record() -> SelectionRecord:
    return selection()


@pytest.fixture(scope="module")
def page(record: SelectionRecord) -> Page:
    return selection_page(record, USAGE)


def printed(part: RenderableType, width: int = 200) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(part)
    return console.export_text()


def section(page: Page, anchor: str) -> Section:
    (found,) = [each for each in page.sections if each.anchor == anchor]
    return found


def figures(page: Page, anchor: str) -> list[FigureBlock]:
    return [block for block in section(page, anchor).blocks if isinstance(block, FigureBlock)]


def test_each_layer_has_what_it_got_and_what_that_costs(record: SelectionRecord) -> None:
    table = choice_table(record)
    assert table.cells == [
        ["0", "input rank 8", "0.1", "50", "2.5", "2.4%", "67.8 KiB"],
        ["2", "–", "–", "–", "1", "0.0%", "0 B"],
        ["4", "input", "0.01", "200", "2.6", "16.0%", "67.8 KiB"],
    ]
    assert "plain adamw" in table.caption


def test_each_layer_has_its_reason(record: SelectionRecord) -> None:
    assert reason_table(record).cells[1] == ["2", "none", "nothing gains enough"]


def test_the_figures_of_the_probe_stand_under_their_names(record: SelectionRecord) -> None:
    table = probe_table(record)
    first = dict(zip(table.columns, table.cells[0], strict=True))
    assert first == {
        "layer": "0",
        "module": "Linear",
        "shape": "32 × 65",
        "positions": "1",
        "rank": "5.25",
        "rank for 90 %": "8",
        "condition": "4.32e+03",
        "noise": "0.25",
        "least damping": "0.0625",
        "drift 10": "0",
        "drift 40": "0.125",
        "left 10": "1",
        "left 40": "0.625",
        "rank of B": "3.5",
        "kron's gain": "1.75",
    }
    assert dict(zip(table.columns, table.cells[1], strict=True))["kron's gain"] == "–"
    assert [row[2] for row in table.cells] == ["32 × 65", "32 × 65", "2 × 32 × 65"]


def test_ages_that_one_layer_lacks_are_left_empty(record: SelectionRecord) -> None:
    short = dataclasses.replace(
        record, probes=(probe("0"), probe("2", drift={}, retained_gain={}, retained_trace={1: 0.2}))
    )
    table = probe_table(short)
    last = dict(zip(table.columns, table.cells[1], strict=True))
    assert [last[name] for name in ("rank for 90 %", "drift 10", "left 40")] == ["–"] * 3


def test_times_are_ratios_to_plain_sgd(record: SelectionRecord) -> None:
    assert step_table(record).cells == [
        ["plain sgd", "1", "1.00"],
        ["plain adamw", "1.25", "1.25"],
        ["with the choice, predicted", "1.5", "1.50"],
        ["with the choice, measured", "1.6", "1.60"],
        ["budget", "–", "1.75"],
    ]


def test_a_training_that_diverged_says_so(record: SelectionRecord) -> None:
    assert rate_table(record).cells[-1] == ["0.04", "0.01", "300", "diverged"]


def test_what_came_out_is_said_in_words(record: SelectionRecord) -> None:
    layers, step, decrease, memory, rate, origin = sentences(record)
    assert layers == "2 of 3 layers get a local Fisher layer."
    assert step == (
        "A step takes 1.50 times as long as one of plain sgd (predicted; measured: 1.60; plain adamw: 1.25);"
        " the budget is 1.75 times."
    )
    assert decrease.endswith("2.25 times as much as one of plain adamw; no choice within the budget has more.")
    assert memory == "Local Fisher layers keep 136 KiB, of 1 MiB allowed."
    assert rate.endswith("lr 0.02, weight_decay 0.01, found by 3 short trainings, under warmup_cosine.")
    assert origin == "Measured in 6.5 s on cpu, 1 threads, with batches of 49.88 examples."


def test_without_budgets_and_with_a_bound_the_words_are_others(record: SelectionRecord) -> None:
    changes: dict[str, Any] = {"step_budget": None, "memory_budget": None, "bound": 2.5, "rates": ()}
    _, step, decrease, memory, rate, _ = sentences(dataclasses.replace(record, **changes))
    assert step.endswith("the best decrease per second was sought.")
    assert decrease.endswith("no choice at this price has more than 2.5 times.")
    assert memory == "Local Fisher layers keep 136 KiB."
    assert rate.endswith("no learning rate was tried.")


def test_the_terminal_has_it_short_and_whole(record: SelectionRecord) -> None:
    short, whole = printed(overview(record)), printed(explanation(record))
    for part in ("input rank 8", "of a step", "2 of 3 layers"):
        assert part in short
        assert part in whole
    for part in ("nothing gains enough", "Linear", "least damping", "with the choice, measured", "diverged"):
        assert part not in short
        assert part in whole


def test_brackets_in_names_are_no_markup() -> None:
    record = selection(subject="[bold]mine", layers=(choice("[red]"), plain_choice("", alternatives=())), rates=())
    text = printed(explanation(record))
    assert "[red]" in text
    assert "(the model)" in text
    reader = PageReader(render(selection_page(record, "<script>alert(1)</script>")))
    check_self_contained(reader)
    assert "<script>alert(1)</script>" in reader.text


def test_json_has_no_number_that_it_cannot_hold(record: SelectionRecord) -> None:
    values = json.loads(json.dumps(selection_values(record), allow_nan=False))
    assert values["schema"] == 1
    assert values["rates"][2]["loss"] is None
    assert values["layers"][0]["settings"]["rank"] == 8
    assert values["probes"][0]["drift"] == {"10": 0.0, "40": 0.125}


def test_the_page_says_first_what_was_chosen(page: Page) -> None:
    assert [each.anchor for each in page.sections] == [
        "choice", "use", "reasons", "alternatives", "probe", "step", "rates", "weighed",
    ]  # fmt: skip
    (said, table) = page.sections[0].blocks
    assert isinstance(said, TextBlock)
    assert said.text.startswith("2 of 3 layers get a local Fisher layer.")
    assert isinstance(table, TableBlock)
    assert [block.text for block in section(page, "use").blocks if isinstance(block, CodeBlock)] == [USAGE]
    check_self_contained(PageReader(render(page)))


def test_every_layer_shows_its_gain_against_its_price(page: Page) -> None:
    found = figures(page, "alternatives")
    assert [block.caption for block in found] == [
        f"layer {name}: gain of what it could have against its price" for name in ("0", "2", "4")
    ]
    assert "input rank 8" in found[0].svg  # the chosen one has its name
    assert "none" in found[1].svg
    for kind in ("diagonal", "blocks", "low rank", "input, dense", "chosen", "without a local Fisher layer"):
        assert kind in found[0].svg


def test_all_that_was_weighed_is_listed(page: Page) -> None:
    (table,) = section(page, "weighed").blocks
    assert isinstance(table, TableBlock)
    assert len(table.rows) == 15
    assert table.cells[1] == ["0", "block:32", "0.1", "1.5", "3.2%", "39.1 KiB"]


@pytest.mark.slow
def test_of_many_layers_those_that_decide_are_drawn() -> None:
    count = 15
    layers = tuple(choice(f"layer{n}") for n in range(count))
    probes = tuple(probe(f"layer{n}", progress=float(n)) for n in range(count))
    page = selection_page(selection(layers=layers, probes=probes), USAGE)
    assert [block.alt.split("layer ")[1].split(":")[0] for block in figures(page, "alternatives")] == [
        f"layer{n}" for n in range(3, count)
    ]
    assert "12 of 15 layers" in next(b.text for b in section(page, "alternatives").blocks if isinstance(b, TextBlock))


def test_figures_that_a_selection_does_not_allow_are_left_out(tmp_path: Path) -> None:
    record = selection(layers=(plain_choice("0", alternatives=()),), probes=(), rates=())
    assert write_selection_figures(tmp_path / "figures", record) == []
    page = selection_page(record, USAGE)
    assert [each.anchor for each in page.sections] == ["choice", "use", "reasons", "step"]


def test_free_and_failed_alternatives_are_drawn(tmp_path: Path) -> None:
    """A price of zero has no place on a log scale, and not one of the trainings has a loss."""
    free = tuple(dataclasses.replace(each, seconds=0.0) for each in choice().alternatives)
    rates = tuple(dataclasses.replace(each, loss=math.nan) for each in selection().rates)
    record = selection(layers=(choice(alternatives=free),), rates=rates)
    assert [path.name for path in write_selection_figures(tmp_path, record)] == [
        "gain_and_price.png",
        "learning_rates.png",
    ]


def test_page_and_figures_are_files(tmp_path: Path) -> None:
    record = selection(layers=(choice("0"),))
    page = write_selection_page(tmp_path / "selection.html", record, USAGE)
    check_self_contained(PageReader(page.read_text(encoding="utf-8")))
    for path in write_selection_figures(tmp_path / "figures", record):
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 10_000


def test_figures_that_cannot_be_written_are_named(record: SelectionRecord, tmp_path: Path) -> None:
    (tmp_path / "figures").write_text("in the way")
    with pytest.raises(LedgerError, match=r"gain_and_price\.png: cannot be written"):
        write_selection_figures(tmp_path / "figures", record)
