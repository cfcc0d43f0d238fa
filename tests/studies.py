"""Small studies to run to their end, and what is looked at afterwards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import psutil

from sngd_tune.launch import resume_study, run_study
from sngd_tune.records.events import StudyListener
from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.search.searcher import StudySearcher
from sngd_tune.study_run import StudyResult
from sngd_tune.tracking.ledger import Ledger

ROOT = Path(__file__).parents[1]
MOONS, FAULTS = "tests.examples.moons:Moons", "tests.examples.faults"

#: What differs from run to run with nothing being wrong.
NOISE = ("seconds", "joules", "memory", "per_second")


def study(**changes: Any) -> StudyConfig:
    """Moons for three epochs, two trials, no confirmation, no mirror, no early stopping; `changes` replace parts."""
    values: dict[str, Any] = {
        "schema": 1,
        "name": "small",
        "workload": MOONS,
        "epochs": 3,
        "fixed": {"batch_size": 100, "fisher_interval": 5},
        "space": {"lr": {"low": 0.01, "high": 0.2, "log": True}},
        "search": {},
        "confirm": {"seeds": 0},
        "mlflow": {"enabled": False},
    }
    values |= {key: value for key, value in changes.items() if key != "search"}
    values["search"] = {"trials": 2, "scheduler": {"name": "none"}, **changes.get("search", {})}
    return StudyConfig.model_validate(values)


class Witness(StudyListener):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.started: list[TrialRecord] = []
        self.epochs: list[tuple[str, int]] = []
        self.finished: list[TrialRecord] = []

    def trial_started(self, record: TrialRecord) -> None:
        self.started.append(record)

    def epoch_finished(self, record: TrialRecord, metrics: EpochMetrics) -> None:
        self.epochs.append((record.trial, metrics.epoch))

    def trial_finished(self, record: TrialRecord) -> None:
        self.finished.append(record)


class Killer(Witness):
    """Kills the process of a trial with SIGKILL after `epoch`, in the first `times` attempts."""

    def __init__(self, epoch: int, times: int) -> None:
        super().__init__()
        self._epoch, self._times = epoch, times
        self.killed: list[int] = []

    def epoch_finished(self, record: TrialRecord, metrics: EpochMetrics) -> None:
        super().epoch_finished(record, metrics)
        if metrics.epoch >= self._epoch and record.attempt == len(self.killed) < self._times:
            (process,) = trial_processes()
            self.killed.append(process.pid)
            process.kill()


class Interrupter(Witness):
    """Presses Ctrl-C when a trial has finished."""

    def trial_finished(self, record: TrialRecord) -> None:
        super().trial_finished(record)
        if len(self.finished) == 1:
            raise KeyboardInterrupt


class WatchedSearcher(StudySearcher):
    """The searcher itself; its Optuna studies stay at hand."""

    studies: list[optuna.Study]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.studies.append(self.study)


def trial_processes(parent: int | None = None, actor: str = "Trainable") -> list[psutil.Process]:
    """The processes in which trials of our own Ray are trained, or those of another actor."""
    found = []
    for process in psutil.Process(parent).children(recursive=True):
        try:
            name = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if name.startswith("ray::") and actor in name:
            found.append(process)
    return found


def run(config: StudyConfig, directory: Path, listeners: Sequence[StudyListener] = ()) -> tuple[StudyResult, Ledger]:
    result = run_study(config, directory, listeners=listeners)
    return result, Ledger.open(directory)


def resume(directory: Path, listeners: Sequence[StudyListener] = ()) -> tuple[StudyResult, Ledger]:
    result = resume_study(directory, listeners=listeners)
    return result, Ledger.open(directory)


def outcomes(ledger: Ledger) -> dict[str, str]:
    return {record.trial: str(record.outcome) for record in ledger.trials()}


def epochs(ledger: Ledger, trial: str) -> list[int]:
    return [metrics.epoch for _, _, metrics in ledger.epoch_metrics(trial)]


def measured(ledger: Ledger, trial: str) -> list[dict[str, float]]:
    """What a trial measured, without the noise of times."""
    return [
        {name: value for name, value in metrics.scalars().items() if not any(word in name for word in NOISE)}
        for _, _, metrics in ledger.epoch_metrics(trial)
    ]


def attempts(ledger: Ledger, trial: str) -> list[tuple[int, int]]:
    """Every row that any attempt wrote for the trial: (attempt, epoch)."""
    rows = ledger.dataset().to_table(columns=["trial", "attempt", "epoch"]).to_pylist()
    return sorted((row["attempt"], row["epoch"]) for row in rows if row["trial"] == trial)
