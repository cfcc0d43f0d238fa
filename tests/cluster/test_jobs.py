"""Jobs of a real cluster with a token, through its dashboard."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sngd_tune.cluster.dashboard import check_reachable, dashboard_address
from sngd_tune.cluster.jobs import packed
from sngd_tune.errors import ConfigurationError
from sngd_tune.tracking.directory import holder
from sngd_tune.tracking.ledger import Ledger
from tests.cluster.heads import Head
from tests.commands import invoke
from tests.studies import epochs, outcomes

slow = [pytest.mark.slow, pytest.mark.timeout(280)]


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def _finished(directory: Path) -> int:
    present = (directory / "study.json").exists()
    return sum(record.outcome.finished for record in Ledger.open(directory).trials()) if present else 0


class TestOnACluster:
    pytestmark = slow

    def test_a_study_is_submitted_stopped_and_submitted_again(self, head: Head, user: Path, tmp_path: Path) -> None:
        directory = tmp_path / "runs" / "mine"

        def jobs(*arguments: str) -> Any:
            done = head.call(user, "jobs", *arguments, "--address", head.dashboard, "--format", "json")
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        def submit(*options: str) -> Any:
            return head.call(
                user, "submit", "mine.yaml", "--address", head.dashboard, "--dir", str(directory), *options
            )

        done = submit("--set", "search.trials=10")
        assert done.returncode == 0, done.stderr
        job = done.stdout.strip()
        assert job.startswith("mine-")
        assert len(done.stderr.splitlines()) == 1, "Ray says a word"
        _until(lambda: _finished(directory) >= 1, "no trial of the job finished")
        assert jobs("status", job)["status"] == "RUNNING"

        assert head.call(user, "jobs", "stop", job, "--address", head.dashboard).returncode == 0
        _until(lambda: jobs("status", job)["status"] == "STOPPED", "the job did not stop")
        before = {record.trial: record for record in Ledger.open(directory).trials() if record.outcome.finished}
        assert set(outcomes(Ledger.open(directory)).values()) <= {"completed", "interrupted"}, (
            "its ledger was left open"
        )
        assert len(before) < 10
        assert holder(directory) is None
        logs = head.call(user, "jobs", "logs", job, "--address", head.dashboard).stdout
        assert "interrupted; `sngd-tune resume" in logs

        again = submit("--set", "search.trials=10", "--follow")
        assert again.returncode == 0, again.stdout + again.stderr
        assert f"study mine goes on in {directory}" in again.stdout
        after = {record.trial: record for record in Ledger.open(directory).trials()}
        assert all(after[name] == record for name, record in before.items()), "a finished trial was run again"
        assert len(after) == 10
        assert all(epochs(Ledger.open(directory), name) == [1, 2, 3] for name in after)
        rows = jobs("list")["rows"]
        assert [(row["status"], row["exit_code"]) for row in rows[:2]] == [("SUCCEEDED", 0), ("STOPPED", None)]

    def test_a_stranger_is_told_how_to_get_in(self, head: Head, user: Path) -> None:
        done = head.call(user, "jobs", "list", "--address", head.dashboard, RAY_AUTH_MODE="disabled")
        assert done.returncode == 2
        assert "does not let us in; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE" in done.stderr
        unknown = head.call(user, "jobs", "stop", "mine-1", "--address", head.dashboard)
        assert unknown.returncode == 2
        assert "mine-1 does not exist" in unknown.stderr


@pytest.fixture
def in_folder(user: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(user)
    return user


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), r"--dir (none): would be lost with the job's own folder on the head; name a --storage"),
        (("--dir", "runs/mine"), "--dir runs/mine: would be lost"),
        (("--storage", "s3://runs", "--tracking-uri", "http://ann:s3cret@mlflow"), "the study has a password in a URI"),
        (("--storage", "s3://runs", "--set", "search.trials=0"), "search.trials: "),
        (
            ("--storage", "s3://runs", "--address", "10.0.0.1:6379"),
            "must be the dashboard of a cluster, such as http://",
        ),
        (("--storage", "s3://runs", "--address", "http://127.0.0.1:9"), "no dashboard answers"),
    ],
)
def test_what_cannot_become_a_job_is_refused_here(in_folder: Path, options: tuple[str, ...], message: str) -> None:
    code, out, err = invoke("submit", "mine.yaml", *options)
    assert (code, out) == (2, "")
    assert message in err
    assert "s3cret" not in err


def test_a_study_file_travels_with_its_module(in_folder: Path, tmp_path: Path) -> None:
    with packed(Path("mine.yaml"), True, None) as (folder, name):
        assert (folder, name) == (in_folder, "mine.yaml")
    with packed(Path("mine.yaml"), False, None) as (folder, name):
        assert [path.name for path in folder.iterdir()] == [name] == ["mine.yaml"]
    with pytest.raises(ConfigurationError, match=r"lies outside .*, which travels"):  # noqa: SIM117
        with packed(tmp_path / "else.yaml", True, None):
            pass


def test_the_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    assert dashboard_address(None) == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:8265/")
    assert dashboard_address(None) == "http://head:8265"
    assert dashboard_address("https://other") == "https://other"


def test_a_way_that_is_open_to_others_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The machine's own name leads to a listener as one on another machine would."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        check_reachable(f"http://127.0.0.1:{port}")
        assert caplog.messages == []
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        check_reachable(f"http://0.0.0.0:{port}")
        assert [message.partition(": ")[2] for message in caplog.messages] == [
            "is not encrypted; reach the dashboard through a tunnel (ssh -L, kubectl port-forward)"
        ]
        monkeypatch.delenv("RAY_AUTH_MODE")
        check_reachable(f"http://0.0.0.0:{port}")
        assert "without tokens all who reach it run code there" in caplog.messages[-1]


def test_without_rays_job_api_the_extra_is_named(in_folder: Path) -> None:
    """Ray says so itself where `requests` is missing, and fails to import where more is."""
    hidden = "import sys; sys.modules['ray.job_submission'] = None; from sngd_tune.cli import main; main()"
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", hidden, "jobs", "list", "--address", address],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "pip install 'sngd_tune[cluster]'" in done.stderr
