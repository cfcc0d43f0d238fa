"""Comparisons as their cells leave them: searches, winners trained again on fresh seeds, failures. All arithmetic."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.target import Target
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.report.comparison.summary import MethodResults, WorkloadResults
from tests.report import synthetic
from tests.report.synthetic import record, study

SECONDS, EVALUATIONS, STEPS = 10.0, 10, 20
TARGET = Target(metric="validation_loss", value=0.5, provenance="python -m somewhere")
SEEDS = (1000, 1001, 1002, 1003, 1004)


def epoch(number: int, loss: float, seconds: float = math.nan, **changes: Any) -> EpochMetrics:
    at = float(number) if math.isnan(seconds) else seconds
    values = {"steps": STEPS * number, "training_seconds": at, **changes}
    return dataclasses.replace(synthetic.epoch(number, loss, speed=1.0), **values)


def curve(reached_at: float) -> list[EpochMetrics]:
    """A training that is below the target from this second on (its ten evaluations lie accordingly); inf: never."""
    if math.isinf(reached_at):
        return [epoch(n, 0.6 + 0.4 / n) for n in range(1, EVALUATIONS + 1)]
    spacing = reached_at / 3  # the third evaluation is the first below it
    return [epoch(n, 1.4 / n, spacing * n) for n in range(1, EVALUATIONS + 1)]


def confirmation(
    candidate: str, seed: int, accuracy: float | None = 0.9, loss: float | None = 0.3, **changes: Any
) -> TrialRecord:
    values = {
        "trial": f"confirm-{candidate}-{seed}",
        "phase": "confirm",
        "candidate": candidate,
        "seed": seed,
        "outcome": Outcome.COMPLETED,
        "training_seconds": SECONDS,
        "test_accuracy": accuracy,
        "test_loss": loss,
    }
    return record(seed, **{**values, **changes})


def trial(number: int, loss: float | None, **changes: Any) -> TrialRecord:
    values = {
        "outcome": Outcome.COMPLETED,
        "objectives": {"validation_loss": loss},
        "training_seconds": SECONDS,
        "parameters": {"lr": 0.1 * (number + 1), "momentum": 0.9},
        "ended": float(number + 1),
    }
    return record(number, **{**values, **changes})


def method(
    times: Sequence[float] | Mapping[int, float],
    accuracy: Sequence[float | None] = (0.90, 0.91, 0.92, 0.91, 0.90),
    trials: int = 4,
    **changes: Any,
) -> MethodResults:
    """A method whose winner needs so many seconds on each seed (inf: a miss); `changes` are those of its study."""
    by_seed = times if isinstance(times, Mapping) else dict(zip(SEEDS, times, strict=False))
    search = [trial(n, 0.2 + 0.1 * n) for n in range(trials)]
    confirmed = [
        confirmation("best", seed, value, None if value is None else 1 - value)
        for seed, value in zip(by_seed, [*accuracy, *[0.9] * len(by_seed)], strict=False)
    ]
    epochs = {each.trial: curve(by_seed[each.seed]) for each in confirmed}
    first = min(by_seed.values(), default=math.inf)
    epochs |= {each.trial: curve(first * (1 + each.number)) for each in search}
    values: dict[str, Any] = {"seconds": SECONDS, "search": {"trials": trials}, **changes}
    return MethodResults(config=study(**values), trials=[*search, *confirmed], epochs=epochs)


def workload(label: str = "digits", seeds: int | None = None, **methods: MethodResults) -> WorkloadResults:
    return WorkloadResults(workload=label, target=TARGET, seconds=SECONDS, methods=methods, confirm_seeds=seeds)


def empty(**changes: Any) -> MethodResults:
    """A cell that has not begun."""
    return MethodResults(config=study(seconds=SECONDS, search={"trials": 4}, **changes), trials=[], epochs={})


def failing() -> MethodResults:
    """A cell all of whose trials failed."""
    outcomes = (Outcome.DIVERGED, Outcome.ERROR, Outcome.OUT_OF_MEMORY, Outcome.LOST)
    trials = [
        trial(n, math.nan, outcome=outcome, error=f"Traceback\nValueError: <b>[x]</b> {n}")
        for n, outcome in enumerate(outcomes)
    ]
    epochs = {each.trial: [epoch(1, math.nan), epoch(2, math.inf)] for each in trials}
    return MethodResults(config=study(seconds=SECONDS, search={"trials": 4}), trials=trials, epochs=epochs)


FAST, SLOW, MISSING = (1.0, 1.2, 0.9, 1.1, 1.0), (2.0, 2.2, 1.9, 2.1, 2.3), (math.inf,) * 5
