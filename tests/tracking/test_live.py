import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.tracking.ledger import Ledger
from sngd_tune.tracking.live import LiveMirror
from sngd_tune.tracking.mirror import SyncResult
from sngd_tune.tracking.sync import sync_study
from tests.tracking.runs import Runs, assert_mirrors
from tests.tracking.samples import ended, epoch, new_ledger, times, trial

Eventually = Callable[[Callable[[], bool]], None]


def play(ledger: Ledger, live: LiveMirror, record: TrialRecord, epochs: int = 3) -> float:
    """A trial as the callback plays it; the longest that a listener's method took (s)."""
    measured = [epoch(number) for number in range(1, epochs + 1)]
    at = times(record, measured)
    started = TrialRecord(**{**record.__dict__, "updated": record.started})
    running = [TrialRecord(**{**record.__dict__, "updated": time, "epochs": n + 1}) for n, time in enumerate(at)]
    ledger.write_trial(started)
    ledger.write_epochs(record, measured, at)
    last = ended(record, epochs=epochs)
    ledger.write_trial(last)
    calls = [
        lambda: live.trial_started(started),
        *(lambda r=r, m=m: live.epoch_finished(r, m) for r, m in zip(running, measured, strict=True)),
        lambda: live.trial_finished(last),
    ]
    return max(_seconds(call) for call in calls)


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def test_trials_arrive_while_the_study_runs(tmp_path: Path, runs_dir: Path, eventually: Eventually) -> None:
    ledger = new_ledger(tmp_path)
    live = LiveMirror(ledger)
    for number in range(4):
        play(ledger, live, trial(number))
    eventually(lambda: live.missed == 0)
    assert_mirrors(ledger)
    assert Runs(ledger).parent().info.status == "RUNNING"
    assert live.close() == 0
    assert Runs(ledger).parent().info.status == "FINISHED"
    assert sync_study(ledger.directory) == SyncResult(already=16)


def test_closing_at_once_loses_nothing(tmp_path: Path, runs_dir: Path) -> None:
    ledger = new_ledger(tmp_path)
    live = LiveMirror(ledger)
    for number in range(3):
        play(ledger, live, trial(number))
    assert live.close(timeout=30) == 0
    assert_mirrors(ledger)


def test_what_found_the_queue_full_is_replayed(
    tmp_path: Path, runs_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = new_ledger(tmp_path)
    live = LiveMirror(ledger, capacity=2)
    for number in range(5):
        play(ledger, live, trial(number))
    assert "queue is full" in caplog.text
    assert live.close(timeout=30) == 0
    assert_mirrors(ledger)


def test_no_server_at_the_start_costs_nothing_but_the_mirror(
    tmp_path: Path, runs_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = new_ledger(tmp_path)
    live = LiveMirror(ledger, f"http://ann:s3cret@127.0.0.1:{_free_port()}")
    play(ledger, live, trial())
    assert _seconds(lambda: live.close(timeout=10)) < 10
    assert live.missed == 6  # the study, a start, three epochs, an end
    assert len(caplog.records) == 1
    assert "s3cret" not in caplog.text
    assert sync_study(ledger.directory) == SyncResult(written=4)
    assert_mirrors(ledger)


def test_a_server_that_answers_nothing_holds_nobody_up(tmp_path: Path, runs_dir: Path) -> None:
    ledger = new_ledger(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        live = LiveMirror(ledger, f"http://127.0.0.1:{mute.getsockname()[1]}")
        durations = [play(ledger, live, trial(number)) for number in range(8)]
        assert sorted(durations)[4] < 1e-3
        assert _seconds(lambda: live.close(timeout=1)) < 1.5
    assert live.missed == 1 + 8 * 5
    sync_study(ledger.directory)
    assert_mirrors(ledger)


@pytest.mark.slow
def test_a_database_that_another_writer_holds_at_the_end_is_waited_for(
    tmp_path: Path, runs_dir: Path, eventually: Eventually
) -> None:
    ledger = new_ledger(tmp_path)
    live = LiveMirror(ledger)
    eventually(lambda: live.missed == 0)
    with closing(sqlite3.connect(runs_dir / "mlflow.db", isolation_level=None, check_same_thread=False)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        release = threading.Timer(7, lambda: writer.execute("ROLLBACK"))  # SQLite itself waits for 5 s
        release.start()
        play(ledger, live, trial())
        assert live.close(timeout=20) == 0
        release.join()
    assert_mirrors(ledger)


@pytest.mark.slow
def test_closing_waits_longer_while_mlflow_takes_records(tmp_path: Path, runs_dir: Path) -> None:
    ledger = new_ledger(tmp_path)
    live = LiveMirror(ledger)
    live.settle(timeout=60)
    for number in range(40):
        play(ledger, live, trial(number))
    assert live.close(timeout=0.5) == 0
    assert_mirrors(ledger)


def test_no_thread_keeps_the_process_alive(tmp_path: Path, runs_dir: Path) -> None:
    before = threading.enumerate()  # those of tests that left a dead server to its thread
    live = LiveMirror(new_ledger(tmp_path))
    (thread,) = [each for each in threading.enumerate() if each not in before and each.name == "sngd-tune-mlflow"]
    assert thread.daemon
    live.close()
    assert not thread.is_alive()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Server:
    """A real `mlflow server` on loopback."""

    def __init__(self, directory: Path) -> None:
        self.port = _free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._directory = directory
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self._directory}/mlflow.db", "--workers", "1"]
        command += ["--artifacts-destination", str(self._directory / "served")]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self._process = subprocess.Popen(
            command, env=environment, cwd=self._directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 90
        while not self._answers():
            assert self._process.poll() is None, "mlflow server ended"
            assert time.monotonic() < deadline, "mlflow server did not start within 90 s"
            time.sleep(0.2)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and all its children."""
        assert self._process is not None
        parent = psutil.Process(self._process.pid)
        for process in [*parent.children(recursive=True), parent]:
            process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGKILL)
            self._process.wait()

    def _answers(self) -> bool:
        from urllib.request import urlopen

        try:
            with urlopen(f"{self.uri}/health", timeout=1) as answer:
                return answer.status == 200
        except OSError:
            return False


@pytest.fixture
def server(runs_dir: Path) -> Iterator[Server]:
    server = Server(runs_dir)
    server.start()
    yield server
    server.kill()


@pytest.mark.slow
def test_a_server_killed_in_the_middle_gets_each_record_once(
    tmp_path: Path, server: Server, eventually: Eventually
) -> None:
    ledger = new_ledger(tmp_path)
    live = LiveMirror(ledger, server.uri)
    play(ledger, live, trial(0))
    eventually(lambda: live.missed == 0)
    play(ledger, live, trial(1))
    server.kill()  # in the middle of a write, or before it
    play(ledger, live, trial(2))
    assert _seconds(lambda: live.close(timeout=10)) < 10
    assert live.missed > 0
    server.start()
    sync_study(ledger.directory, server.uri)
    assert_mirrors(ledger, server.uri)
    assert sync_study(ledger.directory, server.uri) == SyncResult(already=12)


@pytest.mark.slow
def test_a_server_that_comes_back_catches_up_by_itself(tmp_path: Path, server: Server, eventually: Eventually) -> None:
    ledger = new_ledger(tmp_path)
    live = LiveMirror(ledger, server.uri)
    server.kill()
    play(ledger, live, trial(0))
    server.start()
    live.close(timeout=30)
    assert live.missed == 0
    assert_mirrors(ledger, server.uri)


@pytest.mark.slow
def test_a_hung_server_does_not_hang_the_end(tmp_path: Path, server: Server, eventually: Eventually) -> None:
    ledger = new_ledger(tmp_path)
    live = LiveMirror(ledger, server.uri)
    play(ledger, live, trial(0))
    eventually(lambda: live.missed == 0)
    server.signal(signal.SIGSTOP)
    assert play(ledger, live, trial(1)) < 0.05
    assert _seconds(lambda: live.close(timeout=2)) < 2.5
    assert live.missed > 0
    server.signal(signal.SIGCONT)
    sync_study(ledger.directory, server.uri)
    assert_mirrors(ledger, server.uri)
