"""The early stopper of a study: Ray's, and the only one (Optuna's pruners never run here)."""

import math
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from sngd_tune.records.metrics import direction
from sngd_tune.records.study import StudyConfig

__all__ = ["decision_epochs", "make_scheduler"]


class _FiniteAsha(ASHAScheduler):
    """ASHA that keeps non-finite results out of its rungs.

    Ray enters them: an infinite value moves the cutoff of every later trial, and a rung of NaN alone warns.
    """

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """CONTINUE or STOP; a non-finite result decides nothing, as the trainable ends such a trial itself."""
        if not self._is_finite(result):
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Enter the last result of a trial in its rung."""
        if self._is_finite(result):
            super().on_trial_complete(tune_controller, trial, result)

    def _is_finite(self, result: dict[str, Any]) -> bool:
        value = result.get(self._metric or "")
        return isinstance(value, int | float) and math.isfinite(value)


def make_scheduler(config: StudyConfig) -> TrialScheduler:
    """The study's early stopper: ASHA by epochs on its one objective, or first come, first served.

    Results need ``epoch`` and the objective. A trial that reaches its last epoch ends there in any case.
    """
    scheduler = config.scheduler
    if scheduler.name == "none":
        return FIFOScheduler()
    objective = config.objectives[0]
    return _FiniteAsha(
        time_attr="epoch",
        metric=objective,
        mode={"minimize": "min", "maximize": "max"}[direction(objective)],
        max_t=config.epochs,
        grace_period=scheduler.grace_epochs,
        reduction_factor=scheduler.reduction_factor,
    )


def decision_epochs(config: StudyConfig) -> frozenset[int]:
    """The epochs at which the study's scheduler may stop a trial; a result has to be there at each of them."""
    scheduler = config.scheduler
    if scheduler.name == "none":
        return frozenset()
    rungs = []
    epoch = scheduler.grace_epochs
    while epoch < config.epochs:
        rungs.append(epoch)
        epoch *= scheduler.reduction_factor
    return frozenset(rungs)
