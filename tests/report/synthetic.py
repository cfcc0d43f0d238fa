"""A study as a search leaves it: good, bad, stopped and failed trials, a confirmation. All arithmetic."""

import dataclasses
import math
import random
from pathlib import Path
from typing import Any

from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.tracking.ledger import Ledger

EPOCHS = 8


def study(**changes: Any) -> StudyConfig:
    space = {
        "lr": {"low": 0.01, "high": 1.0, "log": True},
        "relative_damping": {"low": 1e-4, "high": 10.0, "log": True},
        "fisher_interval": {"low": 5, "high": 100, "log": True},
        "granularity": {"choices": ["diagonal", "block", "input"]},
    }
    values = {"schema": 1, "name": "synthetic", "workload": "digits_mlp", "epochs": EPOCHS, "space": space}
    return StudyConfig.model_validate({**values, **changes})


def write_study(directory: Path, trials: int = 30, **changes: Any) -> Ledger:
    """The ledger of a study of so many trials; the same for the same arguments."""
    ledger = Ledger.create(directory, study(**changes))
    source, clock = random.Random(0), [1000.0, 1000.0]
    for number in range(trials):
        worker = clock.index(min(clock))
        clock[worker] = _search_trial(ledger, number, clock[worker], source)
    for candidate, loss in (("best", 0.10), ("default", 0.14)):
        for seed in range(5):
            _confirmation(ledger, candidate, seed, loss + source.uniform(0, 0.02), max(clock) + seed)
    return ledger


def record(number: int, **changes: Any) -> TrialRecord:
    base = TrialRecord(study="synthetic", workload="digits_mlp", trial=f"{number:04d}", number=number)
    return dataclasses.replace(base, **changes)


def _search_trial(ledger: Ledger, number: int, started: float, source: random.Random) -> float:
    parameters = {
        "lr": 10 ** source.uniform(-2, 0),
        "relative_damping": 10 ** source.uniform(-4, 1),
        "fisher_interval": round(10 ** source.uniform(0.7, 2)),
        "granularity": source.choice(["diagonal", "block", "input"]),
        "momentum": 0.9,
    }
    outcome = _outcome(parameters, source)
    epochs = {Outcome.STOPPED_EARLY: 2, Outcome.DIVERGED: 1, Outcome.ERROR: 0}.get(outcome, EPOCHS)
    speed = {"diagonal": 0.8, "block": 1.0, "input": 1.2}[parameters["granularity"]]
    floor = 0.1 + 0.1 * abs(math.log10(parameters["lr"]) + 0.8) + 0.02 * abs(math.log10(parameters["relative_damping"]))
    curve = [
        epoch(n, floor + 0.9 * math.exp(-n / speed) + source.uniform(0, 0.02), speed) for n in range(1, epochs + 1)
    ]
    at = [started + metrics.training_seconds for metrics in curve]
    first = record(number, parameters=parameters, seed=number, started=started, updated=started)
    ended = started + 0.2 + (at[-1] - started if at else 0.0)
    last = dataclasses.replace(
        first,
        outcome=outcome,
        epochs=epochs,
        objectives={"validation_loss": curve[-1].validation_loss if curve else None},
        training_seconds=curve[-1].training_seconds if curve else 0.0,
        updated=ended,
        ended=ended,
        error={
            Outcome.DIVERGED: "validation loss became NaN in epoch 2",
            Outcome.ERROR: "Traceback\n  …\nValueError: x",
        }.get(outcome),
    )
    ledger.write_trial(first)
    ledger.write_epochs(first, curve, at)
    ledger.write_trial(last)
    return ended


def _outcome(parameters: dict[str, Any], source: random.Random) -> Outcome:
    if parameters["lr"] > 0.6 and parameters["relative_damping"] < 0.1:
        return Outcome.DIVERGED
    return source.choices([Outcome.COMPLETED, Outcome.STOPPED_EARLY, Outcome.ERROR], [0.6, 0.37, 0.03])[0]


def epoch(number: int, loss: float, speed: float) -> EpochMetrics:
    return EpochMetrics(
        epoch=number,
        steps=100 * number,
        training_loss=loss * 0.9,
        validation_loss=loss,
        validation_accuracy=1 - loss / 3,
        training_seconds=speed * number,
        epoch_seconds=speed,
        forward_backward_seconds=speed,
        statistics_seconds=0.0,
        refresh_seconds=0.0,
        update_seconds=0.0,
        refreshes=1,
        gradient_norm=1.0,
        update_norm=0.1,
        peak_memory_bytes=1 << 28,
        examples_per_second=1e4,
    )


def _confirmation(ledger: Ledger, candidate: str, seed: int, loss: float, started: float) -> None:
    ledger.write_trial(
        record(
            seed,
            trial=f"confirm-{candidate}-{seed}",
            phase="confirm",
            candidate=candidate,
            seed=1000 + seed,
            outcome=Outcome.COMPLETED,
            epochs=EPOCHS,
            objectives={"validation_loss": loss},
            test_loss=loss,
            test_accuracy=1 - loss / 3,
            training_seconds=9.0,
            started=started,
            updated=started + 9.0,
            ended=started + 9.0,
        )
    )
