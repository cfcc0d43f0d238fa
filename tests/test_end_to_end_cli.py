"""The real command in a process of its own, with a Ray of its own: signals, exit codes, what goes to which stream."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.tracking.ledger import Ledger
from tests.commands import running
from tests.studies import epochs, outcomes
from tests.users import write_user_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_user_folder(tmp_path, trials=5, confirm_seeds=1)
    return tmp_path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from sngd_tune.cli import main; main()", *arguments]


def environment(folder: Path) -> dict[str, str]:
    """A home of its own, for Ray's token; none of the developer's variables, and no other test's Ray."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "SNGD_TUNE_", "MLFLOW_"))}
    return {**kept, "HOME": str(folder), "PYTHONWARNINGS": "default"}


def finish(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(*arguments), cwd=folder, env=environment(folder), capture_output=True, text=True, check=False
    )


def started(folder: Path, *arguments: str) -> "AbstractContextManager[subprocess.Popen[str]]":
    return running(command(*arguments), cwd=folder, env=environment(folder))


def wait_for_trials(directory: Path, count: int) -> dict[str, TrialRecord]:
    """Until so many trials have finished; the finished ones."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (directory / "study.json").exists():
            found = {record.trial: record for record in Ledger.open(directory).trials() if record.outcome.finished}
            if len(found) >= count:
                return found
        time.sleep(0.1)
    raise AssertionError(f"{count} trials did not finish")


def assert_resumed(directory: Path, before: dict[str, TrialRecord]) -> None:
    ledger = Ledger.open(directory)
    after = {record.trial: record for record in ledger.trials()}
    assert all(after[name] == record for name, record in before.items()), "a finished trial was run again"
    expected = [f"{number:04d}" for number in range(5)] + ["confirm-best-0", "confirm-default-0"]
    assert sorted(after) == expected
    assert set(outcomes(ledger).values()) == {"completed"}
    assert all(epochs(ledger, name) == [1, 2, 3] for name in after)
    assert (directory / "best.yaml").exists()


def test_a_users_own_workload_from_his_own_folder(folder: Path) -> None:
    done = finish(folder, "run", "mine.yaml", "--set", "search.trials=2", "--dir", "out", "--format", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)  # nothing but data on standard output
    assert (found["outcome"], found["outcomes"]) == ("completed", {"completed": 2})
    assert len(found["confirmations"]) == 2
    lines = done.stderr.splitlines()
    assert lines[0] == "study mine in out"
    assert sum(line.split("  ")[0] in {f"{i}/4" for i in range(1, 5)} for line in lines) == 4
    assert len(lines) <= 6, done.stderr  # neither Ray nor Tune nor torch says a word
    token = folder / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o077 == 0
    assert not (folder / "mlflow.db").exists()

    status = finish(folder, "status", "out")
    assert status.stdout.startswith("mine: 4 of 4 trials finished, not running\n4 completed\n")
    assert (status.returncode, status.stderr) == (0, "")


def test_ctrl_c_then_resume(folder: Path) -> None:
    directory = folder / "out"
    with started(folder, "run", "mine.yaml", "--dir", "out") as process:
        before = wait_for_trials(directory, 1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
    assert err.splitlines()[-1].startswith("interrupted; `sngd-tune resume ")
    assert "Traceback" not in err
    ledger = Ledger.open(directory)
    assert set(outcomes(ledger).values()) <= {"completed", "interrupted"}
    before = {record.trial: record for record in ledger.trials() if record.outcome.finished}
    assert before
    assert len(ledger.trials()) < 7

    shutil.rmtree(directory / "checkpoints")  # the ledger is enough
    done = finish(folder, "resume", "out")
    assert done.returncode == 0, done.stderr
    assert_resumed(directory, before)


def test_a_study_that_fails_altogether_ends_with_1(folder: Path) -> None:
    with (folder / "my_moons.py").open("a") as file:
        file.write(
            "\n\nclass Broken(Moons):\n    def loss(self, outputs, targets):\n        raise ValueError('bad loss')\n"
        )
    done = finish(folder, "run", "mine.yaml", "--set", "workload=my_moons:Broken", "--set", "search.trials=2")
    assert done.returncode == 1
    assert "no trial completed" in done.stderr
    assert "ValueError: bad loss" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_workload_that_is_not_there_ends_with_2_at_once(folder: Path) -> None:
    begun = time.monotonic()
    done = finish(folder, "run", "mine.yaml", "--set", "workload=my_moons:Moon", "--dir", "out")
    assert done.returncode == 2
    assert "my_moons has no 'Moon'; did you mean 'Moons'?" in done.stderr
    assert not (folder / "out").exists()
    assert time.monotonic() - begun < 30
