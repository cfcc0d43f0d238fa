"""Small records to write and read."""

import dataclasses
from pathlib import Path
from typing import Any

from sngd_tune.records.metrics import EpochMetrics, LayerDiagnostics
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.tracking.ledger import Ledger


def study(**changes: Any) -> StudyConfig:
    values = {
        "schema": 1,
        "name": "digits",
        "workload": "digits_mlp",
        "epochs": 3,
        "space": {"lr": {"low": 0.01, "high": 1.0}},
    }
    return StudyConfig.model_validate({**values, **changes})


def trial(number: int = 0, **changes: Any) -> TrialRecord:
    values = {
        "study": "digits",
        "workload": "digits_mlp",
        "trial": f"{number:04d}",
        "number": number,
        "parameters": {"lr": 0.1, "granularity": "input"},
        "started": 1000.0 + number,
        "updated": 1000.0 + number,
        "code_version": "0.1.0",
        "host": "here",
    }
    return TrialRecord(**{**values, **changes})


def ended(record: TrialRecord, outcome: Outcome = Outcome.COMPLETED, **changes: Any) -> TrialRecord:
    at = record.started + 100.0
    return dataclasses.replace(record, **{"outcome": outcome, "updated": at, "ended": at, "epochs": 3, **changes})


def epoch(number: int, **changes: Any) -> EpochMetrics:
    layer = LayerDiagnostics(layer="0", damping=0.01, condition_number=9.0, effective_rank=4.0, refreshes=number)
    values = {
        "epoch": number,
        "steps": 10 * number,
        "training_loss": 1.0 / number,
        "validation_loss": 1.1 / number,
        "validation_accuracy": 1.0 - 0.5 / number,
        "training_seconds": 0.5 * number,
        "epoch_seconds": 0.5,
        "forward_backward_seconds": 0.3,
        "statistics_seconds": 0.1,
        "refresh_seconds": 0.05,
        "update_seconds": 0.05,
        "refreshes": 1,
        "gradient_norm": 2.0,
        "update_norm": 0.2,
        "peak_memory_bytes": 1 << 28,
        "examples_per_second": 1e4,
        "layers": (layer,),
    }
    return EpochMetrics(**{**values, **changes})


def times(record: TrialRecord, epochs: list[EpochMetrics]) -> list[float]:
    return [record.started + metrics.training_seconds for metrics in epochs]


def write(ledger: Ledger, record: TrialRecord, epochs: int = 3, outcome: Outcome = Outcome.COMPLETED) -> TrialRecord:
    """A whole trial, as the callback writes it; its last record."""
    measured = [epoch(number) for number in range(1, epochs + 1)]
    ledger.write_trial(record)
    ledger.write_epochs(record, measured, times(record, measured))
    last = ended(record, outcome, epochs=epochs)
    ledger.write_trial(last)
    return last


def new_ledger(directory: Path, **changes: Any) -> Ledger:
    return Ledger.create(directory / "runs" / "digits", study(**changes))
