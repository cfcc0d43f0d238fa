"""``sngd-tune bench trials``: wall-clock of a study over the same work in a bare loop in one process, per worker.

60 trials of about half a second each. A bare loop trains the same configurations one after another in this process; the
study runs them through Ray Tune, ledger and all, on as many workers as there are CPUs. The overhead is the study's
wall-clock from its first trial's start to its last trial's end, times the workers, over the loop's.
"""

import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from sngd_tune.launch import run_study
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.trial import TrialConfig
from sngd_tune.tracking.ledger import Ledger
from sngd_tune.training import train
from sngd_tune.workloads.registry import find_workload
from sngd_tune.workloads.workload import Splits

__all__ = ["measure"]

_TRIAL_SECONDS = 0.5


def measure(trials: int = 60, workers: int = 2) -> list[dict[str, Any]]:
    """One row: ``task, trials, workers, loop_seconds, study_seconds, overhead``.

    Args:
        trials: ≥ workers.
        workers: trials at a time, each with one CPU; the machine needs as many.
    """
    epochs = _epochs_of(_TRIAL_SECONDS)
    loop = _seconds(lambda: _train_all(trials, epochs))
    with tempfile.TemporaryDirectory() as folder:
        config = _study(trials, epochs)
        run_study(config, Path(folder) / "bench")
        records = Ledger.open(Path(folder) / "bench").trials()
    study = max(record.updated for record in records) - min(record.started for record in records)
    return [
        {
            "task": "digits_mlp",
            "trials": trials,
            "workers": workers,
            "loop_seconds": round(loop, 2),
            "study_seconds": round(study, 2),
            "overhead": round(study * workers / loop - 1, 3),
        }
    ]


def _study(trials: int, epochs: int) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "schema": 1,
            "name": "bench-trials",
            "workload": "digits_mlp",
            "epochs": epochs,
            "space": {"relative_damping": {"low": 1e-2, "high": 1.0, "log": True}},
            "search": {"trials": trials, "scheduler": {"name": "none"}},
            "confirm": {"seeds": 0},
            "mlflow": {"enabled": False},
        }
    )


def _train_all(trials: int, epochs: int) -> None:
    for _ in range(trials):
        _train_once(epochs)


def _train_once(epochs: int) -> None:
    trial = TrialConfig.from_flat({}, workload="digits_mlp", epochs=epochs, seed=0)
    for _ in train(trial, find_workload("digits_mlp"), _splits()):
        pass


@cache
def _splits() -> Splits:
    """The data, read once, as a study does."""
    return find_workload("digits_mlp").load(None)


def _epochs_of(seconds: float) -> int:
    """How many epochs a trial of this length has on this machine."""
    torch.set_num_threads(1)
    _train_once(2)
    return max(2, round(seconds / _seconds(lambda: _train_once(20)) * 20))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
