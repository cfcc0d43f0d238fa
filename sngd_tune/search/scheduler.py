"""The early stopper of a study: Ray's, and the only one (Optuna's pruners never run here)."""

import math
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from sngd_tune.records.metrics import direction
from sngd_tune.records.study import StudyConfig

__all__ = ["decided_by", "decisions", "make_scheduler"]


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
    """The study's early stopper: ASHA by epochs or seconds on its one objective, or first come, first served.

    Results need ``epoch``, ``training_seconds`` and the objective. A trial ends itself at its last epoch or second.
    """
    scheduler = config.scheduler
    if scheduler.name == "none":
        return FIFOScheduler()
    objective = config.objectives[0]
    first, last = _span(config)
    return _FiniteAsha(
        time_attr=decided_by(config),
        metric=objective,
        mode={"minimize": "min", "maximize": "max"}[direction(objective)],
        max_t=last,  # type: ignore[arg-type]  # seconds may be given in parts
        grace_period=first,  # type: ignore[arg-type]
        reduction_factor=scheduler.reduction_factor,
    )


def decided_by(config: StudyConfig) -> str:
    """What the rungs of the early stopper count: ``"epoch"`` or ``"training_seconds"``."""
    return "epoch" if config.scheduler.grace_seconds is None else "training_seconds"


def decisions(config: StudyConfig) -> tuple[float, ...]:
    """The epochs, or seconds, at which the early stopper may stop a trial; a result has to be there at each of them."""
    if config.scheduler.name == "none":
        return ()
    rung, last = _span(config)
    rungs = []
    while rung < last:
        rungs.append(rung)
        rung *= config.scheduler.reduction_factor
    return tuple(rungs)


def _span(config: StudyConfig) -> tuple[float, float]:
    """The first rung, and the end of a training."""
    grace = config.scheduler.grace_seconds
    if grace is None:
        return config.scheduler.grace_epochs, config.epochs
    assert config.seconds is not None  # a rule of the configuration
    return grace, config.seconds
