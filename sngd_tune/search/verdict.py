"""What Optuna hears of a trial.

================================================  ====================================
what happened                                     what Optuna hears
================================================  ====================================
last result says ``outcome: completed``           COMPLETE with the objectives
objective missing, NaN or infinite                FAIL
outcome diverged, out of memory, error            FAIL
its process died once too often (`retries`)       FAIL
stopped by the scheduler after some epochs        PRUNED with the last value
stopped before its first result                   FAIL
the study ended first (`StudySearcher.close`)     FAIL
================================================  ====================================
"""

import math
from collections.abc import Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from sngd_tune.records.outcome import Outcome
from sngd_tune.records.past import PastTrial
from sngd_tune.search.space import SearchSpace

__all__ = ["ended_trial", "finite", "verdict"]


def verdict(outcome: Outcome, objectives: Sequence[Any]) -> tuple[TrialState, list[float] | None]:
    """The table above: Optuna's state, and the values that go with COMPLETE."""
    values = [value for value in map(finite, objectives) if value is not None]
    if len(values) < len(objectives):
        return TrialState.FAIL, None
    if outcome is Outcome.COMPLETED:
        return TrialState.COMPLETE, values
    stopped = outcome in (Outcome.RUNNING, Outcome.STOPPED_EARLY)
    return (TrialState.PRUNED if stopped else TrialState.FAIL), None


def ended_trial(past: PastTrial, space: SearchSpace, objectives: int) -> FrozenTrial:
    """A finished trial of an earlier run as Optuna keeps it.

    Args:
        past: the trial.
        space: of its study.
        objectives: how many the study has; intermediate values are of the only one.
    """
    single = objectives == 1
    intermediate = {epoch: value for epoch, value in sorted(past.intermediate.items()) if math.isfinite(value)}
    reached: Sequence[float] = list(intermediate.values())[-1:] if single else ()
    wanted = past.values if past.outcome is Outcome.COMPLETED else reached
    state, values = verdict(past.outcome, wanted or [None])
    labelled = space.labelled(past.parameters)
    distributions = space.distributions(past.parameters)
    return create_trial(
        state=state,
        values=list(reached) or None if state is TrialState.PRUNED else values,
        params=labelled,
        distributions={label: distributions[label] for label in labelled},
        intermediate_values=intermediate if single else {},
    )


def finite(value: object) -> float | None:
    """The value as a finite float, or None."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if number else None  # type: ignore[arg-type]
