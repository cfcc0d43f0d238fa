import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sngd_tune.cli import app
from sngd_tune.records.importance import Importance
from sngd_tune.records.metrics import EpochMetrics, LayerDiagnostics
from sngd_tune.records.outcome import Outcome
from sngd_tune.report.page import FigureBlock, Page, Section, TableBlock, TextBlock, render
from sngd_tune.report.sensitivity import sensitivity_section
from sngd_tune.report.study_page import study_page, write_study_page
from sngd_tune.tracking.ledger import Ledger
from tests.report.html import PageReader, check_self_contained
from tests.report.synthetic import epoch, record, study, write_study

IMPORTANCES = (
    Importance(parameter="lr", share=0.6, trials=17),
    Importance(parameter="relative_damping[granularity=input|block]", share=0.2, trials=12),
)


def with_layers(metrics: EpochMetrics, names: int = 2) -> EpochMetrics:
    layers = tuple(
        LayerDiagnostics(
            layer=f"layer{n}", damping=0.1 / metrics.epoch, condition_number=50.0, effective_rank=3.0 + n, refreshes=4
        )
        for n in range(names)
    )
    return dataclasses.replace(metrics, layers=layers)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """A study with layers in the winner, curves of the confirmation, and an error full of markup."""
    ledger = write_study(tmp_path_factory.mktemp("whole") / "study", start=[{"lr": 0.1}], fixed={"momentum": 0.9})
    best = study_best(ledger)
    ledger.write_epochs(
        dataclasses.replace(best, attempt=1), [with_layers(epoch(n, 0.1 + 1 / n, 1.0)) for n in (1, 2, 3)], [1.0] * 3
    )
    for trial in ledger.trials():
        if trial.phase == "confirm":
            curve = [epoch(n, 1 / n + trial.seed / 1e5, 1.0 + trial.seed / 1e5) for n in range(1, 9)]
            ledger.write_epochs(trial, curve, [1.0] * 8)
    ledger.write_trial(record(90, outcome=Outcome.ERROR, error="Traceback\n<script>alert('x')</script>", started=1.0))
    return ledger


@pytest.fixture(scope="module")
def page(whole: Ledger) -> Page:
    return study_page(whole, IMPORTANCES)


def study_best(ledger: Ledger) -> Any:
    completed = [r for r in ledger.trials() if r.phase == "search" and r.outcome is Outcome.COMPLETED]
    return min(completed, key=lambda r: r.objectives["validation_loss"])


def section(page: Page, anchor: str) -> Section:
    (found,) = [each for each in page.sections if each.anchor == anchor]
    return found


def tables(page: Page, anchor: str) -> list[TableBlock]:
    return [block for block in section(page, anchor).blocks if isinstance(block, TableBlock)]


def words_of(page: Page, anchor: str) -> str:
    return "\n".join(block.text for block in section(page, anchor).blocks if isinstance(block, TextBlock))


def captions(page: Page, anchor: str) -> list[str]:
    return [block.caption for block in section(page, anchor).blocks if isinstance(block, FigureBlock)]


def test_the_page_says_first_what_came_out(page: Page, whole: Ledger) -> None:
    assert page.sections[0].anchor == "verdict"
    said = words_of(page, "verdict")
    assert said.startswith(f"Trial {study_best(whole).trial} won the search with validation loss ")
    assert "Trained again on 5 fresh seeds" in said
    assert "the untuned default" in said
    assert "In test loss it is better than the default by 0.0" in said
    assert "95 % interval" in said
    assert "training" in said
    assert "failed" in said
    assert "Its settings: lr=" in said
    assert "momentum" not in said


def test_the_page_has_every_part(page: Page) -> None:
    assert [each.anchor for each in page.sections] == [
        "verdict", "confirmation", "curves", "progress", "front", "importances", "slices", "trials", "layers", "space",
        "budget", "machine", "failures",
    ]  # fmt: skip
    assert captions(page, "curves") == ["validation loss by step", "validation loss by seconds of training"]
    assert captions(page, "progress") == [
        "best so far against trials ended",
        "best so far against device seconds",
        "best so far against seconds since the start",
    ]
    assert len(captions(page, "layers")) == 3
    assert len(captions(page, "slices")) == 4


def test_confirmed_candidates_stand_before_the_search(page: Page) -> None:
    (curves, *_) = [block for block in section(page, "curves").blocks if isinstance(block, FigureBlock)]
    assert "best, 5 seeds" in curves.svg
    assert "default, 5 seeds" in curves.svg
    assert "stopped or failed" in curves.svg


def test_the_front_is_what_no_trial_beats(page: Page) -> None:
    (table,) = tables(page, "front")
    seconds, losses = [row[1] for row in table.rows], [row[2] for row in table.rows]
    assert seconds == sorted(seconds)
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == len(losses)


def test_what_was_tuned_is_told_whole(page: Page) -> None:
    searched, fixed, start = tables(page, "space")
    assert ("lr", "0.01 … 1", "log", "", "0.1", "learning rate") in searched.rows
    assert fixed.cells[0][:2] == ["momentum", "0.9"]
    assert start.cells == [["0000", "0.1"]]
    planned = {row[0]: row[1] for row in tables(page, "budget")[0].cells}
    assert planned["trials"] == "32"
    assert planned["early stopper"].startswith("asha: from epoch 1 on")


def test_machine_and_versions_are_those_of_the_manifest(page: Page, whole: Ledger) -> None:
    machine, versions = tables(page, "machine")
    assert whole.manifest.machine is not None
    assert ["processor", whole.manifest.machine.cpu] in machine.cells
    assert ["torch", whole.manifest.versions["torch"]] in versions.cells


def test_importances_say_how_many_trials_they_rest_on(page: Page) -> None:
    (block,) = [each for each in section(page, "importances").blocks if isinstance(each, FigureBlock)]
    assert "60%, 17 trials" in block.svg
    assert "20%, 12 trials" in block.svg
    assert "granularity=input|block" in block.svg
    assert "Not stated for want of trials: fisher_interval, granularity." in words_of(page, "importances")


def test_single_layers_are_told_from_the_others(tmp_path: Path) -> None:
    space = {
        "rank": {"low": 2, "high": 8},
        "rank@0_a.*": {"low": 2, "high": 32, "log": True, "when": {"granularity@0_a.*": "input"}},
        "granularity@0_a.*": {"choices": ["input", "kron"]},
    }
    ledger = Ledger.create(tmp_path / "study", study(space=space, fixed={"positions@[24]": 9}, start=[{"rank": 4}]))
    for number, rank in enumerate((4, 8)):
        values = {"rank": 2, "granularity@0_a.*": "input", "rank@0_a.*": rank}
        done = {"outcome": Outcome.COMPLETED, "objectives": {"validation_loss": 1 / rank}, "ended": 2.0}
        ledger.write_trial(record(number, parameters=values, **done))
    page = study_page(ledger, [Importance(parameter="rank@0_a.*[granularity@0_a.*=input]", share=0.5, trials=10)])
    searched, fixed, _ = tables(page, "space")
    assert searched.cells[1][:5] == ["rank@0_a.*", "2 … 32", "log", "granularity@0_a.* = input", "as rank"]
    assert fixed.cells == [
        ["positions@[24]", "9", "as positions", "rows of a statistics batch, at most, in layers [24]"]
    ]
    assert captions(page, "slices") == ["validation loss against rank@0_a.*"]  # the one in which the trials differ
    assert "Not stated for want of trials: rank, granularity@0_a.*." in words_of(page, "importances")
    check_self_contained(PageReader(render(page)))


def test_without_importances_the_page_says_why(whole: Ledger) -> None:
    (block,) = sensitivity_section(whole.config, ()).blocks
    assert isinstance(block, TextBlock)
    assert block.text.startswith("Not stated: that takes ten completed trials")


def test_the_page_is_one_file_that_fetches_nothing_and_shows_errors_as_text(page: Page) -> None:
    reader = PageReader(render(page))
    check_self_contained(reader)
    assert "<script>alert('x')</script>" in reader.text


def test_the_page_lies_in_the_run_directory_by_default(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "study", study())
    assert write_study_page(ledger, ()) == ledger.directory / "report.html"
    reader = PageReader((ledger.directory / "report.html").read_text(encoding="utf-8"))
    check_self_contained(reader)
    assert any("No trial has completed" in text for text in reader.text)


def test_nothing_but_failures_still_has_a_page(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "study", study())
    for number in range(3):
        ledger.write_trial(record(number, outcome=Outcome.DIVERGED, parameters={"lr": 0.1}, error="loss became NaN"))
    page = study_page(ledger, ())
    assert "3 of 32 trials have finished" in words_of(page, "verdict")
    assert "3 trainings failed" in words_of(page, "verdict")
    assert [row[2] for row in tables(page, "failures")[0].rows] == ["loss became NaN"] * 3
    check_self_contained(PageReader(render(page)))


def test_an_unconfirmed_winner_is_said_to_be_one(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "study", study())
    done = record(0, outcome=Outcome.COMPLETED, objectives={"validation_loss": 0.5}, parameters={"lr": 0.1}, ended=2.0)
    ledger.write_trial(done)
    ledger.write_epochs(done, [with_layers(epoch(1, 0.5, 1.0), names=9)], [1.0])
    page = study_page(ledger, ())
    assert "not confirmed" in words_of(page, "verdict")
    (rank, *_) = [block for block in section(page, "layers").blocks if isinstance(block, FigureBlock)]
    assert "first: layer0" in rank.svg
    assert "last: layer8" in rank.svg


def _invoke(*arguments: object) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None, result.exception
    return result


def test_the_command_writes_the_page_and_still_prints(whole: Ledger, tmp_path: Path) -> None:
    result = _invoke("report", whole.directory, "--file", tmp_path / "page.html", "--format", "json")
    found = json.loads(result.stdout)
    assert f"page: {tmp_path / 'page.html'}" in result.stderr
    assert found["machine"]["cores"] >= 1
    assert found["versions"]["torch"] == whole.manifest.versions["torch"]
    assert {each["parameter"] for each in found["importances"]} >= {"lr", "relative_damping"}
    check_self_contained(PageReader((tmp_path / "page.html").read_text(encoding="utf-8")))
