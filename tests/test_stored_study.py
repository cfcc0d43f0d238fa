"""Whole studies whose checkpoints and copy lie in an object store: nothing is lost with the machine."""

import json
import shutil
import time
from pathlib import Path

import pytest

from sngd_tune.errors import ConfigurationError
from sngd_tune.launch import run_study
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.tracking.continuation import begun_study
from sngd_tune.tracking.ledger import Ledger
from tests.commands import invoke
from tests.s3 import S3Server
from tests.studies import FAULTS, ROOT, Interrupter, Witness, epochs, outcomes, study

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_session", "in_repository")]


@pytest.fixture(autouse=True)
def in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where workers look for the user's module."""
    monkeypatch.chdir(ROOT)


def test_a_study_outlives_its_run_directory(s3: S3Server, tmp_path: Path) -> None:
    config = study(
        storage=s3.uri(tmp_path.name), workload=f"{FAULTS}:Slow", search={"trials": 3, "checkpoint_seconds": 0}
    )
    place = s3.place(tmp_path.name, "mine")
    interrupted = run_study(config, tmp_path / "mine", listeners=[Interrupter()])
    assert (interrupted.outcome, interrupted.copy_missed) == ("interrupted", 0)
    before = {record.trial: record for record in Ledger.open(tmp_path / "mine").trials() if record.outcome.finished}
    assert len(before) < 3
    assert any(name.startswith("checkpoints/") for name in place.names()), "a trial in the middle keeps its checkpoint"
    assert not (tmp_path / "mine" / "checkpoints").exists()
    shutil.rmtree(tmp_path / "mine")

    directory = tmp_path / "elsewhere" / "mine"
    code, out, err = invoke("resume", place.uri, "--dir", directory, "--format", "json")
    assert code == 0, err
    assert json.loads(out)["outcome"] == "completed"
    ledger = Ledger.open(directory)
    after = {record.trial: record for record in ledger.trials()}
    assert all(after[name] == record for name, record in before.items()), "a finished trial was run again"
    assert set(outcomes(ledger).values()) == {"completed"}
    assert all(epochs(ledger, trial) == [1, 2, 3] for trial in ("0000", "0001", "0002"))
    kept = {name if "/" not in name else name.partition("/")[0] for name in place.names()}
    assert kept == {"study.json", "best.yaml", "report.html", "ledger", "figures"}, "checkpoints have served"
    assert begun_study(config, tmp_path / "third" / "mine") is not None  # whoever repeats the command finds it finished


class _Outage(Witness):
    """The store is away for a while once the first epoch is in."""

    def __init__(self, server: S3Server, seconds: float) -> None:
        super().__init__()
        self._server, self._seconds, self.happened = server, seconds, False

    def trial_finished(self, record: TrialRecord) -> None:
        super().trial_finished(record)
        if not self.happened:
            self.happened = True
            with self._server.away():
                time.sleep(self._seconds)


def test_a_store_that_is_away_in_the_middle_has_everything_at_the_end(s3: S3Server, tmp_path: Path) -> None:
    outage = _Outage(s3, 5.0)
    config = study(storage=s3.uri(tmp_path.name), search={"trials": 3})
    result = run_study(config, tmp_path / "mine", listeners=[outage])
    assert outage.happened
    assert result.copy_missed == 0
    there = {name for name in s3.place(tmp_path.name, "mine").names() if name.startswith("ledger/")}
    here = {path.relative_to(tmp_path / "mine").as_posix() for path in (tmp_path / "mine").glob("ledger/*/*")}
    assert there == here
    assert len(here) == 9


def test_a_name_that_is_taken_in_the_storage_is_refused_before_anything_starts(s3: S3Server, tmp_path: Path) -> None:
    config = study(storage=s3.uri(tmp_path.name), search={"trials": 1})
    run_study(config, tmp_path / "here" / "mine")
    with pytest.raises(ConfigurationError, match=r"mine.*: a study is there already"):
        run_study(config, tmp_path / "there" / "mine")
    assert not (tmp_path / "there" / "mine").exists()


def test_a_storage_that_is_not_there_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be used"):
        run_study(study(storage=str(tmp_path / "file")), tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
