"""`TrialSession`: a trial from its Tune config to its last result. It knows no Ray.

A result is flat: ``epoch``, ``outcome`` ("running" until the last), the objectives, ``epoch_metrics`` (a JSON list),
``error``, ``checkpoint``. It covers one epoch or several: each costs the driver milliseconds, and with short epochs the
driver would be the bottleneck (measured: 60 trials of half a second at 15 ms an epoch took 5 times as long with a
result an epoch). A result is due at every epoch at which the scheduler decides, at the end, and after `REPORT_SECONDS`.

A checkpoint holds the training and the metrics of its epochs: what a driver that was killed had not written down is
reported again by the attempt that goes on from there.
"""

import contextlib
import dataclasses
import io
import json
import logging
import math
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import torch

from sngd_tune.checkpoints import CheckpointStore
from sngd_tune.errors import FisherError, GpuMemoryError
from sngd_tune.gpu import limit_memory, wait_for_memory
from sngd_tune.records.metrics import OBJECTIVES, EpochMetrics
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.trial import TrialConfig
from sngd_tune.trainables.noise import NoiseProbe
from sngd_tune.trainables.plan import TrialPlan
from sngd_tune.trainables.system import Monitored, Trained
from sngd_tune.training import Training
from sngd_tune.workloads.registry import find_workload
from sngd_tune.workloads.workload import Splits

__all__ = ["TrialSession", "rehearse", "start_training", "trial_of"]

_log = logging.getLogger(__name__)

#: Seconds of training after which a result is sent even where nobody has to decide: the pace of progress displays.
REPORT_SECONDS = 0.5

#: For how long storage may be away when a trial goes on from its checkpoint.
STORAGE_SECONDS = 60.0

#: How long memory of a GPU that a dead process held may take to come back.
_GPU_SECONDS = 60.0


def trial_of(plan: TrialPlan, config: Mapping[str, Any]) -> TrialConfig:
    """The configuration that a Tune config proposes."""
    return TrialConfig.from_flat(
        config["parameters"],
        workload=plan.workload,
        epochs=plan.epochs,
        seed=config["seed"],
        seconds=plan.seconds,
        epoch_examples=plan.epoch_examples,
        test=config["phase"] == "confirm",
    )


def start_training(plan: TrialPlan, trial: TrialConfig, splits: Splits) -> Trained:
    """The training of a trial in this process, or this rank's share of it.

    Raises:
        GpuMemoryError: its share of a GPU does not come free.
        ConfigurationError: as `Training`.
    """
    if plan.gpus > 0:
        limit_memory(plan.gpus)
        wait_for_memory(plan.gpus, _GPU_SECONDS)
    workload = find_workload(plan.workload, plan.import_path)
    training = Training(trial, workload, splits, gpu_share=plan.gpus or 1.0)
    probed = training if plan.noise is None else NoiseProbe(training, plan.noise, workload, splits.train)
    return Monitored(probed)


def rehearse(trial: TrialConfig, start: Callable[[TrialConfig], Trained]) -> None:
    """Take the first two steps of a trial, which count for nothing.

    The first ones in a process are dearer than any later: code is loaded, memory is mapped (3 to 16 ms more on
    `digits_mlp` on a CPU; a GPU loads its libraries then). A training that has only seconds should not pay for that.

    Args:
        trial: whose steps to take.
        start: makes its training.
    """
    short = dataclasses.replace(trial, seconds=None, epochs=1, epoch_examples=2 * trial.batch_size)
    with contextlib.suppress(Exception):  # the training itself will say what is wrong
        start(short).epoch()


class TrialSession:
    """One attempt of a trial. What goes wrong in it, from its parameters on, is the outcome of its next result.

    Args:
        plan: of the study.
        config: ``{"study", "trial", "phase", "parameters", "seed", "attempt", "resume", "epochs_known", …}``: with
            ``resume`` it goes on from the newest checkpoint, and reports all after ``epochs_known``, which the driver
            does not know.
        start: makes its training.
    """

    def __init__(self, plan: TrialPlan, config: Mapping[str, Any], start: Callable[[TrialConfig], Trained]) -> None:
        self._plan, self._config, self._start = plan, config, start
        self._store = CheckpointStore(plan.checkpoints, config["study"], config["trial"])
        self._training: Trained | None = None  # made in the first result, whose errors are outcomes
        self._history: list[EpochMetrics] = []
        self._told = 0  # epochs that the driver knows
        self._decisions_passed = 0
        self._checkpoint: str | None = None
        self._saved = time.monotonic()

    def result(self) -> dict[str, Any]:
        """Train until a result is due; epochs before a failure are reported with it."""
        try:
            if self._training is None:
                self._training = self._begin()
            outcome = self._train(self._training)
        except GpuMemoryError:  # no fault of the trial's: it runs again, elsewhere or later
            raise
        except Exception as error:  # whatever a workload raises ends this trial, not the search
            return self._result(_outcome_of(error), traceback.format_exc())
        if outcome is Outcome.RUNNING and time.monotonic() - self._saved >= self._plan.checkpoint_seconds:
            self.save()
        return self._result(outcome)

    def save(self) -> None:
        """Write a checkpoint; where the storage is away the trial goes on, and the next result tries again."""
        if self._training is None or not self._history:
            return
        epochs = json.dumps([metrics.to_dict() for metrics in self._history])
        buffer = io.BytesIO()
        torch.save({"training": self._training.state_dict(), "epochs": epochs}, buffer)
        try:
            self._checkpoint = self._store.save(self._config["attempt"], self._history[-1].epoch, buffer.getvalue())
        except OSError as error:
            _log.warning("trial %s: no checkpoint can be written (%s); training goes on", self._trial, error)
        else:
            self._saved = time.monotonic()

    def release(self) -> None:
        """Let go of model and memory, so that the next trial in this process has them."""
        self._training = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _begin(self) -> Trained:
        training = self._start(trial_of(self._plan, self._config))
        content = self._newest() if self._config["resume"] else None
        if content is not None:
            state = torch.load(io.BytesIO(content), weights_only=True)
            training.load_state_dict(state["training"])
            self._history = [EpochMetrics.from_dict(values) for values in json.loads(state["epochs"])]
            self._told = min(self._config["epochs_known"], len(self._history))
        return training

    def _newest(self) -> bytes | None:
        """The newest checkpoint; storage that is away is waited for, and then the trial begins again."""
        end = time.monotonic() + STORAGE_SECONDS
        while True:
            try:
                return self._store.newest()
            except OSError as error:
                if time.monotonic() >= end:
                    _log.warning("trial %s: no checkpoint can be read (%s); it begins again", self._trial, error)
                    return None
                time.sleep(min(1.0, STORAGE_SECONDS))

    @property
    def _trial(self) -> str:
        return str(self._config["trial"])

    def _train(self, training: Trained) -> Outcome:
        """Train until a result is due, adding to the history."""
        start = time.monotonic()
        passed = self._decisions_passed
        while True:
            self._history.append(training.epoch())
            self._decisions_passed = self._passed(self._history[-1])
            if not self._history[-1].finite:
                return Outcome.DIVERGED
            if training.finished:
                return Outcome.COMPLETED
            if self._decisions_passed > passed or time.monotonic() - start >= REPORT_SECONDS:
                return Outcome.RUNNING

    def _passed(self, metrics: EpochMetrics) -> int:
        """How many points of decision lie behind."""
        return sum(getattr(metrics, self._plan.decided_by) >= decision for decision in self._plan.decisions)

    def _result(self, outcome: Outcome, error: str | None = None) -> dict[str, Any]:
        """A result; the objectives of a trial that failed are NaN, which never ranks."""
        epochs, self._told = self._history[self._told :], len(self._history)
        if outcome.failed:
            self.release()
        last = None if outcome.failed else epochs[-1]
        return {
            **{name: _number(getattr(last, name, None)) for name in OBJECTIVES},
            "epoch": self._history[-1].epoch if self._history else 0,
            "outcome": str(outcome),
            "epoch_metrics": json.dumps([metrics.to_dict() for metrics in epochs]),
            "error": error,
            "checkpoint": self._checkpoint,
            "done": outcome is not Outcome.RUNNING,
        }


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _outcome_of(error: Exception) -> Outcome:
    if isinstance(error, FisherError):
        return Outcome.DIVERGED
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return Outcome.OUT_OF_MEMORY
    return Outcome.ERROR
