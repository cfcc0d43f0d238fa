"""The mirror while the study runs: a thread behind a bounded queue, so that MLflow never holds up training."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from functools import partial

from sngd_tune.records.events import StudyListener
from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.tracking.client import MirrorError, require_mlflow
from sngd_tune.tracking.ledger import Ledger
from sngd_tune.tracking.mirror import Mirror

__all__ = ["LiveMirror"]

_log = logging.getLogger(__name__)

#: Seconds between tries while MLflow is away: doubling from the first to the second.
_FIRST_DELAY, _LAST_DELAY = 0.5, 30.0

#: Seconds between tries once the study is over: a database that is busy is waited for, a server that is gone is not.
_LAST_TRIES = (0.5, 1.0)


class LiveMirror(StudyListener):
    """Shows a running study in MLflow. Its methods take microseconds, whatever state MLflow is in.

    Records wait in a queue while MLflow is down or slow. Those that find the queue full are dropped here and replayed
    from the ledger by `close`, or by ``sngd-tune sync``.

    Args:
        ledger: of the study.
        tracking_uri: as for `Mirror`.
        capacity: records that may wait.

    Raises:
        MissingDependencyError: MLflow is not installed.
    """

    def __init__(self, ledger: Ledger, tracking_uri: str | None = None, capacity: int = 4096) -> None:
        require_mlflow()
        self._ledger = ledger
        self._mirror = Mirror(ledger.directory, ledger.manifest, tracking_uri)
        self._queue: queue.Queue[Callable[[], object]] = queue.Queue(capacity)
        self._closing = threading.Event()
        self._counted = threading.Lock()
        self._missing = 0
        self._heard()
        self._complained = False
        self._put(self._mirror.ensure_parent)
        # A daemon: a request that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="sngd-tune-mlflow", daemon=True)
        self._thread.start()

    @property
    def tracking_uri(self) -> str:
        """Where the study is shown (passwords included: redact it before printing)."""
        return self._mirror.tracking_uri

    @property
    def missed(self) -> int:
        """Records of this session, the study's own run among them, that MLflow does not have yet."""
        return self._missing

    def settle(self, timeout: float = 10.0) -> None:
        """Wait until MLflow has all that was sent, or the time is over: a new store takes seconds of a CPU to make."""
        deadline = time.monotonic() + timeout
        while self._missing and time.monotonic() < deadline:
            time.sleep(0.05)

    def trial_started(self, record: TrialRecord) -> None:
        """Make the trial's run."""
        self._put(partial(self._mirror.ensure_trial, record))

    def epoch_finished(self, record: TrialRecord, metrics: EpochMetrics) -> None:
        """Add a step to the trial's run."""
        self._put(partial(self._mirror.log_epoch, record, metrics, record.updated))

    def trial_finished(self, record: TrialRecord) -> None:
        """End the trial's run."""
        self._put(partial(self._mirror.finish_trial, record))

    def close(self, timeout: float = 10.0, patience: float = 60.0) -> int:
        """Send what waits, replay from the ledger what is missing, end the parent run; call it once, at the end.

        Returns once MLflow has taken nothing for `timeout` seconds, and within `patience` seconds in any case, with the
        number of records that MLflow still lacks as far as this session knows: where it is not 0,
        ``sngd-tune sync DIR`` brings them.
        """
        self._closing.set()
        self._heard()
        latest = time.monotonic() + patience
        while self._thread.is_alive() and time.monotonic() < min(latest, self._answered + timeout):
            self._thread.join(0.05)
        return self._missing

    def _put(self, write: Callable[[], object]) -> None:
        self._count(1)
        try:
            self._queue.put_nowait(write)
        except queue.Full:
            self._complain("its queue is full")

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
        """Bring MLflow up to the ledger; tried again, since another writer may hold its database at this moment."""
        for delay in _LAST_TRIES:
            try:
                self._mirror.reconcile(self._ledger, self._heard)
                return
            except MirrorError as error:
                if not error.transient:
                    raise
                self._complain(error)
                time.sleep(delay)
        self._mirror.reconcile(self._ledger, self._heard)

    def _send_until_closed(self) -> None:
        delay = _FIRST_DELAY
        write = self._next()
        while write is not None:
            try:
                write()
            except MirrorError as error:
                self._complain(error)
                self._mirror.forget()
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
