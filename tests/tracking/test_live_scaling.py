"""A scaling study in MLflow while it runs."""

import dataclasses
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from sngd_tune.records.outcome import Outcome
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.scaling_check import check_scaling
from sngd_tune.tracking.client import default_tracking_uri
from sngd_tune.tracking.ledger import Ledger
from sngd_tune.tracking.live_scaling import LiveScaling
from sngd_tune.tracking.mirror import SyncResult
from sngd_tune.tracking.scaling import ScalingManifest
from sngd_tune.tracking.scaling_runs import Findings, ScalingMirror
from tests.scaling.scaled import config
from tests.studies import MOONS
from tests.tracking.samples import ended, epoch, times, trial

Eventually = Callable[[Callable[[], bool]], None]
NOTHING = Findings((), (), ())


def begun(directory: Path, **changes: Any) -> tuple[ScalingManifest, Ledger]:
    """A scaling study of two points on two seeds that has one variant."""
    methods = {"sngd": {"optimizer": "sngd", "lr": 0.1}}
    study = config(workload=MOONS, methods=methods, axes={"batch_size": [25, 50]}, **changes)
    manifest = check_scaling(study)
    (variant,) = manifest.variants
    manifest.write(directory)
    return manifest, Ledger.create(directory / variant.name, variant.study)


def train(ledger: Ledger, live: LiveScaling, point: str, seed: int, outcome: Outcome = Outcome.COMPLETED) -> None:
    """A training as the callback plays it."""
    record = trial(seed, trial=f"{point}.{seed}", candidate=point, phase="confirm")
    record = dataclasses.replace(record, study=ledger.config.name, workload=ledger.config.workload)
    measured = [epoch(n, system={"cpu_utilization_percentage": 10.0 * (seed + 1)}) for n in (1, 2)]
    ledger.write_trial(record)
    ledger.write_epochs(record, measured, times(record, measured))
    last: TrialRecord = ended(record, outcome, epochs=2)
    ledger.write_trial(last)
    live.trial_finished(last)


def runs(directory: Path) -> dict[str, Any]:
    client = MlflowClient(default_tracking_uri(directory))
    found = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}


def test_a_point_appears_as_soon_as_all_its_trainings_have_ended(runs_dir: Path, eventually: Eventually) -> None:
    directory = runs_dir / "toy"
    manifest, ledger = begun(directory)
    live = LiveScaling(directory, manifest)
    train(ledger, live, "base.sngd", 0)
    train(ledger, live, "batch_size=25.sngd", 0)
    train(ledger, live, "base.sngd", 1)
    eventually(lambda: live.missed == 0)
    found = runs(directory)
    assert set(found) == {"toy", "base.sngd"}
    assert (found["toy"].info.status, found["base.sngd"].info.status) == ("RUNNING", "FINISHED")
    train(ledger, live, "batch_size=25.sngd", 1)
    assert live.close(NOTHING) == 0
    assert runs(directory)["toy"].info.status == "FINISHED"
    assert ScalingMirror(directory, manifest).reconcile(NOTHING) == SyncResult(already=2)


def test_what_the_nodes_did_is_a_series_of_the_trainings(runs_dir: Path, eventually: Eventually) -> None:
    directory = runs_dir / "toy"
    manifest, ledger = begun(directory)
    live = LiveScaling(directory, manifest)
    for seed in (0, 1):
        train(ledger, live, "base.sngd", seed)
    assert live.close(NOTHING) == 0
    client, run = MlflowClient(default_tracking_uri(directory)), runs(directory)["base.sngd"]
    ScalingMirror(directory, manifest).reconcile(NOTHING)  # again: no point twice
    history = client.get_metric_history(run.info.run_id, "system/cpu_utilization_percentage")
    assert [(each.step, each.value, each.timestamp) for each in history] == [(0, 10.0, 1_100_000), (1, 20.0, 1_101_000)]


def test_a_study_that_was_interrupted_goes_on_with_its_runs(runs_dir: Path) -> None:
    directory = runs_dir / "toy"
    manifest, ledger = begun(directory)
    first = LiveScaling(directory, manifest)
    train(ledger, first, "base.sngd", 0)
    assert first.close(NOTHING) == 0
    assert {name: run.info.status for name, run in runs(directory).items()} == {"toy": "KILLED"}
    second = LiveScaling(directory, manifest)
    train(ledger, second, "base.sngd", 1)
    assert second.close(NOTHING) == 0
    assert runs(directory)["base.sngd"].info.status == "FINISHED"


def test_a_dead_server_costs_nothing_but_the_mirror(runs_dir: Path) -> None:
    directory = runs_dir / "toy"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    manifest, ledger = begun(directory, mlflow={"tracking_uri": f"http://127.0.0.1:{port}"})
    live = LiveScaling(directory, manifest)
    for seed in (0, 1):
        train(ledger, live, "base.sngd", seed)
    assert live.close(NOTHING) == 3  # the study, a point, what was found
    uri = default_tracking_uri(directory)
    assert ScalingMirror(directory, manifest, uri).reconcile(NOTHING) == SyncResult(written=1)
