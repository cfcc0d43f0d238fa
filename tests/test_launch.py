"""Whole studies through Ray Tune, Optuna, the ledger and MLflow: nothing here is pretended."""

import gc
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from sngd_tune.errors import ConfigurationError, LedgerError, SchemaVersionError, StudyHeldError
from sngd_tune.launch import resume_study, run_study
from sngd_tune.recipe import usage
from sngd_tune.records.outcome import Outcome
from sngd_tune.search.searcher import StudySearcher
from sngd_tune.study_run import trial_config
from sngd_tune.tracking.directory import hold
from sngd_tune.tracking.ledger import Ledger
from sngd_tune.tracking.sync import sync_study
from sngd_tune.workloads.registry import find_workload
from tests.examples.faults import DIVERGES, RAISES, RUNS_OUT_OF_MEMORY
from tests.studies import (
    FAULTS,
    ROOT,
    Interrupter,
    Killer,
    WatchedSearcher,
    Witness,
    attempts,
    epochs,
    measured,
    outcomes,
    resume,
    run,
    study,
)
from tests.tracking.runs import Runs, assert_mirrors

pytestmark = [
    pytest.mark.usefixtures("ray_session", "in_repository"),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),  # MLflow under SQLAlchemy 2.1
]


@pytest.fixture(autouse=True)
def in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where workers look for the user's module."""
    monkeypatch.chdir(ROOT)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[optuna.Study]:
    """Optuna's studies, as launch made them."""
    monkeypatch.setattr(WatchedSearcher, "studies", [], raising=False)
    monkeypatch.setattr("sngd_tune.search.repeats.StudySearcher", WatchedSearcher)
    assert issubclass(WatchedSearcher, StudySearcher)
    return WatchedSearcher.studies


def states(studies: list[optuna.Study]) -> list[TrialState]:
    return [trial.state for trial in studies[-1].get_trials(deepcopy=False)]


def test_a_study_from_search_to_confirmed_result(tmp_path: Path, told: list[optuna.Study]) -> None:
    space = {
        "lr": {"low": 0.02, "high": 0.3, "log": True},
        "granularity": {"choices": ["diagonal", "block", "input"]},
        "block": {"choices": [16, 32], "when": {"granularity": "block"}},
    }
    config = study(
        workload="digits_mlp",
        name="digits",
        space=space,
        search={"trials": 6, "scheduler": {"name": "asha"}},
        confirm={"seeds": 2},
        mlflow={"enabled": True},
    )
    witness, directory = Witness(), tmp_path / "runs" / "first"
    result, ledger = run(config, directory, [witness])

    assert (result.outcome, result.mirror_missed, result.directory) == ("completed", 0, directory)
    found = outcomes(ledger)
    searched = [f"{number:04d}" for number in range(6)]
    confirmed = [f"confirm-{candidate}-{i}" for candidate in ("best", "default") for i in (0, 1)]
    assert sorted(found) == searched + confirmed
    assert {found[name] for name in searched} <= {"completed", "stopped_early"}
    assert {found[name] for name in confirmed} == {"completed"}
    for record in ledger.trials():
        assert epochs(ledger, record.trial) == list(range(1, record.epochs + 1))
        assert record.epochs == 3 or record.outcome is Outcome.STOPPED_EARLY
        assert (record.test_loss is not None) == (record.phase == "confirm")
        assert (record.attempt, record.error) == (0, None)
    assert len({record.seed for record in ledger.trials() if record.phase == "search"}) == 1
    assert len({record.seed for record in ledger.trials() if record.candidate == "best"}) == 2
    completed = [record for record in ledger.trials() if record.phase == "search" and record.epochs == 3]
    assert result.best is not None
    assert result.best.objectives["validation_loss"] == min(
        record.objectives["validation_loss"] or 0.0 for record in completed
    )

    assert set(states(told)) <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert states(told).count(TrialState.COMPLETE) == len(completed)
    assert [record.trial for record in witness.finished if record.phase == "search"] != []
    assert len(witness.finished) == len(witness.started) == 10
    assert sorted(witness.epochs) == sorted((name, epoch) for name in found for epoch in epochs(ledger, name))

    best = yaml.safe_load((directory / "best.yaml").read_text())
    assert best["sngd"]["lr"] == result.best.parameters["lr"]
    assert {path.name for path in (directory / "figures").iterdir()} >= {"best_so_far.png", "learning_curves.png"}
    assert not (directory / "tune").exists()

    assert_mirrors(ledger)
    runs = Runs(ledger)
    parent = runs.parent()
    assert parent.info.run_name == "digits first"
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["study/best_validation_loss"] == result.best.objectives["validation_loss"]
    assert {f"study/{each}_test_accuracy" for each in ("best", "default")} <= parent.data.metrics.keys()
    artifacts = {each.path for each in runs.client.list_artifacts(parent.info.run_id)}
    assert {"study.json", "best.yaml", "figures"} <= artifacts
    child = runs.trials()[result.best.trial]
    assert child.info.run_name.startswith(f"{result.best.trial} {result.best.parameters['granularity']}")
    assert child.data.params == {key: str(value) for key, value in result.best.parameters.items()}
    assert {"curves/training_loss", "layer/0/condition_number", "speed/refresh_seconds"} <= child.data.metrics.keys()


def test_what_fails_ends_as_such_and_the_search_goes_on(tmp_path: Path, told: list[optuna.Study]) -> None:
    sizes = [100, RAISES, RUNS_OUT_OF_MEMORY, DIVERGES, 100]
    config = study(
        workload=f"{FAULTS}:Faulty",
        fixed={"lr": 0.05},
        space={"batch_size": {"choices": sorted(set(sizes))}},
        start=[{"batch_size": size} for size in sizes],
        epochs=4,
        search={"trials": len(sizes), "resources": {"cpus": 2}},  # one process, so that each follows a failure
    )
    result, ledger = run(config, tmp_path / "faulty")
    assert outcomes(ledger) == {
        "0000": "completed",
        "0001": "error",
        "0002": "out_of_memory",
        "0003": "diverged",
        "0004": "completed",
    }
    assert states(told) == [TrialState.COMPLETE] + 3 * [TrialState.FAIL] + [TrialState.COMPLETE]
    records = {record.trial: record for record in ledger.trials()}
    assert "RuntimeError: the workload [of this test] raises in epoch 3" in str(records["0001"].error)
    assert "faults.py" in str(records["0001"].error)
    assert "MemoryError: no memory left for this test" in str(records["0002"].error)
    kept = {name: epochs(ledger, name) for name in records}
    assert kept["0000"] == kept["0004"] == [1, 2, 3, 4]
    assert kept["0001"] == kept["0002"] == [1, 2]
    assert kept["0003"][0] == 1  # whether epoch 2 has a result depends on who meets the NaN: loss or Fisher matrix
    assert {record.attempt for record in records.values()} == {0}  # none of them is retried: it would fail again
    assert result.best is not None
    assert result.best.trial == "0000"
    # The same settings before and after the failures, in one process: nothing was left behind.
    assert measured(ledger, "0000") == measured(ledger, "0004")


@pytest.mark.slow
def test_single_layers_are_searched_from_file_to_recipe(tmp_path: Path, told: list[optuna.Study]) -> None:
    space = {
        "granularity": {"choices": ["diagonal", "input"]},
        "granularity@4": {"choices": ["input", "kron"]},
        "rank@4": {"low": 2, "high": 8, "when": {"granularity@4": "input"}},
        "rank@[02]": {"low": 2, "high": 8, "when": {"granularity": "input"}},
    }
    config = study(
        workload="digits_mlp",
        name="layers",
        fixed={"batch_size": 100, "fisher_interval": 5, "fisher_interval@4": 10},
        space=space,
        start=[{"granularity": "input", "granularity@4": "kron", "rank@[02]": 4}, {"granularity@4": "input"}],
        search={"trials": 4},
        confirm={"seeds": 1},
        mlflow={"enabled": True},
    )
    result, ledger = run(config, tmp_path / "runs" / "layers")
    assert result.outcome == "completed"
    assert set(outcomes(ledger).values()) == {"completed"}
    assert states(told) == 4 * [TrialState.COMPLETE]
    assert ledger.config == config
    assert ledger.config.patterns == ("4", "[02]")
    first, second = (record.parameters for record in ledger.trials()[:2])
    assert list(first.items()) == [
        ("batch_size", 100), ("granularity", "input"), ("fisher_interval", 5),
        ("granularity@4", "kron"), ("fisher_interval@4", 10), ("rank@[02]", 4),
    ]  # fmt: skip
    assert 2 <= second["rank@4"] <= 8
    assert {"rank@4", "granularity@4"} & told[-1].best_trial.params.keys()

    assert result.best is not None
    trial = trial_config(result.best, config)
    best = yaml.safe_load((result.directory / "best.yaml").read_text())
    assert list(best["fisher"]) == list(trial.fisher or ()) != []
    assert best["fisher"]["4"]["fisher_interval"] == 10
    assert best["fisher"]["*"]["granularity"] == result.best.parameters["granularity"]
    names = {"model": find_workload("digits_mlp").model()}
    exec(usage(trial, result.directory / "best.yaml"), names)
    assert names["optimizer"].layers["4"].settings == trial.fisher["4"]
    assert names["optimizer"].layers["0"].settings == trial.fisher.get("[02]", trial.fisher["*"])

    assert_mirrors(ledger)
    assert Runs(ledger).trials()["0000"].data.params["rank at :of02:end"] == "4"
    assert "rank@[02]" in (result.directory / "report.html").read_text()
    assert resume(result.directory)[0].outcome == "completed"


@pytest.mark.slow
def test_a_killed_process_is_tried_again_from_its_last_checkpoint(tmp_path: Path) -> None:
    search = {"trials": 1, "checkpoint_seconds": 0, "resources": {"cpus": 2}}
    config = study(workload=f"{FAULTS}:Slow", epochs=6, search=search)
    killer = Killer(epoch=3, times=1)
    _, ledger = run(config, tmp_path / "killed", [killer])
    assert len(killer.killed) == 1
    assert outcomes(ledger) == {"0000": "completed"}
    assert epochs(ledger, "0000") == [1, 2, 3, 4, 5, 6]
    (record,) = ledger.trials()
    assert record.attempt == 1
    rows = attempts(ledger, "0000")
    again = [epoch for attempt, epoch in rows if attempt == 1]
    assert again[0] > 1, "it began again from the start"
    assert again[-1] == 6
    assert len(again) == 7 - again[0]

    # The trajectory is that of a trial which nobody killed.
    _, whole = run(config, tmp_path / "whole")
    for one, other in zip(measured(ledger, "0000"), measured(whole, "0000"), strict=True):
        drifts = {name for name in one.keys() | other.keys() if name.endswith("drift")}
        assert {k: v for k, v in one.items() if k not in drifts} == {k: v for k, v in other.items() if k not in drifts}


@pytest.mark.slow
def test_a_trial_that_dies_too_often_is_lost_and_the_search_goes_on(tmp_path: Path, told: list[optuna.Study]) -> None:
    search = {"trials": 2, "max_retries": 1, "resources": {"cpus": 2}}
    killer = Killer(epoch=1, times=2)
    _, ledger = run(study(workload=f"{FAULTS}:Slow", epochs=4, search=search), tmp_path / "lost", [killer])
    assert len(killer.killed) == 2
    assert outcomes(ledger) == {"0000": "lost", "0001": "completed"}
    assert states(told) == [TrialState.FAIL, TrialState.COMPLETE]
    assert ledger.trials()[0].attempt == 1


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Nothing is freed because the garbage collector happened to run."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.slow
@pytest.mark.usefixtures("no_collector")
def test_an_interrupted_study_goes_on_and_repeats_nothing(tmp_path: Path, told: list[optuna.Study]) -> None:
    directory = tmp_path / "interrupted"
    config = study(search={"trials": 5}, confirm={"seeds": 1}, workload=f"{FAULTS}:Slow", epochs=2)
    result, ledger = run(config, directory, [Interrupter()])
    assert result.outcome == "interrupted"
    assert TrialState.RUNNING not in states(told)
    before = {record.trial: record for record in ledger.trials()}
    done = {name for name, record in before.items() if record.outcome.finished}
    assert done
    assert {record.outcome for name, record in before.items() if name not in done} <= {Outcome.INTERRUPTED}
    assert len(before) < 5

    witness = Witness()
    result, ledger = resume(directory, [witness])
    assert result.outcome == "completed"
    assert TrialState.RUNNING not in states(told)
    assert not done & {record.trial for record in witness.started}
    after = {record.trial: record for record in ledger.trials()}
    assert [name for name in after if not name.startswith("confirm")] == [f"{number:04d}" for number in range(5)]
    assert all(after[name] == before[name] for name in done)
    assert set(outcomes(ledger).values()) == {"completed"}

    again = Witness()
    result, _ = resume(directory, [again])  # nothing is left to do
    assert (result.outcome, again.started) == ("completed", [])


@pytest.mark.slow
def test_a_time_limit_ends_the_search(tmp_path: Path, told: list[optuna.Study]) -> None:
    config = study(search={"trials": 500, "seconds": 15.0}, workload=f"{FAULTS}:Slow", epochs=1, confirm={"seeds": 1})
    result, ledger = run(config, tmp_path / "limited")
    assert result.outcome == "completed"
    found = outcomes(ledger)
    assert 0 < sum(name[0] == "0" for name in found) < 100
    assert {found["confirm-best-0"], found["confirm-default-0"]} == {"completed"}
    assert set(found.values()) <= {"completed", "stopped_early", "interrupted"}
    assert TrialState.RUNNING not in states(told)


@pytest.mark.slow
def test_two_objectives_give_a_front(tmp_path: Path, told: list[optuna.Study]) -> None:
    from sngd_tune.report.summary import study_report

    config = study(objectives=["validation_loss", "training_seconds"], search={"trials": 6, "scheduler": None})
    result, ledger = run(config, tmp_path / "two")
    assert result.outcome == "completed"
    assert states(told) == 6 * [TrialState.COMPLETE]
    assert all(len(trial.values) == 2 for trial in told[-1].trials)
    front = study_report(ledger.directory).pareto
    assert front
    for one in front:
        for other in ledger.trials():
            pairs = [(other.objectives[name] or 0.0, one.objectives[name] or 0.0) for name in config.objectives]
            assert not all(a < b for a, b in pairs)


@pytest.mark.slow
def test_a_study_in_which_every_trial_fails(tmp_path: Path, told: list[optuna.Study]) -> None:
    result, ledger = run(study(workload=f"{FAULTS}:AlwaysRaises", confirm={"seeds": 2}), tmp_path / "hopeless")
    assert (result.outcome, result.best) == ("partial", None)
    assert set(outcomes(ledger).values()) == {"error"}
    assert states(told) == 2 * [TrialState.FAIL]
    assert not (ledger.directory / "best.yaml").exists()


@pytest.mark.slow
def test_a_dead_mlflow_neither_fails_nor_slows_a_study_and_sync_replays_it(tmp_path: Path) -> None:
    config = study(mlflow={"enabled": True, "tracking_uri": "http://127.0.0.1:9"}, search={"trials": 4})
    started = time.monotonic()
    result, ledger = run(config, tmp_path / "runs" / "deaf")
    took = time.monotonic() - started
    assert result.outcome == "completed"
    assert set(outcomes(ledger).values()) == {"completed"}
    assert result.mirror_missed > 0
    started = time.monotonic()
    run(study(search={"trials": 4}), tmp_path / "without")
    assert took < time.monotonic() - started + 15

    store = f"sqlite:///{tmp_path}/mlflow.db"
    first = sync_study(ledger.directory, store)
    assert first.written == 4 * 3 + 4
    assert sync_study(ledger.directory, store).written == 0
    assert_mirrors(ledger, store)


def test_a_held_directory_is_refused_and_left_alone(tmp_path: Path) -> None:
    directory = tmp_path / "held"
    with hold(directory):
        before = sorted(directory.iterdir())
        with pytest.raises(StudyHeldError, match="held by process"):
            run_study(study(), directory)
        assert sorted(directory.iterdir()) == before


def test_a_directory_with_a_study_is_refused(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "there", study())
    before = (ledger.directory / "study.json").read_bytes()
    with pytest.raises(ConfigurationError, match="a study is there already; continue it with `sngd-tune resume"):
        run_study(study(), ledger.directory)
    assert (ledger.directory / "study.json").read_bytes() == before


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "old", study())
    manifest = ledger.directory / "study.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "ledger_version": 99}))
    before = manifest.read_bytes()
    with pytest.raises(SchemaVersionError, match="written with ledger version 99"):
        resume_study(ledger.directory)
    assert manifest.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": {"resources": {"cpus": 64}}}, r"search\.resources\.cpus=64: no node has more than 2 CPUs"),
        ({"search": {"resources": {"gpus": 1}}}, r"search\.resources\.gpus=1: no node has more than 0 GPUs"),
        ({"workload": "no_such_module:Mine"}, "importing no_such_module failed"),
        ({"fixed": {"granularity": "kron", "root": "eigh", "fisher": "exact"}}, "likelihood=None of workload Moons"),
        ({"fixed": {"rank@encoder.*": 4}}, r"Moons': 'encoder\.\*': matches no module; the modules are 0, 1"),
        ({"workload": "mnist_mlp"}, "needs a data directory"),
        ({"workload": "mnist_mlp", "data_dir": "/nowhere"}, "/nowhere/mnist/train.parquet: not found"),
    ],
)
def test_bad_input_leaves_no_directory(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run_study(study(**changes), tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    mount = shutil.which("mount")
    path = tmp_path / "disk"
    path.mkdir()
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(path)], capture_output=True, check=False
    )
    if not made or made.returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.slow
def test_a_full_disk_ends_the_study_with_earlier_trials_intact(tmp_path: Path, small_disk: Path) -> None:
    directory = tmp_path / "study"
    directory.mkdir()
    (directory / "ledger").symlink_to(small_disk)
    with pytest.raises(LedgerError, match=r"cannot be written \(No space left on device\); earlier trials are intact"):
        run_study(study(search={"trials": 500}), directory)
    ledger = Ledger.open(directory)
    finished = [record for record in ledger.trials() if record.outcome.finished]
    assert finished
    assert all(epochs(ledger, record.trial) == [1, 2, 3] for record in finished)
