"""Writes to MLflow from a thread behind a bounded queue, so that MLflow never holds up training."""

import logging
import queue
import threading
import time
from collections.abc import Callable

from sngd_tune.tracking.client import MirrorError

__all__ = ["Sender"]

_log = logging.getLogger(__name__)

#: Seconds between tries while MLflow is away: doubling from the first to the second.
_FIRST_DELAY, _LAST_DELAY = 0.5, 30.0

#: Seconds between tries once the study is over: a database that is busy is waited for, a server that is gone is not.
_LAST_TRIES = (0.5, 1.0)

#: Brings MLflow up to the ledger; calls what it is given whenever MLflow has taken something.
CatchUp = Callable[[Callable[[], None]], object]


class Sender:
    """Sends writes one after another. `put` takes microseconds, whatever state MLflow is in.

    Writes wait in a queue while MLflow is down or slow. Those that find the queue full are dropped, and are left to
    what `close` is given, or to ``sngd-tune sync``.

    Args:
        forget: called after an error, when nobody knows whether the last write landed.
        capacity: writes that may wait.
    """

    def __init__(self, forget: Callable[[], None], capacity: int = 4096) -> None:
        self._forget = forget
        self._queue: queue.Queue[Callable[[], object]] = queue.Queue(capacity)
        self._catch_up: CatchUp = lambda heard: None
        self._closing = threading.Event()
        self._counted = threading.Lock()
        self._missing = 0
        self._heard()
        self._complained = False
        # A daemon: a request that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="sngd-tune-mlflow", daemon=True)
        self._thread.start()

    @property
    def missed(self) -> int:
        """Records of this session that MLflow does not have yet."""
        return self._missing

    def put(self, write: Callable[[], object]) -> None:
        """Send a record when its turn comes."""
        self._count(1)
        try:
            self._queue.put_nowait(write)
        except queue.Full:
            self._complain("its queue is full")

    def settle(self, timeout: float = 10.0) -> None:
        """Wait until MLflow has all that was sent, or the time is over: a new store takes seconds of a CPU to make."""
        deadline = time.monotonic() + timeout
        while self._missing and time.monotonic() < deadline:
            time.sleep(0.05)

    def close(self, catch_up: CatchUp, records: int = 0, timeout: float = 10.0, patience: float = 60.0) -> int:
        """Send what waits, then catch up; call it once, at the end.

        Args:
            catch_up: brings what is missing.
            records: that `catch_up` alone brings.
            timeout: seconds for which MLflow may take nothing.
            patience: seconds after which it returns in any case.

        Returns:
            records that MLflow still lacks as far as this session knows: where it is not 0, ``sngd-tune sync DIR``
            brings them.
        """
        self._count(records)
        self._catch_up = catch_up
        self._heard()
        self._closing.set()
        latest = time.monotonic() + patience
        while self._thread.is_alive() and time.monotonic() < min(latest, self._answered + timeout):
            self._thread.join(0.05)
        return self._missing

    def _count(self, change: int) -> None:
        with self._counted:
            self._missing += change

    def _heard(self) -> None:
        self._answered = time.monotonic()

    def _complain(self, reason: object) -> None:
        if not self._complained:
            self._complained = True
            _log.warning("MLflow is behind (%s); training goes on, and what is missing is replayed later", reason)

    def _run(self) -> None:
        try:
            self._send_until_closed()
            self._reconcile()
        except Exception as error:  # nobody joins a thread for its exception
            self._complain(error)
        else:
            self._missing = 0

    def _reconcile(self) -> None:
        """Catch up; tried again, since another writer may hold MLflow's database at this moment."""
        for delay in _LAST_TRIES:
            try:
                self._catch_up(self._heard)
                return
            except MirrorError as error:
                if not error.transient:
                    raise
                self._complain(error)
                time.sleep(delay)
        self._catch_up(self._heard)

    def _send_until_closed(self) -> None:
        delay = _FIRST_DELAY
        write = self._next()
        while write is not None:
            try:
                write()
            except MirrorError as error:
                self._complain(error)
                self._forget()
                if error.transient:
                    if self._closing.wait(delay):
                        return
                    delay = min(2 * delay, _LAST_DELAY)
                    continue
            else:
                self._count(-1)
                self._heard()
                delay = _FIRST_DELAY
            write = self._next()

    def _next(self) -> Callable[[], object] | None:
        """The next write; None once the study is over and the queue is empty."""
        while True:
            try:
                return self._queue.get(timeout=0.1)
            except queue.Empty:
                if self._closing.is_set():
                    return None
