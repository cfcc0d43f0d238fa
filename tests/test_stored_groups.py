"""Comparisons and scaling studies whose checkpoints and copy lie in a storage: they outlive the machine."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.storage import Place, open_place
from sngd_tune.tracking.continuation import viewed
from sngd_tune.tracking.lease import LEASE
from sngd_tune.tracking.ledger import Ledger
from tests.commands import invoke, running
from tests.s3 import S3Server
from tests.studies import FAULTS, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_SPACE = {"space": {"lr": {"low": 0.03, "high": 0.3, "log": True}}}
_COMMON = {"schema": 1, "name": "toy", "mlflow": {"enabled": False}}


def comparison(folder: Path) -> Path:
    """Two methods, a trial each, and the winners on one seed: four trainings of a second, in three runs of Tune."""
    for method in ("sgd", "adamw"):
        space = {"schema": 1, "method": method, "fixed": {"optimizer": method}, **_SPACE}
        (folder / f"{method}.yaml").write_text(yaml.safe_dump(space))
    target = {"metric": "validation_accuracy", "value": 0.6}
    budget = {"workload": f"{FAULTS}:Slow", "name": "slow", "seconds": 1.0, "epoch_examples": 200, "target": target}
    values = {
        **_COMMON,
        "candidate": "sgd",
        "methods": {"sgd": "sgd.yaml", "adamw": "adamw.yaml"},
        "workloads": [{**budget, "fixed": {"batch_size": 100}}],
        "search": {"trials": 1, "scheduler": {"name": "none"}},
        "confirm_seeds": 1,
    }
    return write(folder, values)


def scaling(folder: Path) -> Path:
    """Two points, two seeds each, one after the other."""
    values = {
        **_COMMON,
        "workload": f"{FAULTS}:Slow",
        "methods": {"sgd": {"optimizer": "sgd", "lr": 0.1}},
        "fixed": {"batch_size": 100},
        "axes": {"batch_size": [100, 200]},
        "epochs": 3,
        "seeds": 2,
    }
    return write(folder, values)


def write(folder: Path, values: dict[str, object]) -> Path:
    (folder / "toy.yaml").write_text(yaml.safe_dump(values))
    return folder / "toy.yaml"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Of a driver with a Ray of its own, whose folder has a short name, for sockets."""
    monkeypatch.chdir(ROOT)  # where workers look for the user's module
    ray = tempfile.mkdtemp(prefix="sg-", dir="/tmp")
    yield {**os.environ, "RAY_TMPDIR": ray}
    shutil.rmtree(ray, ignore_errors=True)


def records(run: str) -> dict[tuple[str, str], TrialRecord]:
    """Of all studies of a run."""
    with viewed(run) as directory:
        ledgers = [Ledger.open(path.parent) for path in sorted(directory.rglob("study.json"))]
        return {(record.study, record.trial): record for ledger in ledgers for record in ledger.trials()}


def kill_in_the_middle(driver: "subprocess.Popen[str]", place: Place) -> None:
    """As soon as its copy has a finished training."""
    deadline = time.monotonic() + 150
    while not any("-completed-" in name for name in place.names()):
        assert driver.poll() is None, driver.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    driver.kill()
    driver.wait()


@pytest.mark.parametrize("command", ["compare", "scale"])
def test_a_group_outlives_its_machine_and_repeats_no_finished_training(
    command: str, request: pytest.FixtureRequest, environment: dict[str, str], tmp_path: Path
) -> None:
    if command == "compare":
        server: S3Server = request.getfixturevalue("s3")
        file, storage = comparison(tmp_path), server.uri(tmp_path.name)
    else:
        file, storage = scaling(tmp_path), f"file://{tmp_path}/storage"
    place, lost, found = open_place(storage).below("toy"), tmp_path / "lost" / "toy", tmp_path / "found" / "toy"
    arguments = [command, file, "--dir", lost, "--storage", storage]
    program = [sys.executable, "-c", "from sngd_tune.cli import main; main()", *map(str, arguments)]
    with running(program, env=environment) as driver:
        kill_in_the_middle(driver, place)
    shutil.rmtree(lost)
    before = {name: record for name, record in records(place.uri).items() if record.outcome.finished}
    code, out, err = invoke("status", place.uri)
    assert code == 0, err
    assert f"abandoned by process {driver.pid} on" in out
    assert "last heard of" in out

    place.delete(LEASE)  # as if 45 s had passed: tests/tracking/test_lease.py waits for that
    request.getfixturevalue("ray_session")
    code, out, err = invoke("resume", place.uri, "--dir", found, "--format", "json")
    assert code == 0, err
    after = records(str(found))
    assert 0 < len(before) < len(after)
    assert all(after[name] == record for name, record in before.items()), "a finished training was run again"
    assert {str(record.outcome) for record in after.values()} == {"completed"}
    assert records(place.uri) == after
    assert not [name for name in place.names() if name.endswith(".pt")], "checkpoints have served"
    assert not list(found.rglob("checkpoints"))

    code, copy, err = invoke("report", place.uri, "--format", "json")
    assert code == 0, err
    assert json.loads(copy) == json.loads(out)
