"""A real head of a Ray cluster on loopback, with dashboard and token, in processes of its own."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

_CPUS = 2
_CLAIM = """
import json, sys
from ray._private.ray_constants import KV_NAMESPACE_CLUSTER
from ray._raylet import GcsClient
head = GcsClient(address=sys.argv[1])
said = json.loads(head.internal_kv_get(b"CLUSTER_METADATA", namespace=KV_NAMESPACE_CLUSTER))
print(said["ray_version"])
said["ray_version"] = sys.argv[2]
head.internal_kv_put(b"CLUSTER_METADATA", json.dumps(said).encode(), True, namespace=KV_NAMESPACE_CLUSTER)
"""
_SNGD_TUNE = (sys.executable, "-c", "from sngd_tune.cli import main; main()")


@dataclass(frozen=True)
class Head:
    """Where it listens, and what lets one in."""

    port: int
    dashboard_port: int
    token: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def dashboard(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"

    def environment(self, home: Path, **changes: str) -> dict[str, str]:
        """That of a user of the cluster; none of the developer's own variables."""
        own = ("RAY_", "SNGD_TUNE_", "MLFLOW_", "PYTHON")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token)}
        return {**kept, **token, "HOME": str(home), **changes}

    def call(self, folder: Path, *arguments: str, **changes: str) -> "subprocess.CompletedProcess[str]":
        """`sngd-tune` in a folder of the user's."""
        environment = self.environment(folder, **changes)
        return subprocess.run(
            [*_SNGD_TUNE, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    @contextmanager
    def claiming(self, version: str) -> Iterator[None]:
        """It says that it runs another version of Ray."""
        before = self._version(version)
        try:
            yield
        finally:
            self._version(before)

    def _version(self, version: str) -> str:
        """Change the version that it keeps for those who join; the one before."""
        done = subprocess.run(
            [sys.executable, "-c", _CLAIM, self.address, version],
            env=self.environment(self.token.parent),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout.strip()


@contextmanager
def started() -> Iterator[Head]:
    """A head for the time of the block."""
    # Short: Ray puts sockets there, whose paths may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="sngd-", dir="/tmp"))
    head = Head(*_free_ports(2), folder / "token")
    head.token.touch(mode=0o600)
    head.token.write_text(secrets.token_hex(32))
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        [*_ray("start"), "--head", "--block", *_options(head, folder)],
        env=head.environment(folder, PATH=_path(), RAY_raylet_start_wait_time_s="120", OMP_NUM_THREADS="1"),
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        _await(process, head, folder / "log")
        yield head
    finally:
        process.send_signal(signal.SIGTERM)  # it ends what it has started
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def _options(head: Head, folder: Path) -> list[str]:
    client, agent, agent_grpc, metrics = _free_ports(4)
    return [
        f"--port={head.port}",
        "--node-ip-address=127.0.0.1",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={head.dashboard_port}",
        f"--ray-client-server-port={client}",
        f"--dashboard-agent-listen-port={agent}",
        f"--dashboard-agent-grpc-port={agent_grpc}",
        f"--metrics-export-port={metrics}",
        "--min-worker-port=0",
        "--max-worker-port=0",
        f"--num-cpus={_CPUS}",
        "--object-store-memory=100000000",
        f"--temp-dir={folder / 'ray'}",
        "--disable-usage-stats",
    ]


def _ray(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from ray.scripts.scripts import main; main()", *arguments]


def _path() -> str:
    """Jobs find `sngd-tune` beside the Python that runs the tests."""
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _await(process: "subprocess.Popen[bytes]", head: Head, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with closing(socket.socket()) as tried:
            tried.settimeout(1)
            if tried.connect_ex(("127.0.0.1", head.dashboard_port)) == 0 and "--block" in log.read_text():
                return
        time.sleep(0.2)
    raise AssertionError(f"the head does not listen: {log.read_text()}")
