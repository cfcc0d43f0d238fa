"""Drivers in processes of their own that share a study in a real PostgreSQL, which carries MLflow's store as well."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import psutil
import psycopg
import pytest
import yaml
from optuna.trial import FrozenTrial

from sngd_tune.errors import ConfigurationError, StudyStorageError
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.search.stores import open_storage
from sngd_tune.tracking.ledger import Ledger
from tests.postgres import PASSWORD, Server
from tests.studies import MOONS, ROOT, Witness, outcomes, resume, run, study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

#: One trial at a time in each driver: there are two, and so are the cores. Each ends soon after the others.
STUDY = {
    "schema": 1,
    "name": "mine",
    "workload": "tests.examples.faults:Slow",
    "epochs": 3,
    "fixed": {"batch_size": 100},
    "space": {"lr": {"low": 0.01, "high": 0.2, "log": True}},
    "search": {"trials": 3, "scheduler": {"name": "none"}, "resources": {"cpus": 2}, "optuna": {"study": "ours"}},
    "confirm": {"seeds": 0},
}


class Drivers:
    """Runs the command with the stores in the environment, and keeps what it prints."""

    def __init__(self, folder: Path, ray: Path, optuna_url: str, mlflow_url: str) -> None:
        self._folder = folder
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "SNGD_TUNE_", "MLFLOW_"))
        }
        places = {"SNGD_TUNE_OPTUNA_STORAGE": optuna_url, "SNGD_TUNE_TRACKING_URI": mlflow_url}
        self._environment = {**kept, **places, "RAY_TMPDIR": str(ray), "HOME": str(folder)}
        self._environment |= {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
        self.printed = ""

    @contextmanager
    def started(self, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
        """A driver, which is killed where it has not ended."""
        process = subprocess.Popen(
            [sys.executable, "-c", "from sngd_tune.cli import main; main()", *arguments],
            cwd=self._folder, env=self._environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            self.printed += process.communicate()[0]


@pytest.fixture
def drivers(postgres: Server, tmp_path: Path) -> Iterator[Drivers]:
    ray = Path(tempfile.mkdtemp(prefix="sh-", dir="/tmp"))  # short, for Ray's sockets
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(STUDY))
    yield Drivers(tmp_path, ray, postgres.database("optuna"), postgres.database("mlflow"))
    assert not leaks(ray)
    shutil.rmtree(ray, ignore_errors=True)


def wait_until(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "it has ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.1)


def records(directory: Path) -> list[TrialRecord]:
    return Ledger.open(directory).trials() if (directory / "study.json").exists() else []


def stored(url: str, name: str) -> list[FrozenTrial]:
    with open_storage(url) as storage:
        return optuna.load_study(study_name=name, storage=storage).trials


def leaks(folder: Path) -> list[Path]:
    """Files that hold the password and that others than their owner may read."""
    secret = PASSWORD.encode()
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in files if secret in path.read_bytes() and path.stat().st_mode & 0o077]


def command_lines() -> str:
    """Of all processes of this machine."""
    found = []
    for process in psutil.process_iter():
        try:
            found += process.cmdline()
        except psutil.Error:
            continue
    return "\n".join(found)


def contents(url: str) -> str:
    """All rows of all tables of a database."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        return "\n".join(str(connection.execute(f'SELECT * FROM "{table}"'.encode()).fetchall()) for (table,) in tables)


def test_two_drivers_share_a_study_and_one_is_killed_and_resumed(
    drivers: Drivers, postgres: Server, tmp_path: Path
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    begun = [drivers.started("run", "mine.yaml", "--dir", name) for name in ("one", "other")]
    with begun[0] as killed, begun[1] as process:
        ended = [Outcome.COMPLETED, Outcome.RUNNING]
        wait_until(lambda: [record.outcome for record in records(one)][:2] == ended, killed)
        assert PASSWORD not in command_lines()
        killed.kill()
        killed.wait()
        assert process.wait(180) == 0
    with drivers.started("resume", "one") as process:
        assert process.wait(180) == 0

    assert [set(outcomes(Ledger.open(each)).values()) for each in (one, other)] == [{"completed"}] * 2
    ids = {Ledger.open(each).manifest.study_id: each for each in (one, other)}
    trials = stored(postgres.url("optuna"), "ours")
    told = Counter((ids[trial.user_attrs["sngd_tune.driver"]].name, trial.state.name) for trial in trials)
    lost = told.pop(("one", "FAIL"))
    assert told == {("one", "COMPLETE"): 3, ("other", "COMPLETE"): 3}
    assert 1 <= lost <= 2  # what ran, and what Tune had ready
    assert len({trial.params["lr"] for trial in trials if trial.state.name == "COMPLETE"}) == 6

    mlflow = contents(postgres.url("mlflow"))
    assert all(study_id in mlflow for study_id in ids)
    assert mlflow.count("validation_loss") >= 18  # six trials of three epochs
    assert PASSWORD not in mlflow + contents(postgres.url("optuna")) + drivers.printed
    assert not leaks(tmp_path)
    assert PASSWORD in (one / "study.json").read_text()  # of which none but the owner may read


class Stopper(Witness):
    """Stops the database when a trial has finished."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server

    def trial_finished(self, record: TrialRecord) -> None:
        super().trial_finished(record)
        self._server.stop()


@pytest.mark.usefixtures("ray_session")
def test_a_study_whose_database_stays_away_keeps_what_ran_and_goes_on_later(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sngd_tune.search.study_storage.PATIENCE", 1.0)
    url = postgres.database("leaving")
    search = {"trials": 6, "resources": {"cpus": 2}, "optuna": {"storage": url}}
    try:
        with pytest.raises(StudyStorageError, match="every trial is in the ledger") as raised:
            run(study(search=search), tmp_path / "run", [Stopper(postgres)])
        with pytest.raises(ConfigurationError, match=r"search\.optuna\.storage=.*: cannot be opened"):
            resume(tmp_path / "run")
    finally:
        postgres.start()
    assert PASSWORD not in str(raised.value)
    before = outcomes(Ledger.open(tmp_path / "run"))
    assert set(before.values()) == {"completed"}  # what ran came to its end
    assert 1 <= len(before) < 6
    _, ledger = resume(tmp_path / "run")
    assert set(outcomes(ledger).values()) == {"completed"}
    states = Counter(trial.state.name for trial in stored(url, f"small-{ledger.manifest.study_id}"))
    assert states["COMPLETE"] == 6
    assert states["RUNNING"] == 0


@pytest.mark.usefixtures("ray_session")
def test_each_proposal_is_trained_on_two_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    journal = f"journal:{tmp_path}/optuna.log"
    config = study(workload=MOONS, search={"trials": 2, "seeds": 2, "optuna": {"storage": journal}})
    result, ledger = run(config, tmp_path / "run")
    assert outcomes(ledger) == dict.fromkeys(("0000.0", "0000.1", "0001.0", "0001.1"), "completed")
    losses = {record.trial: record.objectives["validation_loss"] or 0.0 for record in ledger.trials()}
    means = [(losses[f"{name}.0"] + losses[f"{name}.1"]) / 2 for name in ("0000", "0001")]
    assert losses["0000.0"] != losses["0000.1"]
    assert result.best is not None
    assert result.best.objectives["validation_loss"] == pytest.approx(min(means))
    told = stored(journal, f"small-{ledger.manifest.study_id}")
    assert [trial.value for trial in told] == pytest.approx(means)
    assert "the mean of 2 seeds" in (tmp_path / "run" / "report.html").read_text()
