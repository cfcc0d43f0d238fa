"""`TrialRecord`: the state of one trial as the ledger keeps it, from its start to its outcome."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sngd_tune.records.energy import Energy
from sngd_tune.records.outcome import Outcome

__all__ = ["PHASES", "TrialRecord"]

PHASES = ("search", "confirm")


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial at one moment; a change is a new record, and the latest of the highest attempt counts.

    Times are UTC in Unix seconds.

    Attributes:
        study: name of the study.
        workload: registered name or ``module:attribute``.
        trial: unique inside the study: ``"0007"`` in the search, ``"0007.2"`` where each proposal is trained on several
            seeds, ``"confirm-best-3"`` in the confirmation.
        number: order in which trials were proposed, ≥ 0.
        phase: ``"search"`` or ``"confirm"``.
        candidate: what a confirmation trains: ``"best"`` or ``"default"``; ``""`` in the search.
        attempt: 0 at first; a retry after a lost process, or a resume, adds 1.
        parameters: the flat values that were proposed.
        seed: of initialization, batches and sketches.
        outcome: how it ended, or ``RUNNING``.
        epochs: epochs done.
        objectives: last value of each objective metric; None before the first epoch.
        test_loss, test_accuracy: of the last epoch; None outside a confirmation.
        training_seconds: training since the start of the trial (s), evaluation not counted.
        energy_joules: as `training_seconds` (J); None where it is not known.
        energy_source: where they come from, one of `records.energy.SOURCES`.
        started: when this attempt began.
        updated: when this state was observed; at an epoch, when its result arrived.
        ended: when the attempt ended; None while it runs.
        error: last lines of the traceback, where one was raised.
        checkpoint: where the newest checkpoint lies, as far as the driver knows; None before the first.
        code_version: version of sngd_tune, with the commit where it runs from a repository.
        host: machine that recorded it.
    """

    study: str
    workload: str
    trial: str
    number: int
    phase: str = "search"
    candidate: str = ""
    attempt: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    outcome: Outcome = Outcome.RUNNING
    epochs: int = 0
    objectives: Mapping[str, float | None] = field(default_factory=dict)
    test_loss: float | None = None
    test_accuracy: float | None = None
    training_seconds: float = 0.0
    energy_joules: float | None = None
    energy_source: str | None = None
    started: float = 0.0
    updated: float = 0.0
    ended: float | None = None
    error: str | None = None
    checkpoint: str | None = None
    code_version: str = ""
    host: str = ""

    @property
    def proposal(self) -> str:
        """What was proposed: its own name, without the number of the training where there are several seeds."""
        return self.trial.partition(".")[0] if self.phase == "search" else self.trial

    @property
    def energy(self) -> Energy | None:
        """What training has used since the start of the trial; None where it is not known."""
        if self.energy_joules is None or self.energy_source is None:
            return None
        return Energy(self.energy_joules, self.energy_source)

    @property
    def order(self) -> tuple[int, float, bool]:
        """Sorts the states of one trial by age: attempt, then time, then running before ended."""
        return self.attempt, self.updated, self.outcome is not Outcome.RUNNING

    def to_dict(self) -> dict[str, Any]:
        """Plain values only; `from_dict` takes them back."""
        return {**dataclasses.asdict(self), "outcome": str(self.outcome)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrialRecord":
        """Inverse of `to_dict`."""
        return cls(**{**values, "outcome": Outcome(values["outcome"])})
