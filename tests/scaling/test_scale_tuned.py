"""A scaling study in which a parameter is tuned anew along an axis, run to its end at toy size."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from sngd_tune.records.outcome import Outcome
from sngd_tune.scale import resume_scaling, run_scaling
from sngd_tune.tracking.client import default_tracking_uri
from sngd_tune.tracking.ledger import Ledger
from tests.scaling.scaled import config
from tests.studies import MOONS, Witness


@pytest.mark.slow
def test_candidates_are_trained_one_is_taken_and_one_that_diverges_has_answered(
    tmp_path: Path, ray_session: None
) -> None:
    study = config(
        workload=MOONS,
        methods={"sgd": {"optimizer": "sgd", "lr": 0.1}},
        axes={"batch_size": [25, 50]},
        tune={"lr": {"factors": [0.01, 1, 1e30], "axes": ["batch_size"]}},
        epochs=2,
    )
    directory = tmp_path / "toy"
    assert run_scaling(study, directory).outcome == "completed"
    records = {record.trial: record.outcome for record in Ledger.open(directory / "base").trials()}
    assert len(records) == 12  # two batch sizes, three rates, two seeds, and one run of Tune
    assert {name for name, outcome in records.items() if outcome is Outcome.DIVERGED} == {
        f"{place}lr=1e+29.sgd.{seed}" for place in ("", "batch_size=25,") for seed in range(2)
    }
    values = json.loads((directory / "scaling.json").read_text())
    assert [(each["value"], each["taken"]) for each in values["choices"]] == [
        (50, "base.sgd"),
        (25, "batch_size=25.sgd"),
    ]
    (curve,) = [each for each in values["curves"] if each["measure"] == "final_loss"]
    assert [(each["value"], len(each["seeds"])) for each in curve["points"]] == [(25, 2), (50, 2)]
    client = MlflowClient(default_tracking_uri(directory))
    (experiment,) = [each for each in client.search_experiments() if each.name == "toy"]
    tags = {run.info.run_name: run.data.tags for run in client.search_runs([experiment.experiment_id])}
    assert tags["base.sgd"]["taken"] == "batch_size"
    assert tags["lr=0.001.sgd"]["taken"] == "no"
    again = Witness()
    assert resume_scaling(directory, listeners=[again]).outcome == "completed"
    assert again.started == []
