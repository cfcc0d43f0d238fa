"""`cluster/local` as the tests use it: nodes that can be broken, and are replaced; the command line, run on them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest

from tests.commands import running
from tests.studies import ROOT, trial_processes

__all__ = ["SNGD_TUNE", "Nodes", "environment", "lives", "until"]

_SCRIPT = ROOT / "cluster" / "local" / "cluster.py"
SNGD_TUNE = (sys.executable, "-c", "from sngd_tune.cli import main; main()")

_FOREIGN = ("RAY_", "SNGD_TUNE_", "MLFLOW_")

#: A dead node is noticed after some 8 s instead of 30, a dead head after 5 s instead of 60.
_PATIENCE = {
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1500",
    "RAY_health_check_failure_threshold": "4",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
}


def environment() -> dict[str, str]:
    """None of the developer's variables, and no other test's Ray."""
    kept = {name: value for name, value in os.environ.items() if name == "RAY_TMPDIR" or not name.startswith(_FOREIGN)}
    return {**kept, **_PATIENCE}


class Nodes:
    """A cluster of a head and some nodes of one CPU each, on this machine.

    Args:
        directory: of the cluster.
        count: nodes beside the head, while none is broken.
    """

    def __init__(self, directory: Path, count: int) -> None:
        self._directory, self._count = directory, count
        self._given_up: set[str] = set()  # by the head; their processes see it, and end, some time after they are back

    def up(self, *options: str) -> None:
        self.script("up", "--nodes", str(self._count), *options)

    def down(self) -> None:
        self.script("down")

    def heal(self) -> None:
        """As many nodes as at first: dead ones are buried and replaced; so is the whole cluster without a head."""
        nodes = self.nodes
        dead = [name for name, node in nodes.items() if not psutil.pid_exists(node["pid"]) or name in self._given_up]
        self._given_up.clear()
        if "head" not in nodes or "head" in dead:
            self.down()
            self.up()
            return
        for name in dead:
            self.kill(name)
        for _ in range(self._count + 1 - len(self.nodes)):
            self.script("add")

    def kill(self, name: str) -> None:
        self.script("kill", name)

    def require_addresses(self) -> None:
        """Skip the test where the nodes share an address."""
        if not self._state["namespaces"]:
            pytest.skip("needs nodes with addresses of their own: network namespaces, which root alone may make")

    def cut(self, name: str) -> None:
        self.script("cut", name)
        self._given_up.add(name)

    def join(self, name: str) -> None:
        self.script("join", name)

    @property
    def nodes(self) -> dict[str, dict[str, Any]]:
        """The nodes, the head first, by name."""
        return {node["name"]: node for node in self._state["nodes"]}

    def trials(self) -> dict[str, psutil.Process]:
        """The processes in which trials are trained, by the name of their node."""
        found = {name: trial_processes(node["pid"]) for name, node in self.nodes.items() if name != "head"}
        return {name: processes[0] for name, processes in found.items() if processes}

    def started(self, *arguments: object, node: str = "head") -> "AbstractContextManager[subprocess.Popen[str]]":
        """`sngd-tune` with these arguments, running on a node; killed at the end if it still runs."""
        return running(self._run(node, arguments), cwd=ROOT, env=environment())

    def _run(self, node: str, arguments: tuple[object, ...]) -> list[str]:
        words = [*SNGD_TUNE, *map(str, arguments)]
        return [sys.executable, str(_SCRIPT), "--dir", str(self._directory), "run", "--node", node, "--", *words]

    def script(self, *words: str, code: int = 0) -> str:
        """Run `cluster.py` with these words; what it printed, its exit code being as expected."""
        command = [sys.executable, str(_SCRIPT), "--dir", str(self._directory), *words]
        done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    @property
    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self._directory / "cluster.json").read_text())
        return state


def lives(process: psutil.Process) -> bool:
    """Whether it does; one that has died may still wait to be noticed by whoever adopted it."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def until(condition: Callable[[], bool], process: "subprocess.Popen[str] | None" = None, seconds: float = 90.0) -> None:
    """Wait for something to come true while `process` runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        if process is not None and process.poll() is not None:
            _ended(process)
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


def _ended(process: "subprocess.Popen[str]") -> NoReturn:
    out, err = process.communicate()
    raise AssertionError(f"the command ended with {process.returncode} before it was disturbed:\n{out}\n{err}")
