"""Comparisons from a file to the report: three methods on two workloads, at toy size."""

import dataclasses
import json
from itertools import pairwise
from pathlib import Path

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from sngd_tune.cli import app
from sngd_tune.compare import check_comparison, resume_comparison, run_comparison
from sngd_tune.errors import ConfigurationError
from sngd_tune.records.comparison import Cell, ComparisonConfig
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.results import sync_comparison
from sngd_tune.search.comparison import load_comparison
from sngd_tune.tracking.client import default_tracking_uri
from sngd_tune.tracking.comparison import ComparisonManifest
from sngd_tune.tracking.ledger import Ledger
from tests.studies import MOONS, Witness

SECONDS, TRIALS, SEEDS = 0.25, 3, 3
METHODS = {
    "sngd": "fixed: {optimizer: sngd, fisher_interval: 10}\nspace:\n  lr: {low: 1e-3, high: 1e-2, log: true}\n",
    "sgd": "fixed: {optimizer: sgd}\nspace:\n  lr: {low: 3e-2, high: 0.3, log: true}\n",
    "adamw": "fixed: {optimizer: adamw}\nspace:\n  lr: {low: 1e-3, high: 1e-2, log: true}\n",
}


def write(folder: Path, workloads: str, mlflow: bool = False) -> Path:
    for method, space in METHODS.items():
        (folder / f"{method}.yaml").write_text(f"schema: 1\nmethod: {method}\n{space}")
    methods = ", ".join(f"{method}: {method}.yaml" for method in METHODS)
    (folder / "toy.yaml").write_text(
        f"schema: 1\nname: toy\ncandidate: sngd\nmethods: {{{methods}}}\nworkloads:\n{workloads}"
        f"search: {{trials: {TRIALS}}}\nconfirm_seeds: {SEEDS}\nmlflow: {{enabled: {str(mlflow).lower()}}}\n"
    )
    return folder / "toy.yaml"


def workload(name: str, label: str, batch: int, target: str) -> str:
    return (
        f"  - {{workload: '{name}', name: {label}, seconds: {SECONDS}, epoch_examples: 200, "
        f"fixed: {{batch_size: {batch}}}, target: {{{target}}}}}\n"
    )


BOTH = workload("digits_mlp", "digits", 50, "metric: validation_loss, value: 0.8") + workload(
    MOONS, "moons", 100, "metric: validation_accuracy, value: 0.85"
)
ONE = workload(MOONS, "moons", 100, "metric: validation_accuracy, value: 0.85")


def load(folder: Path, workloads: str, mlflow: bool = False) -> tuple[ComparisonConfig, list[Cell]]:
    return load_comparison(write(folder, workloads, mlflow))


def with_fixed(cell: Cell, **fixed: object) -> Cell:
    study = cell.study.model_copy(update={"fixed": {**cell.study.fixed, **fixed}})
    return dataclasses.replace(cell, study=study)


def ledgers(directory: Path) -> dict[str, Ledger]:
    manifest = ComparisonManifest.read(directory)
    return {cell.study.name: Ledger.open(cell.directory(directory)) for cell in manifest.cells}


def confirmed(ledger: Ledger, candidate: str) -> list[TrialRecord]:
    return [each for each in ledger.trials() if each.phase == "confirm" and each.candidate == candidate]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of three methods on two workloads, run to its end."""
    folder = tmp_path_factory.mktemp("comparison")
    result = run_comparison(*load(folder, BOTH, mlflow=True), folder / "toy")
    assert (result.outcome, result.mirror_missed) == ("completed", 0)
    return folder / "toy"


@pytest.mark.slow
def test_every_method_has_the_same_trials_seconds_and_seeds(finished: Path) -> None:
    cells = ledgers(finished)
    assert list(cells) == [f"{label}.{method}" for label in ("digits", "moons") for method in METHODS]
    seeds = set()
    for ledger in cells.values():
        records = ledger.trials()
        assert sum(record.phase == "search" for record in records) == TRIALS
        seeds.add(tuple(record.seed for record in confirmed(ledger, "best")))
        longest = max(record.training_seconds for record in records)
        assert longest == pytest.approx(SECONDS, abs=0.2)  # the step in which it ends may be a slow one
        assert all(record.test_loss is not None for record in records if record.phase == "confirm")
    (paired,) = seeds
    assert len(set(paired)) == SEEDS


@pytest.mark.slow
def test_confirmations_of_the_methods_are_interleaved(finished: Path) -> None:
    cells = [ledger for name, ledger in ledgers(finished).items() if name.startswith("moons")]
    runs = sorted((run.started, run.number, run.study) for cell in cells for run in cell.trials() if run.candidate)
    # Two at a time: a seed begins when the one before is all but done.
    assert all(later >= earlier - 1 for (_, earlier, _), (_, later, _) in pairwise(runs))
    assert {study for _, number, study in runs if number == 0} == {ledger.config.name for ledger in cells}


@pytest.mark.slow
def test_the_result_is_written_as_json_page_and_figures(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    assert (report["schema"], report["candidate"]) == (1, "sngd")
    assert [each["workload"] for each in report["workloads"]] == ["digits", "moons"]
    for each in report["workloads"]:
        assert [method["method"] for method in each["methods"]] == list(METHODS)
        assert {method["status"] for method in each["methods"]} == {"complete"}
        assert all(method["seconds_ratio"]["n"] == SEEDS for method in each["methods"][1:])
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert report["sentence"].split(";")[0] in page
    assert "<script" not in page
    assert {"profile.png", "digits_curves.png", "moons_times.png"} <= {
        path.name for path in (finished / "figures").iterdir()
    }


@pytest.mark.slow
def test_mlflow_has_one_parent_for_the_comparison_above_its_studies(finished: Path) -> None:
    client = MlflowClient(default_tracking_uri(finished))
    (experiment,) = [each for each in client.search_experiments() if each.name == "toy"]
    runs = client.search_runs([experiment.experiment_id], max_results=500)
    by_role = {role: [run for run in runs if run.data.tags.get("role") == role] for role in ("comparison", "study")}
    (parent,) = by_role["comparison"]
    assert len(by_role["study"]) == 6
    assert {run.data.tags["mlflow.parentRunId"] for run in by_role["study"]} == {parent.info.run_id}
    assert parent.info.status == "FINISHED"
    assert parent.data.params["candidate"] == "sngd"
    assert parent.data.metrics["moons/sgd/share_reached"] <= 1
    artifacts = {each.path for each in client.list_artifacts(parent.info.run_id)}
    assert {"report.html", "report.json", "decision.html", "decision.json", "figures"} <= artifacts
    assert sync_comparison(finished).written == 0
    assert len(client.search_runs([experiment.experiment_id], max_results=500)) == len(runs)


@pytest.mark.slow
def test_the_command_line_reads_a_comparison(finished: Path) -> None:
    def invoke(*arguments: object) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.stderr
        return result.stdout

    assert "trials finished, not running" in invoke("status", finished)
    assert json.loads(invoke("report", finished, "--format", "json"))["name"] == "toy"
    assert "| sngd |" in invoke("report", finished, "--format", "markdown")
    invoke("report", finished, "--file", finished / "again.html")
    assert "sngd" in (finished / "again.html").read_text(encoding="utf-8")
    assert "moons" in invoke("validate", finished.parent / "toy.yaml")


class Stopper(Witness):
    """Presses Ctrl-C when so many trials have finished."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._after = after

    def trial_finished(self, record: TrialRecord) -> None:
        super().trial_finished(record)
        if len(self.finished) == self._after:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("after", [4, 11])  # in the search of the second method; among the confirmations
def test_an_interrupted_comparison_repeats_no_finished_trial(tmp_path: Path, after: int) -> None:
    first, second = Stopper(after), Witness()
    directory = tmp_path / "toy"
    assert run_comparison(*load(tmp_path, ONE), directory, listeners=[first]).outcome == "interrupted"
    report = json.loads((directory / "report.json").read_text())
    assert "incomplete" in {method["status"] for method in report["workloads"][0]["methods"]} or report["notes"]
    assert resume_comparison(directory, listeners=[second]).outcome == "completed"
    done = {(each.study, each.trial) for each in first.finished if each.outcome.finished}
    assert not done & {(each.study, each.trial) for each in second.started}
    assert all(len(confirmed(ledger, "best")) == SEEDS for ledger in ledgers(directory).values())


@pytest.mark.parametrize(
    ("workloads", "expected"),
    [
        (ONE.replace("target", "objective").replace("{metric: validation_accuracy, value: 0.85}", "validation_loss"),
         "has no target; name one in the file"),
        (workload("tests.examples.faults:WithoutAccuracy", "w", 50, "metric: validation_accuracy, value: 0.5"),
         "has no accuracy"),
        (workload("tests.examples.faults:RaisesWhenLoading", "w", 50, "metric: validation_loss, value: 0.5"),
         "nothing to divide"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused_before_anything_starts(
    tmp_path: Path, workloads: str, expected: str
) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        run_comparison(*load(tmp_path, workloads), tmp_path / "toy")
    assert not (tmp_path / "toy").exists()


def test_a_directory_with_a_comparison_is_left_alone(tmp_path: Path) -> None:
    config, cells = load(tmp_path, ONE)
    manifest = ComparisonManifest.new(config, {"moons": config.workloads[0].target.target()}, cells)  # type: ignore[union-attr]
    manifest.write(tmp_path / "toy")
    with pytest.raises(ConfigurationError, match="a comparison is there already; continue it with"):
        run_comparison(config, cells, tmp_path / "toy")


def test_a_manifest_comes_back_as_it_was_and_its_studies_know_their_comparison(tmp_path: Path) -> None:
    config, cells = load(tmp_path, BOTH)
    targets = {budget.label: budget.target.target() for budget in config.workloads if budget.target}
    manifest = ComparisonManifest.new(config, targets, cells)
    manifest.write(tmp_path / "toy")
    assert ComparisonManifest.read(tmp_path / "toy") == manifest
    assert {cell.study.mlflow.group and cell.study.mlflow.group.id for cell in manifest.cells} == {
        manifest.comparison_id
    }


def test_the_patterns_of_every_method_have_to_match(tmp_path: Path) -> None:
    config, (sngd, *others) = load(tmp_path, ONE)
    assert check_comparison(config, [*others, with_fixed(sngd, **{"fisher_interval@[03]": 5})])
    with pytest.raises(ConfigurationError, match="'encoder': matches no module"):
        check_comparison(config, [*others, with_fixed(sngd, **{"fisher_interval@encoder": 5})])


@pytest.mark.slow
def test_a_comparison_that_sngd_loses_says_so_in_its_first_line(tmp_path: Path) -> None:
    """Its learning rates are far too small to reach the target, on any seed."""
    file = write(tmp_path, ONE.replace("target:", "methods: [sngd, adamw], target:"))
    (tmp_path / "sngd.yaml").write_text(
        "schema: 1\nmethod: sngd\nfixed: {optimizer: sngd}\nspace:\n  lr: {low: 1e-9, high: 1e-8, log: true}\n"
    )
    directory = tmp_path / "lost"
    arguments = ["compare", str(file), "--dir", str(directory), "--set", "confirm_seeds=5", "--set", "search.trials=2"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert f"adopt it or not, on one page: {directory / 'decision.html'}" in result.stderr
    decision = json.loads((directory / "decision.json").read_text(encoding="utf-8"))
    assert decision["headline"].startswith("Do not adopt sngd: behind on ")
    assert decision["headline"] in (directory / "decision.html").read_text(encoding="utf-8")
    told = CliRunner().invoke(app, ["report", str(directory), "--decision"])
    assert told.stdout.startswith("Do not adopt sngd: behind on ")
