"""One driver per study, on whichever machine."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sngd_tune.errors import ConfigurationError, StudyHeldError
from sngd_tune.storage import Place, open_place
from sngd_tune.tracking.lease import LEASE, LeaseWatch, hold_lease
from tests.s3 import S3Server
from tests.tracking.samples import epoch, trial

#: Seconds: a hundredth of the real ones, but for the object store, whose clock counts whole seconds.
_BEAT, _PATIENCE = 0.2, 1.5

_HOLD = f"""
import sys, time
from sngd_tune.storage import open_place
from sngd_tune.tracking.lease import hold_lease
with hold_lease(open_place(sys.argv[1]), {_BEAT}, {_PATIENCE}):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return open_place(tmp_path / "storage" / "mine")
    server: S3Server = request.getfixturevalue("s3")
    return server.place(tmp_path.name, "mine")


@pytest.fixture
def folder(tmp_path: Path) -> Place:
    return open_place(tmp_path / "storage" / "mine")


@pytest.fixture
def holder(place: Place) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the place."""
    process = subprocess.Popen([sys.executable, "-c", _HOLD, place.uri], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_place_is_held_and_released(place: Place) -> None:
    with hold_lease(place, _BEAT, _PATIENCE) as lease:
        assert lease is not None
        assert json.loads(place.read(LEASE))["pid"] == os.getpid()
    assert place.names() == []
    with hold_lease(place, _BEAT, _PATIENCE):
        pass


def test_a_live_holder_is_named_and_keeps_it(place: Place, holder: "subprocess.Popen[str]") -> None:
    with (
        pytest.raises(StudyHeldError, match=rf"held by process {holder.pid} on .*; wait for it"),
        hold_lease(place, _BEAT),
    ):
        pass
    assert holder.poll() is None
    assert json.loads(place.read(LEASE))["pid"] == holder.pid


def test_a_holder_that_was_killed_is_waited_for_and_replaced(place: Place, holder: "subprocess.Popen[str]") -> None:
    holder.kill()
    with hold_lease(place, _BEAT, _PATIENCE):
        assert json.loads(place.read(LEASE))["pid"] == os.getpid()


def test_a_holder_that_was_taken_for_dead_hears_of_it(folder: Place) -> None:
    process = subprocess.Popen([sys.executable, "-c", _HOLD, folder.uri], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGSTOP)
        with hold_lease(folder, _BEAT, _PATIENCE) as lease:
            process.send_signal(signal.SIGCONT)
            time.sleep(5 * _BEAT)  # it has found our name, and leaves it
            assert lease is not None
            assert not lease.lost
            assert json.loads(folder.read(LEASE))["pid"] == os.getpid()
    finally:
        process.kill()
        process.communicate()


def test_who_has_lost_it_interrupts_the_study_and_names_the_other(
    folder: Place, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    with hold_lease(folder, _BEAT, _PATIENCE) as lease:
        assert lease is not None
        watch = LeaseWatch(lease)
        watch.epoch_finished(trial(), epoch(1))
        lease.check()
        folder.write(LEASE, json.dumps({"id": "x", "host": "elsewhere", "pid": 7, "since": 0.0}).encode())
        eventually(lambda: lease.lost)
        with pytest.raises(KeyboardInterrupt):
            watch.epoch_finished(trial(), epoch(2))
        with pytest.raises(StudyHeldError, match="taken over by process 7 on elsewhere"):
            lease.check()
    assert json.loads(folder.read(LEASE))["pid"] == 7, "the other's lease was taken from it"


def test_a_clock_that_is_wrong_by_an_hour_decides_nothing(folder: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    with hold_lease(folder, _BEAT, _PATIENCE):
        monkeypatch.setattr(time, "time", lambda: now() + 3600)
        with pytest.raises(StudyHeldError), hold_lease(folder, _BEAT, _PATIENCE):
            pass


def test_a_storage_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigurationError, match=r"file/mine: cannot be used"),
        hold_lease(open_place(tmp_path / "file/mine")),
    ):
        pass


def test_without_a_storage_there_is_nothing_to_hold() -> None:
    with hold_lease(None) as lease:
        assert lease is None
