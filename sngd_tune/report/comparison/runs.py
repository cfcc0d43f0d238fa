"""What the trainings of a comparison measured, as its report takes it, and how soon each got to its target."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sngd_tune.records.attempts import Attempts
from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.ranking import winners
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.target import Target
from sngd_tune.records.trial_record import TrialRecord

__all__ = [
    "MISSED",
    "MethodResults",
    "Reach",
    "WorkloadResults",
    "completed",
    "confirmations",
    "reach",
    "search_trials",
    "timed",
    "timed_runs",
    "winners_of",
]

#: Seconds and steps to a target that was not reached.
MISSED = math.inf


@dataclass(frozen=True, kw_only=True)
class MethodResults:
    """One method on one workload.

    Attributes:
        config: the study that its search was.
        trials: latest state of each trial, both phases; empty where the cell has not begun.
        epochs: evaluations in order, by name of the trial.
        attempts: at all trials, with what was lost and trained again.
    """

    config: StudyConfig
    trials: Sequence[TrialRecord]
    epochs: Mapping[str, Sequence[EpochMetrics]]
    attempts: Attempts = field(default_factory=Attempts)


@dataclass(frozen=True, kw_only=True)
class WorkloadResults:
    """All methods on one workload.

    Attributes:
        workload: its label.
        target: what a training has to reach.
        seconds: of training that each single training was given, evaluation not counted.
        methods: by label; those that should run here, begun or not.
        confirm_seeds: fresh seeds planned for each winner; None: as many as any method has.
    """

    workload: str
    target: Target
    seconds: float
    methods: Mapping[str, MethodResults]
    confirm_seeds: int | None = None


@dataclass(frozen=True, kw_only=True)
class Reach:
    """When a training first was at its target: seconds of training and optimizer steps, `MISSED` where it never was.

    Both are those of an evaluation, so their resolution is the time between two evaluations.
    """

    seconds: float
    steps: float


def reach(record: TrialRecord, epochs: Sequence[EpochMetrics], target: Target) -> Reach:
    """Time and steps to the target; a training that failed has missed it, wherever it was before."""
    found = None if record.outcome.failed else target.first_reached(epochs)
    if found is None:
        return Reach(seconds=MISSED, steps=MISSED)
    return Reach(seconds=found.training_seconds, steps=float(found.steps))


def search_trials(method: MethodResults) -> list[TrialRecord]:
    """The trials of the search, in any state."""
    return [record for record in method.trials if record.phase == "search"]


def confirmations(method: MethodResults, candidate: str) -> list[TrialRecord]:
    """Re-trainings of ``"best"`` or ``"fastest"`` that have ended, whatever their outcome, by seed."""
    found = (record for record in method.trials if record.phase == "confirm" and record.candidate == candidate)
    return sorted((record for record in found if record.outcome.finished), key=lambda record: record.seed)


def timed_runs(method: MethodResults, target: Target) -> list[TrialRecord]:
    """The re-trainings that time to the target is taken from, by seed.

    Those of ``"fastest"``; of ``"best"`` where the two are one trial, or where no trial of the search reached it.
    """
    return confirmations(method, timed(winners_of(method, target)))


def winners_of(method: MethodResults, target: Target) -> dict[str, TrialRecord]:
    """What of the search is trained again (`ranking.winners`)."""
    return winners(method.trials, method.epochs, method.config.objectives[0], target)


def timed(chosen: Mapping[str, TrialRecord]) -> Literal["best", "fastest"]:
    """Which of the winners gives the time to the target."""
    return "fastest" if "fastest" in chosen else "best"


def completed(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Those whose last metrics count."""
    return [record for record in records if record.outcome is Outcome.COMPLETED]
