"""A scaling study in MLflow while it runs: each point as soon as all its trainings have ended."""

from functools import partial
from pathlib import Path

from sngd_tune.records.events import StudyListener
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.tracking.client import require_mlflow
from sngd_tune.tracking.scaling import ScalingManifest
from sngd_tune.tracking.scaling_runs import Findings, ScalingMirror
from sngd_tune.tracking.sender import Sender
from sngd_tune.tracking.trainings import trainings

__all__ = ["LiveScaling"]


class LiveScaling(StudyListener):
    """Shows a running scaling study in MLflow. Its methods take microseconds, whatever state MLflow is in.

    A point is written from the ledger, which has what an earlier session trained of it. Where MLflow was away, `close`
    or ``sngd-tune sync`` brings what is missing.

    Args:
        directory: of the study.
        manifest: of the study.
        tracking_uri: as for `Mirror`.

    Raises:
        MissingDependencyError: MLflow is not installed.
    """

    def __init__(self, directory: Path, manifest: ScalingManifest, tracking_uri: str | None = None) -> None:
        require_mlflow()
        self._seeds = manifest.config.seeds
        self._ended: dict[str, set[int]] = {point.name: set() for point in manifest.points}
        for training in trainings(directory, manifest):
            self._is_last(training.record)
        self._mirror = ScalingMirror(directory, manifest, tracking_uri)
        self._sender = Sender(self._mirror.forget)
        self._sender.put(self._mirror.ensure_parent)

    @property
    def missed(self) -> int:
        """Records of this session, the study's own run among them, that MLflow does not have yet."""
        return self._sender.missed

    def settle(self) -> None:
        """As `Sender.settle`."""
        self._sender.settle()

    def trial_finished(self, record: TrialRecord) -> None:
        """Write the point of which this was the last training."""
        if self._is_last(record):
            self._sender.put(partial(self._mirror.log_point, record.candidate))

    def close(self, findings: Findings) -> int:
        """Send what waits and what was found, and end the parent run: `Sender.close`."""
        return self._sender.close(partial(self._mirror.reconcile, findings), records=1)

    def _is_last(self, record: TrialRecord) -> bool:
        """Whether nothing is left to train of its point."""
        ended = self._ended[record.candidate]
        if record.outcome.finished:
            ended.add(record.number)
        return len(ended) == self._seeds
