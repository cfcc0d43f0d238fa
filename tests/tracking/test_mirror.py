import dataclasses
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.records.outcome import Outcome
from sngd_tune.redaction import redact
from sngd_tune.tracking.client import MirrorError, connect, default_tracking_uri
from sngd_tune.tracking.entries import MARK, epoch_metrics, parameters, run_name, run_status
from sngd_tune.tracking.ledger import Ledger
from sngd_tune.tracking.mirror import Mirror, SyncResult
from sngd_tune.tracking.sync import sync_study
from tests.tracking.runs import Runs, assert_mirrors
from tests.tracking.samples import ended, epoch, new_ledger, times, trial, write


@pytest.fixture
def ledger(tmp_path: Path, runs_dir: Path) -> Ledger:
    return new_ledger(tmp_path)


def _mirror(ledger: Ledger) -> Mirror:
    return Mirror(ledger.directory, ledger.manifest)


def test_a_study_is_shown_as_nested_runs(ledger: Ledger) -> None:
    write(ledger, trial(0))
    write(ledger, trial(1), outcome=Outcome.DIVERGED)
    assert sync_study(ledger.directory) == SyncResult(written=8)
    runs = Runs(ledger)
    parent, trials = runs.parent(), runs.trials()
    assert_mirrors(ledger)
    assert parent.info.run_name == "digits"
    assert parent.info.status == "FINISHED"
    assert parent.data.params["objectives"] == "validation_loss"
    assert parent.data.tags["trials.diverged"] == "1"
    assert trials["0000"].data.params == {"lr": "0.1", "granularity": "input"}
    tags = trials["0000"].data.tags
    expected = {"study": "digits", "workload": "digits_mlp", "granularity": "input", "optimizer": "sngd"}
    assert expected.items() <= tags.items()
    assert {"phase": "search", "outcome": "completed", "code_version": "0.1.0"}.items() <= tags.items()
    assert trials["0000"].data.metrics["layer/0/condition_number"] == 9.0
    assert trials["0000"].info.end_time == 1_100_000
    assert [trials[name].info.status for name in ("0000", "0001")] == ["FINISHED", "FAILED"]


def test_replaying_writes_nothing_twice(ledger: Ledger) -> None:
    write(ledger, trial(0))
    write(ledger, trial(1), epochs=2, outcome=Outcome.STOPPED_EARLY)
    assert sync_study(ledger.directory) == SyncResult(written=7)
    for _ in range(2):
        assert sync_study(ledger.directory) == SyncResult(already=7)
        assert_mirrors(ledger)


def test_every_call_may_be_repeated(ledger: Ledger) -> None:
    record, mirror = trial(), _mirror(ledger)
    assert mirror.ensure_parent() == mirror.ensure_parent()
    assert mirror.ensure_trial(record) == mirror.ensure_trial(record)
    assert [mirror.log_epoch(record, epoch(1), 1001.0) for _ in range(2)] == [True, False]
    assert [mirror.finish_trial(ended(record)) for _ in range(2)] == [True, False]
    assert Runs(ledger).steps("0000") == [1]


@pytest.mark.parametrize("done", range(6))
def test_a_crash_after_any_write_is_made_good(ledger: Ledger, done: int) -> None:
    record = trial()
    last = write(ledger, record)
    mirror = _mirror(ledger)
    measured = [epoch(number) for number in (1, 2, 3)]
    calls = [lambda: mirror.ensure_parent(), lambda: mirror.ensure_trial(record)]
    for metrics, time in zip(measured, times(record, measured), strict=True):
        calls.append(lambda metrics=metrics, time=time: mirror.log_epoch(record, metrics, time))
    for call in calls[:done]:
        call()
    sync_study(ledger.directory)
    assert_mirrors(ledger)
    assert Runs(ledger).trials()["0000"].info.end_time == last.ended * 1000


def test_a_write_that_lands_after_another_has_looked_is_not_doubled(ledger: Ledger) -> None:
    record, late, punctual = trial(), _mirror(ledger), _mirror(ledger)
    write(ledger, record, epochs=2)
    late.ensure_trial(record)
    assert punctual.log_epoch(record, epoch(2), 1001.0)  # it has looked now, and step 1 was not there
    assert late.log_epoch(record, epoch(1), 1000.5)  # this request had timed out, and lands
    assert punctual.log_epoch(record, epoch(1), 1000.5)  # believes that it writes
    sync_study(ledger.directory)
    assert_mirrors(ledger)


def test_a_run_that_was_created_twice_is_made_one(ledger: Ledger) -> None:
    record, mirror = trial(), _mirror(ledger)
    write(ledger, record)
    twin = _mirror(ledger)
    for each in (mirror, twin):
        each.ensure_parent()
    twin.ensure_trial(record)
    mirror.ensure_trial(record)
    mirror.log_epoch(record, epoch(1), 1000.5)
    sync_study(ledger.directory)
    assert_mirrors(ledger)


def test_a_repeated_attempt_adds_only_what_is_new(ledger: Ledger) -> None:
    record, mirror = trial(), _mirror(ledger)
    for number in (1, 2):
        mirror.log_epoch(record, epoch(number), 1000.0 + number)
    mirror.finish_trial(ended(record, Outcome.INTERRUPTED, epochs=2))
    assert Runs(ledger).trials()["0000"].info.status == "KILLED"
    again = trial(attempt=1, started=2000.0)
    mirror.ensure_trial(again)
    assert Runs(ledger).trials()["0000"].info.status == "RUNNING"
    for number in (2, 3):
        mirror.log_epoch(again, epoch(number, training_loss=7.0), 2000.0 + number)
    mirror.finish_trial(ended(again))
    assert Runs(ledger).steps("0000") == [1, 2, 3]
    assert Runs(ledger).trials()["0000"].data.tags["attempt"] == "1"


def test_a_confirmation_of_another_winner_gets_a_run_of_its_own(ledger: Ledger) -> None:
    write(ledger, trial(trial="confirm-best-0", phase="confirm", candidate="best"))
    sync_study(ledger.directory)
    again = trial(trial="confirm-best-0", phase="confirm", candidate="best", attempt=1, parameters={"lr": 0.5})
    write(ledger, again, epochs=2)
    assert sync_study(ledger.directory) == SyncResult(written=3)
    assert Runs(ledger).trials()["confirm-best-0"].data.params == {"lr": "0.5"}
    assert_mirrors(ledger)


def test_a_running_study_stays_open(ledger: Ledger) -> None:
    ledger.write_trial(trial())
    sync_study(ledger.directory)
    assert Runs(ledger).parent().info.status == "RUNNING"
    assert Runs(ledger).trials()["0000"].info.status == "RUNNING"


def test_the_parent_holds_configuration_best_settings_and_figures(tmp_path: Path, runs_dir: Path) -> None:
    ledger = new_ledger(tmp_path, mlflow={"tracking_uri": "http://ann:s3cret@127.0.0.1:9/"})
    (ledger.directory / "best.yaml").write_text("lr: 0.1\n")
    (ledger.directory / "report.html").write_text("<!DOCTYPE html>")
    (ledger.directory / "figures").mkdir()
    (ledger.directory / "figures" / "curves.png").write_bytes(b"png")
    sync_study(ledger.directory, default_tracking_uri(ledger.directory))
    stored = runs_dir / "mlartifacts" / Runs(ledger).parent().info.run_id / "artifacts"
    assert sorted(str(path.relative_to(stored)) for path in stored.rglob("*.*")) == [
        "best.yaml",
        "figures/curves.png",
        "report.html",
        "study.json",
    ]
    assert "s3cret" not in (stored / "study.json").read_text()
    assert "ann:***@" in (stored / "study.json").read_text()


def test_two_studies_share_a_store(tmp_path: Path, runs_dir: Path) -> None:
    one = new_ledger(tmp_path)
    other = Ledger.create(runs_dir / "digits-again", one.config)
    for ledger in (one, other):
        write(ledger, trial())
        sync_study(ledger.directory)
    for ledger in (one, other):
        assert_mirrors(ledger)


def test_what_is_not_finite_stays_out_of_mlflow() -> None:
    metrics = epoch(2, training_loss=math.nan, validation_loss=math.inf)
    values = epoch_metrics(metrics)
    assert all(math.isfinite(value) for value in values.values())
    assert "curves/validation_loss" not in values
    assert "test_loss" not in values
    assert list(values)[-1] == MARK


def test_energy_is_shown_with_its_source(ledger: Ledger) -> None:
    record, measured = trial(0), epoch(1, energy_joules=12.5, energy_source="estimate")
    ledger.write_trial(record)
    ledger.write_epochs(record, [measured], [record.started])
    ledger.write_trial(ended(record, epochs=1, energy_joules=12.5, energy_source="estimate"))
    sync_study(ledger.directory)
    shown = Runs(ledger).trials()["0000"].data
    assert shown.metrics["energy/joules"] == 12.5
    assert shown.tags["energy_source"] == "estimate"


def test_layer_names_are_made_fit_for_mlflow(ledger: Ledger) -> None:
    layers = tuple(dataclasses.replace(epoch(1).layers[0], layer=name) for name in ("", "blocks.0.mlp", "größe[0]"))
    assert _mirror(ledger).log_epoch(trial(), epoch(1, layers=layers), 1.0)
    names = Runs(ledger).trials()["0000"].data.metrics
    assert {"layer/model/damping", "layer/blocks.0.mlp/damping", "layer/gr__e_0_/damping"} <= names.keys()


def test_a_model_with_hundreds_of_layers_fits_mlflow_batches(ledger: Ledger) -> None:
    layers = tuple(dataclasses.replace(epoch(1).layers[0], layer=f"blocks.{index}") for index in range(300))
    metrics: EpochMetrics = epoch(1, layers=layers)
    assert len(epoch_metrics(metrics)) > 1000
    assert _mirror(ledger).log_epoch(trial(), metrics, 1.0)
    assert len(Runs(ledger).trials()["0000"].data.metrics) == len(epoch_metrics(metrics))


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Outcome.RUNNING, "RUNNING"),
        (Outcome.COMPLETED, "FINISHED"),
        (Outcome.STOPPED_EARLY, "FINISHED"),
        (Outcome.DIVERGED, "FAILED"),
        (Outcome.OUT_OF_MEMORY, "FAILED"),
        (Outcome.ERROR, "FAILED"),
        (Outcome.LOST, "FAILED"),
        (Outcome.INTERRUPTED, "KILLED"),
    ],
)
def test_outcomes_have_a_status(outcome: Outcome, status: str) -> None:
    assert run_status(outcome) == status


def test_parameters_of_single_layers_have_names_that_mlflow_takes(ledger: Ledger) -> None:
    write(ledger, trial(0, parameters={"rank": 4, "rank@encoder.*": 8, "decay@[!02]?": 0.5}))
    for _ in range(2):
        sync_study(ledger.directory)
    (run,) = Runs(ledger).trials().values()
    assert run.data.params == {"rank": "4", "rank at encoder.:any": "8", "decay at :of:not02:end:one": "0.5"}


names = st.tuples(st.sampled_from(["rank", "decay"]), st.text("an.02_-*?[]!", min_size=1, max_size=6))


@given(st.sets(names.map("@".join), max_size=20))
def test_no_two_parameters_of_single_layers_become_one(given: set[str]) -> None:
    assert len(parameters(dict.fromkeys(given, 1))) == len(given)


def test_a_deleted_experiment_is_named(ledger: Ledger) -> None:
    sync_study(ledger.directory)
    client = connect(default_tracking_uri(ledger.directory))
    client.delete_experiment(client.get_experiment_by_name("digits").experiment_id)
    with pytest.raises(ConfigurationError, match="experiment='digits': deleted"):
        sync_study(ledger.directory)


def test_a_dead_server_is_reported_soon_and_without_its_password(ledger: Ledger) -> None:
    with pytest.raises(MirrorError, match="refused") as raised:
        sync_study(ledger.directory, "http://ann:s3cret@127.0.0.1:9")
    assert raised.value.transient
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("postgresql+psycopg://ann:p:w@host/db", "postgresql+psycopg://ann:***@host/db"),
        ("see http://:token@host and https://a:b@c.", "see http://:***@host and https://a:***@c."),
        ("sqlite:////runs/mlflow.db", "sqlite:////runs/mlflow.db"),
        ('"http://a:p@ss@host/x"', '"http://a:***@host/x"'),
        ("mysql://host/db?user=a&Password=b&x=1", "mysql://host/db?user=a&Password=***&x=1"),
    ],
)
def test_passwords_are_redacted(url: str, shown: str) -> None:
    assert redact(url) == shown


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"optimizer": "adamw"}, "0007 adamw"),
        ({"base": "adamw", "granularity": "block", "block": 32}, "0007 block32+adamw"),
        ({"granularity": "input", "root": "nystrom", "rank": 4}, "0007 rank4+sgd"),
        ({"granularity": "input", "root": "eigh"}, "0007 input+sgd"),
        ({}, "0007 input+sgd"),
    ],
)
def test_a_run_is_named_after_what_tells_it_apart(parameters: dict[str, object], name: str) -> None:
    assert run_name(trial(7, parameters=parameters)) == name
    assert run_name(trial(7, trial="confirm-best-0", phase="confirm", parameters=parameters)) == "confirm-best-0"


def test_the_parent_shows_the_best_and_the_confirmed(ledger: Ledger) -> None:
    write(ledger, trial(0))
    for number, (loss, accuracy) in enumerate([(0.25, 0.75), (0.75, 0.25)]):
        confirmed = trial(number, trial=f"confirm-best-{number}", phase="confirm", candidate="best")
        ledger.write_trial(ended(confirmed, test_loss=loss, test_accuracy=accuracy))
    ledger.write_trial(ended(trial(1), objectives={"validation_loss": 0.125}))
    ledger.write_trial(ended(trial(2), Outcome.DIVERGED, objectives={"validation_loss": 0.0}))
    for _ in range(2):
        sync_study(ledger.directory)
    runs = Runs(ledger)
    parent = runs.parent()
    assert parent.data.metrics == {
        "study/best_validation_loss": 0.125,
        "study/best_test_loss": 0.5,
        "study/best_test_accuracy": 0.5,
    }
    history = runs.client.get_metric_history(parent.info.run_id, "study/best_validation_loss")
    assert len(history) == 1
    assert "trials.lost" not in parent.data.tags
    assert "minimize" in parent.data.tags["mlflow.note.content"]
    experiment = runs.client.get_experiment(parent.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
