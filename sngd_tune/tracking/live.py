"""The mirror while the study runs."""

from functools import partial

from sngd_tune.records.events import StudyListener
from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.tracking.client import require_mlflow
from sngd_tune.tracking.ledger import Ledger
from sngd_tune.tracking.mirror import Mirror
from sngd_tune.tracking.sender import Sender

__all__ = ["LiveMirror"]


class LiveMirror(StudyListener):
    """Shows a running study in MLflow. Its methods take microseconds, whatever state MLflow is in.

    Records that `Sender` could not send are replayed from the ledger by `close`, or by ``sngd-tune sync``.

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
        self._sender = Sender(self._mirror.forget, capacity)
        self._sender.put(self._mirror.ensure_parent)

    @property
    def tracking_uri(self) -> str:
        """Where the study is shown (passwords included: redact it before printing)."""
        return self._mirror.tracking_uri

    @property
    def missed(self) -> int:
        """Records of this session, the study's own run among them, that MLflow does not have yet."""
        return self._sender.missed

    def settle(self, timeout: float = 10.0) -> None:
        """As `Sender.settle`."""
        self._sender.settle(timeout)

    def trial_started(self, record: TrialRecord) -> None:
        """Make the trial's run."""
        self._sender.put(partial(self._mirror.ensure_trial, record))

    def epoch_finished(self, record: TrialRecord, metrics: EpochMetrics) -> None:
        """Add a step to the trial's run."""
        self._sender.put(partial(self._mirror.log_epoch, record, metrics, record.updated))

    def trial_finished(self, record: TrialRecord) -> None:
        """End the trial's run."""
        self._sender.put(partial(self._mirror.finish_trial, record))

    def close(self, timeout: float = 10.0, patience: float = 60.0) -> int:
        """Send what waits, replay from the ledger what is missing, end the parent run: `Sender.close`."""
        return self._sender.close(partial(self._mirror.reconcile, self._ledger), timeout=timeout, patience=patience)
