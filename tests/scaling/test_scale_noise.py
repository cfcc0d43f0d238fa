"""A scaling study that measures the gradient noise scale, run to its end at toy size."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from sngd_tune.scale import run_scaling
from sngd_tune.tracking.client import default_tracking_uri
from sngd_tune.tracking.ledger import Ledger
from tests.scaling.scaled import config
from tests.studies import MOONS


@pytest.mark.slow
def test_the_noise_scale_goes_into_ledger_report_and_mlflow(tmp_path: Path, ray_session: None) -> None:
    study = config(
        workload=MOONS, axes={"batch_size": [25]}, epochs=3, seeds=2, noise={"batches": 16, "epochs": [1, 3]}
    )
    directory = tmp_path / "toy"
    assert run_scaling(study, directory).outcome == "completed"
    trials = Ledger.open(directory / "base").epochs_by_trial()
    assert len(trials) == 8
    for epochs in trials.values():
        assert [each.plain_noise_scale is not None for each in epochs] == [True, False, True]
    values = json.loads((directory / "scaling.json").read_text())
    assert [(each["method"], len(each["stages"])) for each in values["noise_scale"]] == [("sngd", 2), ("sgd", 2)]
    assert 'id="noise-scale"' in (directory / "scaling.html").read_text(encoding="utf-8")
    assert (directory / "figures" / "noise_scale.png").is_file()
    client = MlflowClient(default_tracking_uri(directory))
    (experiment,) = [each for each in client.search_experiments() if each.name == "toy"]
    runs = {run.info.run_name: run.data.metrics for run in client.search_runs([experiment.experiment_id])}
    points = {point["name"]: point["measures"] for point in values["points"]}
    told = {name: measures["noise_scale"] for name, measures in points.items() if measures["noise_scale"] is not None}
    assert told
    assert {name: runs[name]["noise_scale"] for name in told} == pytest.approx(told)
