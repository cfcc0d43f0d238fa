"""The cluster of a directory: Ray nodes that are started, broken and ended.

::

    DIR/cluster.json    the nodes and their processes
    DIR/token           the token, readable by its owner alone
    DIR/NODE.log        what `ray start` said
"""

import hashlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from machines import LocalClusterError, Loopback, Machines, Namespaces, available
from processes import birth, kill_tree

__all__ = ["Cluster", "Node"]

_OBJECT_STORE = 150_000_000
_START_SECONDS = 120
_STARTED = "Ray runtime started."


@dataclass
class Node:
    """A node of the cluster; its processes descend from `pid`, a blocking `ray start` born at `birth`."""

    name: str
    number: int
    address: str
    pid: int
    birth: int | None
    cut: bool = False

    @property
    def alive(self) -> bool:
        """Whether its first process lives."""
        return self.birth is not None and birth(self.pid) == self.birth

    def kill(self) -> None:
        """SIGKILL all its processes."""
        if self.alive:
            kill_tree(self.pid)


class Cluster:
    """The cluster of a directory. Its methods raise LocalClusterError.

    Args:
        directory: of the cluster; namespaces and Ray's folders are named after it, so that two stand side by side.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self._name = "sngd" + hashlib.sha256(str(self.directory).encode()).hexdigest()[:6]
        # Short, and not below TMPDIR: Ray puts sockets there, whose paths may have 107 characters.
        self._ray = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / self._name
        self._state = self.directory / "cluster.json"
        self.nodes: dict[str, Node] = {}
        self._numbers, self._port = 0, 0
        self._machines: Machines = Loopback()
        if self._state.exists():
            state = json.loads(self._state.read_text())
            self.nodes = {values["name"]: Node(**values) for values in state["nodes"]}
            self._numbers, self._port, self._ray = state["numbers"], state["port"], Path(state["folder"])
            self._machines = Namespaces(self._name) if state["namespaces"] else Loopback()

    def up(self, nodes: int, cpus: int, loopback: bool) -> None:
        """Start the head, then the nodes; nothing stays where one does not start."""
        if self._state.exists():
            raise LocalClusterError(f"{self.directory}: a cluster is there already; take it down first")
        self.directory.mkdir(parents=True, exist_ok=True)
        self._ray.mkdir(mode=0o700)  # one that is there already may be somebody else's
        self._token.touch(mode=0o600)
        self._token.write_text(secrets.token_hex(32))
        self._machines = Loopback() if loopback else available(self._name)
        self._port = _free_port() if isinstance(self._machines, Loopback) else 6379
        try:
            self._machines.open()
            self._save()
            self._wait([self._start(cpus=0)])
            self._wait([self._start(cpus) for _ in range(nodes)])
        except BaseException:
            self.down()
            raise

    def add(self, cpus: int) -> Node:
        """One node more."""
        self.node("head")
        node = self._start(cpus)
        self._wait([node])
        return node

    def kill(self, name: str) -> None:
        """A node loses its power: SIGKILL to all its processes, and its machine is gone."""
        node = self.node(name)
        node.kill()
        self._machines.remove(node.number)
        del self.nodes[name]
        self._save()

    def connect(self, name: str, connected: bool) -> None:
        """Cut a node off from the others, or join it to them again; its processes live on."""
        node = self.node(name)
        self._machines.connect(node.number, connected)
        node.cut = not connected
        self._save()

    def down(self) -> None:
        """End every process, and remove namespaces and files."""
        for node in self.nodes.values():
            node.kill()
        self._machines.close()
        shutil.rmtree(self._ray, ignore_errors=True)
        for path in (self._state, self._token, *self.directory.glob("*.log")):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            self.directory.rmdir()  # unless there is something else in it

    def node(self, name: str) -> Node:
        """The node of that name."""
        if name not in self.nodes:
            there = ", ".join(self.nodes) or "none; `up` starts some"
            raise LocalClusterError(f"{self.directory}: no node {name!r}; the nodes are {there}")
        return self.nodes[name]

    def command(self, name: str, words: list[str]) -> list[str]:
        """A command line that runs `words` on a node."""
        return [*self._machines.prefix(self.node(name).number), *words]

    def environment(self) -> dict[str, str]:
        """What a process on the cluster finds in its environment; Ray's other switches are the caller's."""
        ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self._token), "RAY_USAGE_STATS_ENABLED": "0"}
        if "head" in self.nodes:
            ours["RAY_ADDRESS"] = f"{self.nodes['head'].address}:{self._port}"
        # A raylet that starts on a busy machine takes longer than Ray's 30 s.
        return {"RAY_raylet_start_wait_time_s": str(_START_SECONDS), **os.environ, **ours}

    @property
    def _token(self) -> Path:
        return self.directory / "token"

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def _start(self, cpus: int) -> Node:
        number = self._numbers
        name = f"node{number}" if number else "head"
        address = self._machines.add(number)
        words = [_ray(), "start", "--block", "--disable-usage-stats", f"--node-ip-address={address}"]
        words += [f"--num-cpus={cpus}", f"--object-store-memory={_OBJECT_STORE}", "--include-log-monitor=false"]
        words += [f"--temp-dir={self._ray / name}"]
        if number:
            words += [f"--address={self.nodes['head'].address}:{self._port}"]
        else:
            words += ["--head", f"--port={self._port}", "--include-dashboard=false"]
        with self._log(name).open("wb") as log:
            process = subprocess.Popen(
                [*self._machines.prefix(number), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment(),
                start_new_session=True,
            )
        node = self.nodes[name] = Node(name, number, address, process.pid, birth(process.pid))
        self._numbers += 1
        self._save()
        return node

    def _wait(self, nodes: list[Node]) -> None:
        """Until `ray start` has said on each that it is part of the cluster."""
        deadline = time.monotonic() + _START_SECONDS
        for node in nodes:
            while _STARTED not in (said := self._log(node.name).read_text(errors="replace")):
                if not node.alive or time.monotonic() > deadline:
                    raise LocalClusterError(f"{node.name} did not start:\n{said}")
                time.sleep(0.1)

    def _save(self) -> None:
        state = {
            "namespaces": isinstance(self._machines, Namespaces),
            "port": self._port,
            "folder": str(self._ray),
            "numbers": self._numbers,
            "nodes": [asdict(node) for node in self.nodes.values()],
        }
        self._state.write_text(json.dumps(state, indent=1))


def _ray() -> str:
    """Ray's command of the Python that runs this."""
    found = Path(sys.executable).with_name("ray")
    if not found.exists():
        raise LocalClusterError(f"{found}: not there; run this with the Python of an environment that has Ray")
    return str(found)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
