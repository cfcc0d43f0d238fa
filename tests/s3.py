"""An S3-compatible server on loopback, in a process of its own: moto's."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from pyarrow.fs import FileSystem

from sngd_tune.storage import Place, open_place

BUCKET = "runs"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_EC2_METADATA_DISABLED": "true"}


@dataclass(frozen=True)
class S3Server:
    """The server, and how its bucket is named."""

    process: "subprocess.Popen[bytes]"
    port: int

    def uri(self, *parts: str) -> str:
        path = "/".join((BUCKET, *parts))
        return f"s3://{path}?scheme=http&endpoint_override=127.0.0.1%3A{self.port}&region=us-east-1"

    def place(self, *parts: str) -> Place:
        return open_place(self.uri(*parts))

    @contextmanager
    def away(self) -> Iterator[None]:
        """Takes connections, and answers none."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def serving() -> Iterator[S3Server]:
    """A server with an empty bucket. `CREDENTIALS` are in the environment of all tests, and of what they start."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        server = S3Server(process, port)
        _await(server)
        filesystem, _ = FileSystem.from_uri(f"{server.uri()}&allow_bucket_creation=true")
        filesystem.create_dir(BUCKET)
        yield server
    finally:
        process.kill()
        process.wait()


def _await(server: S3Server) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert server.process.poll() is None, f"moto ended with {server.process.returncode}"
        try:
            socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("moto does not listen")
