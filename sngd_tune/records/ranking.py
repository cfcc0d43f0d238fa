"""Which trials are better: the one place that ranks, so that a broken trial can never win anywhere."""

import math
from collections.abc import Iterable

from sngd_tune.records.metrics import direction
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.trial_record import TrialRecord

__all__ = ["rank"]


def rank(records: Iterable[TrialRecord], objective: str) -> list[TrialRecord]:
    """The search trials that completed with a finite objective, best first; ties by number.

    Args:
        records: trials in any state; all others are left out.
        objective: a metric of `OBJECTIVES`, which knows its direction.
    """
    sign = 1 if direction(objective) == "minimize" else -1

    def score(record: TrialRecord) -> float:
        value = record.objectives.get(objective)
        return sign * value if value is not None and math.isfinite(value) else math.inf

    eligible = [
        r for r in records if r.phase == "search" and r.outcome is Outcome.COMPLETED and math.isfinite(score(r))
    ]
    return sorted(eligible, key=lambda record: (score(record), record.number))
