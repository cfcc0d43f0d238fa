"""Scaling studies run to their end, at toy size."""

import json
import re
from pathlib import Path

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from sngd_tune.cli import app
from sngd_tune.errors import ConfigurationError
from sngd_tune.mlflow_ui import ui_store
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.scale import resume_scaling, run_scaling
from sngd_tune.scaling.curves import Curves
from sngd_tune.scaling_results import scaling_report, sync_scaling
from sngd_tune.tracking.client import default_tracking_uri
from sngd_tune.tracking.ledger import Ledger
from sngd_tune.tracking.scaling import ScalingManifest
from sngd_tune.tracking.trainings import trainings
from tests.scaling.scaled import config
from tests.studies import MOONS, Witness

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    """Widths of which one does not fit, and intervals."""
    directory = tmp_path_factory.mktemp("scaling") / "toy"
    axes = {"width": [16, 64, 4096], "fisher_interval": [5, 10, 50]}
    result = run_scaling(config(axes=axes, epochs=2, seeds=1, memory_gb=0.05), directory)
    assert (result.outcome, result.mirror_missed) == ("partial", 0)
    return directory


@pytest.mark.slow
def test_every_point_is_an_ordinary_trial_of_an_ordinary_run_directory(finished: Path) -> None:
    base, small = Ledger.open(finished / "base"), Ledger.open(finished / "width-16")
    assert {record.trial for record in base.trials()} == {
        *("base.sngd.0", "base.sgd.0", "fisher_interval=5.sngd.0", "fisher_interval=10.sngd.0")
    }
    assert small.config.workload == "digits_mlp?width=16"
    assert all(record.outcome is Outcome.COMPLETED for record in (*base.trials(), *small.trials()))
    seeds = {record.seed for ledger in (base, small) for record in ledger.trials()}
    assert len(seeds) == 1  # the same for all points


@pytest.mark.slow
def test_a_point_that_does_not_fit_is_predicted_and_skipped_with_the_reason(finished: Path) -> None:
    records = Ledger.open(finished / "width-4096").trials()
    assert {record.outcome for record in records} == {Outcome.OUT_OF_MEMORY}
    assert all("predicted: 0." in (record.error or "") and record.epochs == 0 for record in records)
    report = scaling_report(finished)
    assert {each.trial for each in report.missing} == {"width=4096.sngd.0", "width=4096.sgd.0"}
    assert "it was not tried" in (finished / "scaling.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_result_is_written_as_json_fits_page_and_figures(finished: Path) -> None:
    values = json.loads((finished / "scaling.json").read_text())
    assert values["axes"] == ["width", "fisher_interval"]
    (point,) = [each for each in values["points"] if each["name"] == "width=16.sngd"]
    assert point["measures"]["step_seconds"] > point["measures"]["refresh_seconds"] > 0
    found = Curves.read(finished / "fits.json").find("fisher_interval", "step_seconds", "sngd")
    assert found is not None
    assert {"width.png", "fisher_interval.png"} <= {path.name for path in (finished / "figures").iterdir()}


@pytest.mark.slow
def test_mlflow_has_a_parent_with_the_curves_above_a_run_for_each_point(finished: Path) -> None:
    client = MlflowClient(default_tracking_uri(finished))
    (experiment,) = [each for each in client.search_experiments() if each.name == "toy"]
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    parent = runs.pop("toy")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    small, large = runs["width=16.sngd"], runs["width=4096.sngd"]
    assert (small.data.params["width"], small.info.status, large.info.status) == ("16", "FINISHED", "FAILED")
    assert small.data.metrics["step_seconds"] > 0
    history = client.get_metric_history(parent.info.run_id, "width/step_seconds/sngd")
    assert [metric.step for metric in history] == [16, 64]
    assert {"scaling.html", "fits.json"} <= {each.path for each in client.list_artifacts(parent.info.run_id)}
    assert sync_scaling(finished).written == 0
    assert len(client.get_metric_history(parent.info.run_id, "width/step_seconds/sngd")) == 2


@pytest.mark.slow
def test_mlflow_has_what_the_page_on_it_names(finished: Path) -> None:
    page = (ROOT / "docs" / "mlflow.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^]]+\]\((images/\w+\.png)\)", page)
    assert {f"images/{path.name}" for path in (ROOT / "docs" / "images").iterdir()} == set(pictures)
    client = MlflowClient(ui_store(finished, finished.parent, None))
    (experiment,) = [each for each in client.search_experiments() if each.name == "toy"]
    (parent,) = client.search_runs([experiment.experiment_id], "tags.role = 'scaling'")
    base = "tags.role = 'point' and tags.axis = 'base'"
    (point,) = client.search_runs([experiment.experiment_id], f"{base} and params.method = 'sngd'")
    metrics = {"step_seconds", "final_loss", "peak_memory_bytes", "system/cpu_utilization_percentage"}
    artifacts = {"scaling.html", "fits.json", "scaling.json", "figures"}
    assert metrics <= set(point.data.metrics)
    assert {"method", "width", "batch_size"} <= set(point.data.params)
    assert {"width/step_seconds/sngd"} <= set(parent.data.metrics)
    assert artifacts <= {each.path for each in client.list_artifacts(parent.info.run_id)}
    for name in (*metrics, *artifacts, "method", "width", "batch_size", "tags.role = 'point'", "tags.axis = 'base'"):
        assert f"`{name}" in page
    assert "width/communication_seconds/sngd" not in parent.data.metrics  # zero all along the axis


@pytest.mark.slow
def test_the_command_line_reads_a_scaling_study(finished: Path) -> None:
    def invoke(*arguments: object) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.stderr
        return result.stdout

    assert "8 of 8 trainings finished, not running" in invoke("status", finished)
    assert json.loads(invoke("report", finished, "--format", "json"))["name"] == "toy"
    invoke("report", finished, "--file", finished / "again.html")
    assert "Along width" in (finished / "again.html").read_text(encoding="utf-8")
    invoke("report", finished / "base", "--file", finished / "base.html")  # its parts are ordinary studies


class Stopper(Witness):
    """Presses Ctrl-C when three trials have finished."""

    def trial_finished(self, record: TrialRecord) -> None:
        super().trial_finished(record)
        if len(self.finished) == 3:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_an_interrupted_study_repeats_no_finished_trial(tmp_path: Path, ray_session: None) -> None:
    first, second, directory = Stopper(), Witness(), tmp_path / "toy"
    study = config(workload=MOONS, axes={"batch_size": [25, 50]}, epochs=2, mlflow={"enabled": False})
    assert run_scaling(study, directory, listeners=[first]).outcome == "interrupted"
    assert resume_scaling(directory, listeners=[second]).outcome == "completed"
    done = {each.trial for each in first.finished if each.outcome.finished}
    assert not done & {each.trial for each in second.started}
    found = {each.record.trial for each in trainings(directory, ScalingManifest.read(directory)) if each.complete}
    assert len(found) == 8
    with pytest.raises(ConfigurationError, match="a scaling study is there already"):
        run_scaling(study, directory)
