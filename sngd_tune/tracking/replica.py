"""The copy of a run directory in a storage that outlives the machine, made while the study runs.

``STORAGE/<name of the run directory>`` has everything but what belongs to a process (locks, temporary files), the
studies of a comparison or a scaling study included; trials write their checkpoints there themselves. The ledger's files
never change, so one that is there is not sent again. Files go out from the oldest to the newest, so that the copy is
always a state in which the run directory once was: a trial that it calls completed has its epochs there. Manifests go
without their passwords.
"""

import logging
import posixpath
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sngd_tune.errors import ConfigurationError
from sngd_tune.redaction import redact
from sngd_tune.storage import Place, open_place
from sngd_tune.tracking.kinds import MANIFESTS
from sngd_tune.tracking.lease import Lease

__all__ = ["Replica", "in_ledger", "is_directory", "open_storage", "run_place"]

_log = logging.getLogger(__name__)

#: Seconds between two looks at the run directory, and between tries while the storage is away: doubling up to the last.
_PERIOD, _FIRST_DELAY, _LAST_DELAY = 5.0, 0.5, 30.0


@dataclass(frozen=True, order=True)
class _File:
    """A file of the run directory in the state in which it was last seen."""

    modified: int
    name: str
    size: int


class Replica:
    """Copies a run directory to where its study is held, on a thread of its own: the storage never holds up training.

    There is no queue to fill: what is still to be sent is what the directory has and the storage has not.

    Args:
        directory: the run directory.
        lease: of the run, with the place; once it is lost nothing is copied any more.
        parts: run directories inside it, of the studies of a group, which need not exist yet.
        period: seconds between two looks at the directory.
    """

    def __init__(self, directory: Path, lease: Lease, parts: Iterable[Path] = (), period: float = _PERIOD) -> None:
        self._directory, self._lease, self._place, self._period = directory, lease, lease.place, period
        self._parts = tuple(parts)
        self._sent: dict[str, _File] = {}
        self._there: frozenset[str] | None = None  # of the ledger, before this session
        self._closing = threading.Event()
        self._complained = False
        self._heard()
        # A daemon: a request that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="sngd-tune-replica", daemon=True)
        self._thread.start()

    @property
    def missing(self) -> int:
        """Files that the copy lacks, or has in an older state, as far as this session knows."""
        return len(self._waiting())

    def close(self, timeout: float = 10.0, patience: float = 120.0) -> int:
        """Send what is missing; call it once, when the run directory is complete.

        Returns once the storage has taken nothing for `timeout` seconds, and within `patience` seconds in any case,
        with the number of files that it still lacks.
        """
        self._closing.set()
        self._heard()
        latest = time.monotonic() + patience
        while self._thread.is_alive() and time.monotonic() < min(latest, self._answered + timeout):
            self._thread.join(0.05)
        return self.missing

    def _heard(self) -> None:
        self._answered = time.monotonic()

    def _run(self) -> None:
        delay = _FIRST_DELAY
        while not self._lease.lost:
            closing = self._closing.is_set()
            try:
                self._send()
            except OSError as error:
                self._complain(error)
                self._pause(delay)
                delay = min(2 * delay, _LAST_DELAY)
                continue
            if closing:
                return
            delay = _FIRST_DELAY
            self._pause(self._period)

    def _pause(self, seconds: float) -> None:
        """Sleep until the time is over or the study is; after that, long enough not to press a storage that is away."""
        if not self._closing.wait(seconds):
            return
        time.sleep(min(seconds, _FIRST_DELAY))

    def _send(self) -> None:
        if self._there is None:
            self._there = frozenset(filter(in_ledger, self._place.names()))
        for file in self._waiting():
            if self._lease.lost:
                return
            self._place.write(file.name, self._content(file.name))
            self._sent[file.name] = file
            self._heard()

    def _content(self, name: str) -> bytes:
        content = (self._directory / name).read_bytes()
        return redact(content.decode()).encode() if posixpath.basename(name) in MANIFESTS else content

    def _waiting(self) -> list[_File]:
        """What the copy lacks, from the oldest to the newest."""
        there = self._there or ()
        return sorted(file for file in self._files() if file.name not in there and self._sent.get(file.name) != file)

    def _files(self) -> Iterator[_File]:
        """The files that are copied: the directory's own, those of its parts, and their ledgers'; none is hidden."""
        for folder in (self._directory, *filter(Path.is_dir, self._parts)):
            for path in (*folder.iterdir(), *folder.glob("ledger/*/*"), *folder.glob("figures/*")):
                if path.is_file() and not path.name.startswith("."):
                    status = path.stat()
                    yield _File(status.st_mtime_ns, path.relative_to(self._directory).as_posix(), status.st_size)

    def _complain(self, reason: object) -> None:
        if not self._complained:
            self._complained = True
            _log.warning("%s is behind (%s); training goes on, and what is missing follows", self._place.uri, reason)


def run_place(storage: str | None, directory: Path) -> Place | None:
    """Where the copy of a run directory lies in a storage; None where there is none. Raises ConfigurationError."""
    return None if storage is None else open_storage(storage).below(directory.resolve().name)


def open_storage(uri: str) -> Place:
    """The place that a URI without a password names. Raises ConfigurationError."""
    if redact(uri) != uri:
        raise ConfigurationError(
            f"storage={redact(uri)!r}: has a password in it; leave that to the environment (AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY) or to the machine's role"
        )
    return open_place(uri)


def in_ledger(name: str) -> bool:
    """Whether a file of a run is one of a ledger's, which never change."""
    return name.endswith(".parquet")


def is_directory(place: Place, directory: Path) -> bool:
    """Whether the place is the run directory itself: it lies on the shared path, and no copy is needed."""
    return place.local and Path(place.root).resolve() == directory.resolve()
