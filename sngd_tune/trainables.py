"""The Ray adapter around `Training`: one actor, many trials.

Starting a process and importing torch costs about two seconds, more than many trials (measured: 2.1 s a trial without
reuse, 0.08 s with it). So actors are reused, and a trial leaves nothing behind: each builds its own model, optimizer
and generators, and `reset_config` drops those before.

A result is flat: ``epoch``, ``outcome`` ("running" until the last), the objectives, ``epoch_metrics`` (a JSON list),
``error``. It covers one epoch or several: each costs the driver milliseconds, and with short epochs the driver would be
the bottleneck (measured: 60 trials of half a second at 15 ms an epoch took 5 times as long with a result an epoch). A
result is due at every epoch at which the scheduler decides, at the end, and after `REPORT_SECONDS`.

A trial that diverges, runs out of memory or raises *ends* with that outcome; the actor lives on. Only the death of the
process is an error to Tune, and only that is retried, from the last checkpoint.
"""

import json
import math
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.tune.result import DONE, SHOULD_CHECKPOINT

from sngd_tune.errors import FisherError
from sngd_tune.gate import pass_gate
from sngd_tune.records.metrics import OBJECTIVES, EpochMetrics
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.trial import TrialConfig
from sngd_tune.training import Training, rehearse
from sngd_tune.workloads.registry import find_workload
from sngd_tune.workloads.workload import Splits, Workload

__all__ = ["TrialPlan", "TrialTrainable"]

#: Seconds of training after which a result is sent even where nobody has to decide: the pace of progress displays.
REPORT_SECONDS = 0.5

_CHECKPOINT = "training.pt"


@dataclass(frozen=True)
class TrialPlan:
    """What all trials of a study share.

    Attributes:
        workload: registered name or ``module:attribute``.
        import_path: folder from which the user's module is imported.
        epochs: of a training, at most.
        seconds: of a training, at most.
        epoch_examples: training examples of an epoch; None: all of them.
        checkpoint_seconds: least time between two checkpoints of a trial.
        threads: CPU threads of torch per trial, ≥ 1.
        decisions: epochs, or seconds of training where the early stopper counts those, at which it may stop a trial.
        decided_by: ``"epoch"`` or ``"training_seconds"``.
        gate: where a new process waits for the others (`sngd_tune.gate`).
    """

    workload: str
    import_path: str
    epochs: int
    seconds: float | None
    epoch_examples: int | None
    checkpoint_seconds: float
    threads: int
    decisions: tuple[float, ...]
    decided_by: str
    gate: Any


class TrialTrainable(tune.Trainable):
    """Runs trials one after another; `tune.with_parameters` hands it `plan` and `splits` once per process."""

    _training: Training | None

    def setup(self, config: dict[str, Any], plan: TrialPlan, splits: Splits) -> None:  # type: ignore[override]
        """Prepare the first trial; Ray's object store gives `splits` as views of one copy per node."""
        torch.set_num_threads(plan.threads)
        self._plan, self._splits = plan, splits
        self._new = True
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Prepare the next trial in this process."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The next epochs, or the end of a trial that failed; epochs before a failure are reported with it."""
        if self._new:
            self._new = False
            if self._plan.seconds is not None:
                rehearse(self._trial(self.config), self._workload, self._splits)
            pass_gate(self._plan.gate, self.config["phase"])
        epochs: list[EpochMetrics] = []
        try:
            if self._training is None:
                self._training = self._make(self.config)
            outcome = self._train(self._training, epochs)
        except Exception as error:  # whatever a workload raises ends this trial, not the search
            return self._result(epochs, _outcome_of(error), traceback.format_exc())
        return self._result(epochs, outcome)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Model, optimizer, Fisher layers and progress: tensors and numbers only."""
        assert self._training is not None  # Tune saves after a step
        torch.save(self._training.state_dict(), Path(checkpoint_dir) / _CHECKPOINT)
        self._saved = time.monotonic()

    def load_checkpoint(self, checkpoint_dir: str) -> None:  # type: ignore[override]  # Ray's hint is outdated
        """Go on from a checkpoint."""
        if self._training is None:
            self._training = self._make(self.config, resume=False)
        self._training.load_state_dict(torch.load(Path(checkpoint_dir) / _CHECKPOINT, weights_only=True))
        self._epoch = self._training.epochs

    def cleanup(self) -> None:
        """The end of the process's work."""
        self._release()

    def _begin(self, config: dict[str, Any]) -> None:
        self.config = config
        self._training = None  # made in the first step, whose errors are outcomes
        self._epoch = 0
        self._decisions_passed = 0
        self._saved = time.monotonic()

    def _make(self, config: Mapping[str, Any], resume: bool = True) -> Training:
        training = Training(self._trial(config), self._workload, self._splits)
        if resume and config["resume_from"] is not None:
            path = Path(config["resume_from"]) / _CHECKPOINT
            training.load_state_dict(torch.load(path, weights_only=True))
        return training

    def _trial(self, config: Mapping[str, Any]) -> TrialConfig:
        plan = self._plan
        return TrialConfig.from_flat(
            config["parameters"],
            workload=plan.workload,
            epochs=plan.epochs,
            seed=config["seed"],
            seconds=plan.seconds,
            epoch_examples=plan.epoch_examples,
            test=config["phase"] == "confirm",
        )

    @property
    def _workload(self) -> Workload:
        return find_workload(self._plan.workload, self._plan.import_path)

    def _train(self, training: Training, epochs: list[EpochMetrics]) -> Outcome:
        """Train until a result is due, adding to `epochs`."""
        start = time.monotonic()
        passed = self._decisions_passed
        while True:
            epochs.append(training.epoch())
            self._decisions_passed = self._passed(epochs[-1])
            if not epochs[-1].finite:
                return Outcome.DIVERGED
            if training.finished:
                return Outcome.COMPLETED
            if self._decisions_passed > passed or time.monotonic() - start >= REPORT_SECONDS:
                return Outcome.RUNNING

    def _passed(self, metrics: EpochMetrics) -> int:
        """How many points of decision lie behind."""
        return sum(getattr(metrics, self._plan.decided_by) >= decision for decision in self._plan.decisions)

    def _result(self, epochs: list[EpochMetrics], outcome: Outcome, error: str | None = None) -> dict[str, Any]:
        """A result; the objectives of a trial that failed are NaN, which never ranks."""
        if epochs:
            self._epoch = epochs[-1].epoch
        if outcome.failed:
            self._release()
        due = time.monotonic() - self._saved >= self._plan.checkpoint_seconds
        objectives = {name: math.nan if outcome.failed else _number(getattr(epochs[-1], name)) for name in OBJECTIVES}
        return {
            **objectives,
            "epoch": self._epoch,
            "outcome": str(outcome),
            "epoch_metrics": json.dumps([metrics.to_dict() for metrics in epochs]),
            "error": error,
            DONE: outcome is not Outcome.RUNNING,
            SHOULD_CHECKPOINT: due and outcome is Outcome.RUNNING,
        }

    def _release(self) -> None:
        """Let go of model and memory, so that the next trial in this process has them."""
        self._training = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _outcome_of(error: Exception) -> Outcome:
    if isinstance(error, FisherError):
        return Outcome.DIVERGED
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return Outcome.OUT_OF_MEMORY
    return Outcome.ERROR
