"""Points and trainings of scaling studies, made by arithmetic."""

from typing import Any

from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.scaling import PlannedPoint, ScalingConfig
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.scaling.measures import Training
from sngd_tune.search.scaling import plan_points

SIZES, EXAMPLES = {"width": 64, "depth": 2}, 1000


def config(**changes: Any) -> ScalingConfig:
    values: dict[str, Any] = {
        "schema": 1,
        "name": "toy",
        "workload": "digits_mlp",
        "methods": {"sngd": {"optimizer": "sngd", "base": "sgd", "lr": 0.1}, "sgd": {"optimizer": "sgd", "lr": 0.1}},
        "fixed": {"batch_size": 50},
        "axes": {"width": [32, 64, 128]},
        "epochs": 4,
        "seeds": 2,
    }
    return ScalingConfig.model_validate({**values, **changes})


def points(**changes: Any) -> dict[str, PlannedPoint]:
    return {point.name: point for point in plan_points(config(**changes), SIZES, EXAMPLES)}


def epoch(number: int, step_seconds: float, loss: float, steps: int = 20, communication: float = 0.0) -> EpochMetrics:
    """An epoch of which three quarters are passes and `communication`; the first takes ten times as long."""
    seconds = steps * step_seconds * (10 if number == 1 else 1)
    return EpochMetrics(
        epoch=number,
        steps=number * steps,
        training_loss=loss,
        validation_loss=loss,
        training_seconds=steps * step_seconds * (9 + number),
        epoch_seconds=seconds,
        forward_backward_seconds=(0.75 - communication) * seconds,
        communication_seconds=communication * seconds,
        statistics_seconds=0.05 * seconds,
        refresh_seconds=0.05 * seconds,
        update_seconds=0.15 * seconds,
        refreshes=1,
        gradient_norm=1.0,
        update_norm=1.0,
        peak_memory_bytes=10**6,
        examples_per_second=steps * 50 / seconds,
    )


def training(
    point: PlannedPoint, seed: int, step_seconds: float, communication: float = 0.0, **changes: Any
) -> Training:
    """Four epochs with losses 1/2, 1/4, 1/6, 1/8, and a share of communication."""
    epochs = [epoch(n, step_seconds, 0.5 / n, communication=communication) for n in range(1, 5)]
    record: dict[str, Any] = {
        "study": "base",
        "workload": "digits_mlp",
        "trial": f"{point.name}.{seed}",
        "number": seed,
        "phase": "confirm",
        "candidate": point.name,
        "outcome": Outcome.COMPLETED,
        "epochs": 4,
        "training_seconds": epochs[-1].training_seconds,
        "started": 100.0,
        "ended": 110.0,
    }
    return Training(point, TrialRecord(**{**record, **changes}), epochs)
