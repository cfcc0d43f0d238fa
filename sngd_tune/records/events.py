"""What a running study tells those who watch it: progress display, MLflow mirror."""

from typing import Protocol

from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.records.trial_record import TrialRecord

__all__ = ["StudyListener"]


class StudyListener(Protocol):
    """Watches a study from the driver's thread: every method returns at once, and what it raises is logged, not obeyed.

    Subclass it and override what matters; the methods do nothing by default.
    """

    def trial_started(self, record: TrialRecord) -> None:
        """An attempt of a trial began; ``record.attempt > 0`` where it is a retry or a resume."""
        return

    def epoch_finished(self, record: TrialRecord, metrics: EpochMetrics) -> None:
        """An epoch's result arrived at ``record.updated``."""
        return

    def trial_finished(self, record: TrialRecord) -> None:
        """A trial ended with ``record.outcome``. A lost attempt that is retried is not an end."""
        return
