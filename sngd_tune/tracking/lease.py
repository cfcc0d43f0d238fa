"""One driver per study, whichever machine it runs on: a file in the storage, with a heartbeat.

The lock of a run directory (`tracking.directory`) guards it against processes of its own machine. A study whose copy
lies in a storage may be resumed on any machine, so its driver holds a lease there: ``lease.json`` with who it is,
written again every `BEAT` seconds. One that has not been written for `PATIENCE` seconds is taken over. Its age is
measured by the storage's own clock, against a file written there at the same moment: machines' may be minutes apart.

What a lease cannot do: keep a driver out that was cut off, was taken for dead, and comes back. Such a driver finds
another's name at its next beat, and ends; until then both write, which the ledger bears (its files have unique names,
and of a trial the newest attempt counts).
"""

import json
import logging
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from sngd_tune.errors import ConfigurationError, StudyHeldError
from sngd_tune.records.events import StudyListener
from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.storage import Place

__all__ = ["BEAT", "LEASE", "PATIENCE", "Lease", "LeaseWatch", "hold_lease"]

_log = logging.getLogger(__name__)

#: Seconds between two heartbeats, and without one after which a lease is taken over.
BEAT, PATIENCE = 10.0, 45.0

#: Its file, in the folder of the run.
LEASE = "lease.json"


@dataclass(frozen=True)
class _Holder:
    """Who holds a lease, and how often it has said so."""

    id: str
    host: str
    pid: int
    since: float
    beats: int = 0

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {time.strftime('%F %T', time.localtime(self.since))}"


class Lease:
    """The lease of one driver; made by `hold_lease`.

    Args:
        place: of the run in the storage.
        beat: seconds between two heartbeats.
        patience: seconds without one after which it is taken over.

    Attributes:
        place: as given.
    """

    def __init__(self, place: Place, beat: float, patience: float) -> None:
        self.place, self._beat, self._patience = place, beat, patience
        self._me = _Holder(uuid.uuid4().hex, socket.gethostname(), os.getpid(), time.time())
        self._ended = threading.Event()
        self._lost: _Holder | None = None
        self._thread = threading.Thread(target=self._keep, name="sngd-tune-lease", daemon=True)

    @property
    def lost(self) -> bool:
        """Whether another driver has taken it over."""
        return self._lost is not None

    def check(self) -> None:
        """Raise StudyHeldError where another driver has taken it over."""
        if self._lost is not None:
            raise StudyHeldError(
                f"{self.place.uri}: taken over by {self._lost}, since this process was not heard of for "
                f"{self._patience:g} s; the study goes on there, and this one has ended"
            )

    def acquire(self) -> None:
        """Take it once nobody else holds it: at once, or when its holder has been silent for long enough.

        Raises:
            StudyHeldError: a live driver holds it.
            OSError: the storage cannot be reached.
        """
        self._await_silence()
        self._write()
        time.sleep(min(1.0, self._beat / 4))  # whoever saw the same silence has written by now; the last one stays
        rival = self._read()
        if rival is None or rival.id != self._me.id:
            raise StudyHeldError(f"{self.place.uri}: {rival or 'another process'} took it at this moment")
        self._thread.start()

    def release(self) -> None:
        """Let go, so that the next driver need not wait."""
        self._ended.set()
        self._thread.join(self._beat)
        with suppress(OSError):
            holder = self._read()
            if holder is not None and holder.id == self._me.id:
                self.place.delete(LEASE)

    def _await_silence(self) -> None:
        """Return where there is no holder, or no heartbeat for `patience` seconds. Raises StudyHeldError."""
        seen: _Holder | None = None
        while (holder := self._read()) is not None:
            if self._age() > self._patience:
                return
            if seen is None:
                _log.warning("%s: held by %s; waiting for a sign of life, or its end", self.place.uri, holder)
            elif holder != seen:
                raise StudyHeldError(f"{self.place.uri}: held by {holder}; wait for it, or stop it there")
            seen = holder
            time.sleep(self._beat / 10)

    def _keep(self) -> None:
        """Write the heartbeat until the end; a storage that is away is tried again, another's name ends it."""
        while not self._ended.wait(self._beat):
            try:
                holder = self._read()
                if holder is not None and holder.id != self._me.id:
                    self._lost = holder
                    return
                self._write()
            except OSError as error:
                _log.warning("%s: no heartbeat written (%s); tried again", self.place.uri, error)

    def _age(self) -> float:
        """Seconds since the last heartbeat of the holder, by the storage's clock; infinite where there is none now."""
        probe = f".{self._me.id}.tmp"
        self.place.write(probe, b"now")
        now, beat = self.place.modified(probe), self.place.modified(LEASE)
        self.place.delete(probe)
        return math.inf if now is None or beat is None else now - beat

    def _read(self) -> _Holder | None:
        try:
            values: dict[str, Any] = json.loads(self.place.read(LEASE))
            return _Holder(**values)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            return _Holder("", "unknown host", 0, 0.0)

    def _write(self) -> None:
        self._me = replace(self._me, beats=self._me.beats + 1)
        self.place.write(LEASE, json.dumps(asdict(self._me)).encode())


class LeaseWatch(StudyListener):
    """Interrupts a study whose lease is lost, as a scheduler would."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease

    def trial_started(self, record: TrialRecord) -> None:
        """Nothing new begins."""
        if self._lease.lost:
            raise KeyboardInterrupt

    def epoch_finished(self, record: TrialRecord, metrics: EpochMetrics) -> None:
        """Nor goes on."""
        self.trial_started(record)


@contextmanager
def hold_lease(place: Place | None, beat: float = BEAT, patience: float = PATIENCE) -> Iterator[Lease | None]:
    """Hold the study whose copy lies at `place` for the time of the block, which gets the lease to watch.

    Args:
        place: of the run in the storage, a folder is made where it does not exist; None where there is no storage, and
            no lease.
        beat: seconds between two heartbeats.
        patience: seconds without one after which a lease is taken over.

    Raises:
        StudyHeldError: another driver holds it; the message names its process and host.
        ConfigurationError: the storage cannot be read or written.
    """
    if place is None:
        yield None
        return
    lease = Lease(place, beat, patience)
    try:
        place.make()
        lease.acquire()
    except OSError as error:
        message = f"storage {place.uri}: cannot be used ({error}); check the path, the credentials and the network"
        raise ConfigurationError(message) from error
    try:
        yield lease
    finally:
        lease.release()
