"""A selection as a run of a real MLflow over SQLite."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from sngd_tune.records.selection import SelectionRecord
from sngd_tune.tracking.client import MirrorError
from sngd_tune.tracking.selection import log_selection
from tests.selection.samples import choice, renamed, selection


@pytest.fixture
def directory(runs_dir: Path) -> Path:
    """Of a selection, beside the store."""
    made = runs_dir / "auto-digits"
    (made / "figures").mkdir(parents=True)
    for name in ("auto.yaml", "selection.json", "selection.html", "figures/gain_and_price.png"):
        (made / name).write_text(name)
    return made


def logged(record: SelectionRecord, directory: Path) -> tuple[MlflowClient, Any]:
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    run_id = log_selection(record, directory, files)
    client = MlflowClient(f"sqlite:///{directory.parent / 'mlflow.db'}")
    return client, client.get_run(run_id)


def test_a_selection_is_a_run_in_the_experiment_of_its_workload(directory: Path) -> None:
    client, run = logged(selection(), directory)
    assert client.get_experiment(run.info.experiment_id).name == "digits_mlp"
    assert (run.info.run_name, run.info.status) == ("auto-digits", "FINISHED")
    assert run.info.end_time - run.info.start_time == 6500
    tags = run.data.tags
    expected = {"role": "selection", "workload": "digits_mlp", "device": "cpu, 1 threads", "sngd_tune.trial": ""}
    assert expected.items() <= tags.items()
    assert tags["sngd_tune.study_id"]
    assert tags["code_version"].startswith("0.")


def test_settings_are_parameters_layer_by_layer(directory: Path) -> None:
    parameters = logged(selection(), directory)[1].data.params
    whole = {"base": "adamw", "lr": "0.02", "weight_decay": "0.01", "lr_schedule": "warmup_cosine"}
    budgets = {"batch_size": "49.875", "step_budget": "1.75", "memory_budget": "1048576"}
    first = {"granularity at 0": "input", "root at 0": "nystrom", "rank at 0": "8", "relative_damping at 0": "0.1"}
    rest = {"granularity at 2": "none", "root at 4": "eigh", "fisher_interval at 4": "200", "root_scale at 4": "unit"}
    assert (whole | budgets | first | rest).items() <= parameters.items()
    assert "rank at 4" not in parameters  # it has none
    assert "kl_bound at 0" not in parameters  # no layer has another than the default


def test_gains_times_and_figures_of_the_probe_are_metrics(directory: Path) -> None:
    metrics = logged(selection(), directory)[1].data.metrics
    expected = {
        "selection/gain": 2.25,
        "selection/step_ratio": 1.5,
        "selection/step_ratio_measured": 1.6,
        "selection/seconds": 6.5,
        "selection/held_out_loss": 0.125,
        "selection/layers": 2.0,
        "layer/0/gain": 2.5,
        "layer/2/bytes": 0.0,
        "layer/4/effective_rank": 5.25,
        "layer/0/drift/40": 0.125,
        "layer/0/retained_gain/40": 0.625,
    }
    assert expected.items() <= metrics.items()
    assert "layer/2/output_gain" not in metrics


def test_files_are_artifacts(directory: Path) -> None:
    client, run = logged(selection(), directory)
    assert [each.path for each in client.list_artifacts(run.info.run_id)] == [
        "auto.yaml",
        "figures",
        "selection.html",
        "selection.json",
    ]
    assert [each.path for each in client.list_artifacts(run.info.run_id, "figures")] == ["figures/gain_and_price.png"]
    assert (directory.parent / "mlartifacts").is_dir()


def test_names_that_mlflow_refuses_and_numbers_that_it_lacks(directory: Path) -> None:
    record = renamed(selection(subject="my_moons:Moons", bound=math.inf), ("", "a[0], 'x'", "b*@=ä"))
    record = dataclasses.replace(record, rates=(dataclasses.replace(record.rates[0], loss=math.nan),))
    client, run = logged(record, directory)
    assert client.get_experiment(run.info.experiment_id).name == "my_moons:Moons"
    metrics, parameters = run.data.metrics, run.data.params
    assert metrics["layer/model/gain"] == 2.5
    assert parameters["rank at model"] == "8"
    assert len([name for name in parameters if name.startswith("granularity at ")]) == 3
    assert not {"selection/bound", "selection/held_out_loss"} & set(metrics)


def test_more_layers_than_mlflow_takes_at_once(directory: Path) -> None:
    record = selection(layers=tuple(choice(f"blocks.{n}") for n in range(120)))
    _, run = logged(record, directory)
    assert sum(name.startswith("relative_damping at ") for name in run.data.params) == 120
    assert sum(name.endswith("/gain") for name in run.data.metrics) == 121


def test_two_selections_are_two_runs(directory: Path) -> None:
    client, run = logged(selection(), directory)
    _, other = logged(selection(), directory)
    assert run.data.tags["sngd_tune.study_id"] != other.data.tags["sngd_tune.study_id"]
    assert len(client.search_runs([run.info.experiment_id], "tags.role = 'selection'")) == 2


def test_a_server_that_is_down_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match=r"http://ann:\*\*\*@127\.0\.0\.1:9: MLflow did not take a record"):
        log_selection(selection(), tmp_path / "auto", [], "http://ann:secret@127.0.0.1:9")
