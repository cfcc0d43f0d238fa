import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sngd_tune.errors import ConfigurationError, StudyHeldError
from sngd_tune.tracking.directory import hold, holder

_HOLD = """
import sys, time
from sngd_tune.tracking.directory import hold
with hold(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_directory_is_made_held_and_released(tmp_path: Path) -> None:
    directory = tmp_path / "runs" / "digits"
    with hold(directory) as held:
        assert held == directory
        named = holder(directory)
        assert named is not None
        assert named["pid"] == os.getpid()
    assert holder(directory) is None
    with hold(directory):
        pass


def test_a_second_process_learns_who_holds_it_and_death_releases_it(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StudyHeldError, match=rf"held by process {other.pid} on "), hold(tmp_path):
            pass
        other.send_signal(signal.SIGKILL)
    with hold(tmp_path):
        named = holder(tmp_path)
        assert named is not None
        assert named["pid"] == os.getpid()


def test_the_same_process_cannot_hold_it_twice(tmp_path: Path) -> None:
    with hold(tmp_path):
        with pytest.raises(StudyHeldError, match=str(os.getpid())), hold(tmp_path):
            pass
        assert holder(tmp_path) is not None


def test_a_file_in_the_way_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="run directory"), hold(tmp_path / "file" / "digits"):
        pass


def test_an_unreadable_holder_is_nobody(tmp_path: Path) -> None:
    (tmp_path / ".holder.json").write_text("{")
    assert holder(tmp_path) is None
