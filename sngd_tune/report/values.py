"""The parts of a report."""

from dataclasses import dataclass

from sngd_tune.records.energy import Energy
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.report.statistics import Spread

__all__ = ["TEST_METRICS", "Budget", "Confirmation", "Failure"]

#: Metrics of a confirmation, the one that decides first, and whether higher is better.
TEST_METRICS = {"test_accuracy": True, "test_loss": False}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the study has used.

    Attributes:
        trials: search trials that were started.
        confirmations: confirmation trainings that were started.
        retries: attempts beyond the first, after a lost process or a resume.
        device_seconds: training seconds over all trials, evaluation not counted; of a trial that was begun anew, those
            of its last attempt.
        wall_seconds: seconds in which at least one trial was under way.
        energy: of training, counted as `device_seconds`: one sum for each source, which are not added.
        search_energy: that part of it which the search used.
        unmetered: trainings that have begun and whose energy is not known.
    """

    trials: int
    confirmations: int
    retries: int
    device_seconds: float
    wall_seconds: float
    energy: tuple[Energy, ...] = ()
    search_energy: tuple[Energy, ...] = ()
    unmetered: int = 0


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """One candidate trained again on fresh seeds.

    Attributes:
        candidate: ``"best"`` or ``"default"``.
        runs: trainings that completed.
        failed: trainings that did not.
        metrics: spread by metric, the one that decides first; only those that were measured.
        training_seconds: spread of the seconds per training.
    """

    candidate: str
    runs: int
    failed: int
    metrics: dict[str, Spread]
    training_seconds: Spread | None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A trial whose objective says nothing, and why."""

    trial: str
    outcome: Outcome
    reason: str

    @classmethod
    def of(cls, record: TrialRecord) -> "Failure":
        """With the last line of the trial's error for the reason."""
        lines = (record.error or "").strip().splitlines()
        return cls(trial=record.trial, outcome=record.outcome, reason=lines[-1].strip() if lines else "not recorded")
