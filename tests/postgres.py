"""A real PostgreSQL on loopback, from Debian's binaries, for the tests that need one."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["PASSWORD", "Server", "binaries", "running"]

#: It is looked for wherever a password could have got to, so it is like nothing else.
PASSWORD = "Zq7-vexed.owl"
USER = "tuner"

#: PostgreSQL refuses to run as root.
_AS_NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
#: Where the tests are killed, it ends by itself.
_BOUNDED = ("timeout", "--signal=INT", "1500")
#: Nothing that it keeps has to survive a crash of the machine.
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=16MB", "max_connections=40")


def binaries() -> Path | None:
    """Folder of the newest installed server, None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parents[1].name))
    return found[-1].parent if found else None


@dataclass
class Server:
    """A server that can be stopped and started again."""

    folder: Path
    port: int
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def url(self, database: str) -> str:
        """Of a database, with the password."""
        return f"postgresql+psycopg://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def database(self, name: str) -> str:
        """Make an empty database; its URL."""
        import psycopg

        with psycopg.connect(self._plain("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.url(name)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        import psycopg

        settings = [f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self.folder}", *_FAST]
        command = [str(_bin() / "postgres"), "-D", str(self.folder / "data")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_BOUNDED, *_unprivileged(), *command, *(word for setting in settings for word in ("-c", setting))],
                stdout=log, stderr=log, cwd=self.folder,
            )  # fmt: skip
        limit = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self._plain("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                if time.monotonic() > limit or self._process.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """End it at once: its clients lose their connections."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # its "fast" shutdown
            self._process.wait(30)
            self._process = None

    def _plain(self, database: str) -> str:
        return self.url(database).replace("+psycopg", "")


@contextmanager
def running() -> Iterator[Server]:
    """A server with a superuser of its own, from its first moment to its last."""
    # Below /tmp: the path of its socket may have 107 characters, and `nobody` must be able to enter.
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    secret = folder / "password"
    secret.write_text(PASSWORD)
    if os.geteuid() == 0:
        for path in (folder, secret):
            shutil.chown(path, "nobody", "nogroup")
    server = Server(folder, _free_port())
    try:
        subprocess.run(
            [*_unprivileged(), str(_bin() / "initdb"), "-D", str(folder / "data"), "-U", USER, "--no-sync",
             "--auth=scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "--locale=C.UTF-8"],
            check=True, capture_output=True, cwd=folder, timeout=120,
        )  # fmt: skip
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _bin() -> Path:
    found = binaries()
    assert found is not None, "PostgreSQL is not installed"
    return found


def _unprivileged() -> tuple[str, ...]:
    return _AS_NOBODY if os.geteuid() == 0 else ()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
