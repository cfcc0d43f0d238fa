"""Which trials are better: the one place that ranks, so that a broken trial can never win anywhere."""

import math
from collections.abc import Iterable, Mapping, Sequence

from sngd_tune.records.metrics import EpochMetrics, direction
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.proposals import proposals
from sngd_tune.records.target import Target
from sngd_tune.records.trial_record import TrialRecord

__all__ = ["fastest", "rank", "winners"]

#: Outcomes of a trial whose evaluations count, however early it was stopped.
_SOUND = (Outcome.COMPLETED, Outcome.STOPPED_EARLY)


def rank(records: Iterable[TrialRecord], objective: str) -> list[TrialRecord]:
    """The proposals of the search that completed with a finite objective, best first; ties by number.

    One that was trained on several seeds is a record by itself, which has the means (`records.proposals`).

    Args:
        records: trials in any state; all others are left out.
        objective: a metric of `OBJECTIVES`, which knows its direction.
    """
    sign = 1 if direction(objective) == "minimize" else -1

    def score(record: TrialRecord) -> float:
        value = record.objectives.get(objective)
        return sign * value if value is not None and math.isfinite(value) else math.inf

    eligible = [r for r in proposals(records) if r.outcome is Outcome.COMPLETED and math.isfinite(score(r))]
    return sorted(eligible, key=lambda record: (score(record), record.number))


def fastest(
    records: Iterable[TrialRecord], epochs: Mapping[str, Sequence[EpochMetrics]], target: Target
) -> TrialRecord | None:
    """The search trial that reached the target in the fewest seconds of training; None where none did.

    One that was stopped early counts, if it had got there; one that failed later does not.

    Args:
        records: trials in any state.
        epochs: evaluations in order, by trial.
        target: of the workload.
    """
    seconds = {}
    for record in records:
        reached = target.first_reached(epochs.get(record.trial, ()))
        if record.phase == "search" and record.outcome in _SOUND and reached is not None:
            seconds[record.trial] = (reached.training_seconds, record.number, record)
    return min(seconds.values(), key=lambda found: found[:2])[2] if seconds else None


def winners(
    records: Sequence[TrialRecord], epochs: Mapping[str, Sequence[EpochMetrics]], objective: str, target: Target
) -> dict[str, TrialRecord]:
    """What a comparison trains again: ``"best"`` by the objective, and the ``"fastest"`` where that is another trial.

    Empty where no trial completed and none reached the target. Arguments as in `rank` and `fastest`.
    """
    best, first = next(iter(rank(records, objective)), None), fastest(records, epochs, target)
    chosen = {"best": best, "fastest": first if first is not best else None}
    return {candidate: record for candidate, record in chosen.items() if record is not None}
