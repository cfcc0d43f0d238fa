"""``sngd-tune bench trials``: what a study costs beside its trainings, in time and in the driver's memory.

Training: 60 trials of about half a second each. A bare loop trains the same configurations one after another in this
process; the study runs them through Ray Tune, ledger and all, on as many workers as there are CPUs. The overhead is the
study's wall-clock from its first trial's start to its last trial's end, times the workers, over the loop's.

Sleeping (``--concurrent C``): trials that sleep instead of training, so that any number of them run at a time on a few
CPUs. The overhead is over the ideal, in which a trial begins in the moment in which another ends. A thousand of them
(``--trials 1000``) show what grows with their number: the driver's memory, and the time from trial to trial.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from sngd_tune.cluster.nodes import alive_nodes
from sngd_tune.cluster.session import ray_session
from sngd_tune.errors import ConfigurationError
from sngd_tune.launch import run_study
from sngd_tune.records.events import StudyListener
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.trial import TrialConfig
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.tracking.ledger import Ledger
from sngd_tune.training import train
from sngd_tune.workloads.registry import find_workload
from sngd_tune.workloads.workload import Split, Splits, Workload

__all__ = ["Sleeping", "measure", "measure_sleeping"]

_TRIAL_SECONDS = 0.5
_NAP = 0.01
#: Trials at the beginning and at the end that are compared; the first ones, while processes start, are left out.
_HUNDRED = 100
_MB = 1e6


def measure(trials: int = 60, workers: int = 2) -> list[dict[str, Any]]:
    """One row: ``task, trials, workers, loop_seconds, study_seconds, overhead``.

    Args:
        trials: ≥ workers.
        workers: trials at a time, each with one CPU; the machine needs as many.
    """
    epochs = _epochs_of(_TRIAL_SECONDS)
    loop = _seconds(lambda: _train_all(trials, epochs))
    study = _span(_run(_training(trials, epochs)))
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


def measure_sleeping(
    trials: int = 64, concurrent: int = 16, seconds: float = 2.0, address: str | None = None
) -> list[dict[str, Any]]:
    """One row: ``task, trials, concurrent, start_seconds, ideal_seconds, study_seconds, overhead`` and what grows.

    The first round of trials waits until all processes have started, which takes ``start_seconds``, once a study. The
    other figures are from the end of the first trial on: then each slot has all rounds but one before it.

    ``driver_mb`` is how much the driver's resident set grows. ``first_ms`` and ``last_ms`` are the driver's processor
    time per trial, over up to a hundred trials after the first round and at the end: unlike wall-clock it says the same
    where other work shares the cores.

    Args:
        trials: a multiple of `concurrent`, at least three times it.
        concurrent: trials at a time; they share the CPUs of the cluster evenly.
        seconds: that each sleeps.
        address: of a Ray cluster; None: a local one.
    """
    rounds, rest = divmod(trials, concurrent)
    if rest or rounds < 3:
        raise ConfigurationError(f"trials={trials}: must be a multiple of concurrent={concurrent}, at least 3 times it")
    witness = _Witness()
    with ray_session(address):
        cpus = sum(node.cpus for node in alive_nodes())
        config = _sleeping(trials, seconds, int(cpus / concurrent * 10_000) / 10_000)
        _run(config, address, [witness])
    ideal, study = (rounds - 1) * seconds, witness.ends[-1] - witness.ends[0]
    processor = witness.processor[concurrent - 1 :]
    return [
        {
            "task": "sleeping",
            "trials": trials,
            "concurrent": concurrent,
            "start_seconds": round(witness.ends[0] - witness.begun - seconds, 2),
            "ideal_seconds": round(ideal, 2),
            "study_seconds": round(study, 2),
            "overhead": round(study / ideal - 1, 3),
            "driver_mb": round((witness.memory[-1] - witness.memory[0]) / _MB, 1),
            "first_ms": round(_per_trial(processor[: _HUNDRED + 1]), 1),
            "last_ms": round(_per_trial(processor[-_HUNDRED - 1 :]), 1),
        }
    ]


class Sleeping(Workload):
    """Steps that sleep. A study's `seconds` say how long a trial does."""

    def load(self, data_dir: Path | None) -> Splits:
        """Examples of nothing, of which an epoch takes ten seconds."""
        one, many = np.zeros((1, 1), np.float32), np.zeros((int(10 / _NAP), 1), np.float32)
        return Splits(Split(many, many), Split(one, one), Split(one, one))

    def model(self) -> nn.Module:
        """One weight."""
        return nn.Linear(1, 1, bias=False)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """After a nap in training, at once in evaluation."""
        if torch.is_grad_enabled():
            time.sleep(_NAP)
        return (outputs - targets).square().mean()


class _Witness(StudyListener):
    """Notes the time, and the driver's processor time and memory, as trials end."""

    def __init__(self) -> None:
        self.begun = 0.0
        self.ends: list[float] = []
        self.processor: list[float] = []
        self.memory: list[int] = []
        self._process = psutil.Process()

    def trial_started(self, record: TrialRecord) -> None:
        """The first one, whose process is there, while those of others still start."""
        self.begun = self.begun or time.perf_counter()

    def trial_finished(self, record: TrialRecord) -> None:
        """Note it."""
        self.ends.append(time.perf_counter())
        self.processor.append(time.process_time())
        self.memory.append(self._process.memory_info().rss)


def _run(config: StudyConfig, address: str | None = None, listeners: Sequence[StudyListener] = ()) -> list[TrialRecord]:
    with tempfile.TemporaryDirectory() as folder:
        run_study(config, Path(folder) / "bench", address=address, listeners=listeners)
        return Ledger.open(Path(folder) / "bench").trials()


def _span(records: Sequence[TrialRecord]) -> float:
    """Seconds from the first trial's start to the last one's end."""
    return max(record.updated for record in records) - min(record.started for record in records)


def _per_trial(times: Sequence[float]) -> float:
    """Mean difference (ms)."""
    return 1000 * (times[-1] - times[0]) / (len(times) - 1)


def _training(trials: int, epochs: int) -> StudyConfig:
    space = {"relative_damping": {"low": 1e-2, "high": 1.0, "log": True}}
    return _study(workload="digits_mlp", epochs=epochs, space=space, search=_search(trials))


def _sleeping(trials: int, seconds: float, cpus: float) -> StudyConfig:
    return _study(
        workload=f"{__name__}:Sleeping",
        epochs=10**6,  # the seconds end it
        seconds=seconds,
        fixed={"optimizer": "sgd", "batch_size": 1},
        space={"lr": {"low": 1e-3, "high": 1.0, "log": True}},
        search={**_search(trials), "resources": {"cpus": cpus}},
    )


def _search(trials: int) -> dict[str, Any]:
    return {"trials": trials, "scheduler": {"name": "none"}}


def _study(**parts: Any) -> StudyConfig:
    alone = {"confirm": {"seeds": 0}, "mlflow": {"enabled": False}}
    return StudyConfig.model_validate({"schema": 1, "name": "bench-trials", **parts, **alone})


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
