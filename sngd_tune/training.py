"""`Training`: one run of one configuration, epoch by epoch. It knows no Ray and no MLflow.

Data-parallel, where `torch.distributed` is initialized: each rank takes its equal part of every joint batch
(`trial.batch_size` is the joint one), and what comes out is what one process comes to, to rounding. Gradients are
averaged by `averaging`, which sends the first while the last are still computed, statistics and roots by
`core.distributed`. What would part the ranks is decided together: the end of the time, a loss that is not finite.

Three things are no joint batch's: batch normalization sees a rank's own part, dropout draws other numbers on each rank,
and a pass leaves out what ranks cannot share (`batches`).
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from itertools import chain, count
from typing import Any

import torch
from torch import Tensor

from sngd_tune.averaging import AveragedGradients
from sngd_tune.batches import Batches
from sngd_tune.core.distributed import Ranks
from sngd_tune.core.optimizer import SNGD
from sngd_tune.core.safety import norms
from sngd_tune.core.stopwatch import Stopwatch
from sngd_tune.diagnosis import Diagnosis
from sngd_tune.energy.meter import energy_meter, joint
from sngd_tune.evaluation import evaluate
from sngd_tune.lr_schedule import LrSchedule
from sngd_tune.memory import PeakMemory
from sngd_tune.methods import build, local_fishers, output_observer, time_parts
from sngd_tune.randomness import draw_apart, random_states, set_random_states
from sngd_tune.records.energy import Energy, total
from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.records.trial import TrialConfig
from sngd_tune.workloads.likelihood import required_likelihood
from sngd_tune.workloads.workload import Splits, Workload

__all__ = ["Training", "train"]

_PARTS = ("forward_backward", "statistics", "refresh", "update", "communication")
_LOSS_CHECK = 50  # steps between looks at the running loss, each of which waits for the device


def train(trial: TrialConfig, workload: Workload, splits: Splits) -> Iterator[EpochMetrics]:
    """Train to the end, one `EpochMetrics` an epoch; stops after an epoch that diverged.

    Raises:
        ConfigurationError: the trial's Fisher matrix needs a likelihood, and the workload has none.
        FisherError: the local Fisher layers met NaN, or have no root.
    """
    training = Training(trial, workload, splits)
    while not training.finished:
        metrics = training.epoch()
        yield metrics
        if not metrics.finite:
            return


class Training:
    """Model, optimizer and progress of one trial, on one process or as one of the ranks of the default process group.

    On ranks, `epoch` is called by all of them, and a `state_dict` of the first is complete.

    Args:
        trial: what to train, and how.
        workload: model and loss.
        splits: its data; shared arrays are read, never written.
        device: default the first GPU where there is one, else the CPU.
        gpu_share: of a GPU that this process was given, by which it counts the GPU's energy as its own.

    Raises:
        ConfigurationError: the trial's Fisher matrix needs a likelihood, and the workload has none; its method or its
            `batch_size` is none for as many ranks.
    """

    def __init__(
        self,
        trial: TrialConfig,
        workload: Workload,
        splits: Splits,
        device: torch.device | str | None = None,
        gpu_share: float = 1.0,
    ):
        self.trial = trial
        self._workload = workload
        likelihood = required_likelihood(workload) if trial.needs_likelihood else None
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._train, self._validation, self._test = (
            split.tensors(self._device) for split in (splits.train, splits.validation, splits.test)
        )
        torch.manual_seed(trial.seed)
        self._ranks = Ranks()
        self._batches = Batches(
            len(self._train[0]), trial.batch_size, trial.seed, self._device, self._ranks.size, self._ranks.rank
        )
        self.model, self.optimizer = build(workload.model().to(self._device), trial, self._ranks.size)
        self._watch = Stopwatch(self._device)
        self._averaged = AveragedGradients(self.model, self._ranks, self._watch)
        self._show: Callable[[Tensor], None] | None = (
            output_observer(self.model, self.optimizer, likelihood) if likelihood is not None else None
        )
        self._schedule = LrSchedule(self.optimizer, trial.optimizer.lr_schedule)
        self._memory = PeakMemory(self._device)
        self._meter = energy_meter(self._device, gpu_share)
        self._energy = self._meter.nothing  # used so far, by all ranks; None once it is not known
        time_parts(self.model, self.optimizer, self._watch)
        self._diagnosis = Diagnosis(local_fishers(self.model, self.optimizer))
        self.epochs = 0
        self._steps = 0
        self._seconds = 0.0
        self._now = 0.0  # seconds of training so far

    @property
    def finished(self) -> bool:
        """True after the last epoch, or when the time is over."""
        return self.epochs >= self.trial.epochs or self._time_is_over

    def epoch(self) -> EpochMetrics:
        """Train one epoch and evaluate it.

        The end of the time ends the epoch early, and so does a loss that is NaN or infinite: then ``metrics.finite``
        is False.

        Raises:
            FisherError: the local Fisher layers met NaN, or have no root.
        """
        self._memory.reset()
        self._watch.seconds.clear()
        if self._ranks.size > 1:
            draw_apart(self.trial.seed, self.epochs, self._ranks.rank)
        refreshes = self._diagnosis.refreshes
        with self._meter:
            loss, examples, (gradient_norm, update_norm) = self._train_epoch()
        self._energy = total([self._energy, joint(self._meter.energy, self._ranks, self._device)])
        self.epochs += 1
        self._seconds = self._now
        seconds = {part: self._watch.seconds.get(part, 0.0) for part in _PARTS}
        self._watch.seconds.clear()
        finite = math.isfinite(loss)
        self._ranks.broadcast(self.model.buffers(), source=0)
        validated = self._evaluate(self._validation) if finite else (math.nan, None)
        tested = self._evaluate(self._test) if finite and self.trial.test and self.finished else (None, None)
        return EpochMetrics(
            epoch=self.epochs,
            steps=self._steps,
            training_loss=loss,
            validation_loss=validated[0],
            validation_accuracy=validated[1],
            test_loss=tested[0],
            test_accuracy=tested[1],
            training_seconds=self._seconds,
            epoch_seconds=sum(seconds.values()),
            **{f"{part}_seconds": value for part, value in seconds.items()},
            refreshes=self._diagnosis.refreshes - refreshes,
            gradient_norm=gradient_norm,
            update_norm=update_norm,
            peak_memory_bytes=int(self._ranks.largest(self._memory.read(), self._device)),
            examples_per_second=examples / max(sum(seconds.values()), 1e-9),
            energy_joules=None if self._energy is None else self._energy.joules,
            energy_source=None if self._energy is None else self._energy.source,
            layers=self._diagnosis.read() if finite else (),
            system={},  # whoever runs the training may watch its node
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on: tensors and numbers only."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "batches": self._batches.state_dict(),
            "random": random_states(self._device),
            "epochs": self.epochs,
            "steps": self._steps,
            "seconds": self._seconds,
            "energy": None if self._energy is None else dataclasses.asdict(self._energy),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`; the parameters' trajectory is that of the uninterrupted run, bit for bit."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._batches.load_state_dict(state["batches"])
        set_random_states(state["random"], self._device)
        self.epochs, self._steps, self._seconds = state["epochs"], state["steps"], state["seconds"]
        self._now = self._seconds
        energy = state.get("energy")  # not in checkpoints of before it was measured
        self._energy = None if energy is None else Energy(**energy)

    def _evaluate(self, data: tuple[Tensor, Tensor]) -> tuple[float, float | None]:
        return evaluate(self.model, self._workload, data, self._ranks)

    def _look_at_the_clock(self) -> None:
        """Where time counts, all ranks go by the clock of the first: none may leave a loop alone."""
        now = self._seconds + sum(self._watch.seconds.values())
        self._now = now if self.trial.seconds is None else self._ranks.first(now, self._device)

    @property
    def _time_is_over(self) -> bool:
        return self.trial.seconds is not None and self._now >= self.trial.seconds

    @property
    def _steps_per_epoch(self) -> int:
        examples = self.trial.epoch_examples
        return self._batches.per_pass if examples is None else -(-examples // self.trial.batch_size)

    @property
    def _done(self) -> float:
        """The share of the training that is over, by steps or by seconds, whichever is further."""
        by_steps = self._steps / (self.trial.epochs * self._steps_per_epoch)
        return max(by_steps, self._now / self.trial.seconds) if self.trial.seconds is not None else by_steps

    def _train_epoch(self) -> tuple[float, int, tuple[float, float]]:
        """Mean loss, examples seen, norms of the last gradient and update; of the first ones where time ended it.

        Of the joint batches: the parts of all ranks are equal, so their means have equal weights.
        """
        self.model.train()
        total, seen = torch.zeros((), device=self._device), 0
        measured = (0.0, 0.0)
        for i, indices in enumerate(self._batches.take(self._steps_per_epoch), start=1):
            measures = i in (1, self._steps_per_epoch)
            loss, found = self._step(indices, measure=measures)
            measured = found if measures else measured
            total += loss * len(indices)
            seen += len(indices)
            self._meter.look()
            over = i == self._steps_per_epoch or self._time_is_over
            if (over or i % _LOSS_CHECK == 1) and not self._ranks.all_agree(bool(total.isfinite()), self._device):
                return math.nan, seen * self._ranks.size, measured
            if over:
                break
        return self._ranks.mean(float(total) / seen, self._device), seen * self._ranks.size, measured

    def _step(self, indices: Tensor, measure: bool) -> tuple[Tensor, tuple[float, float]]:
        def passes() -> Tensor:
            with self._watch("forward_backward"):
                inputs, targets = self._train[0][indices], self._train[1][indices]
                self.optimizer.zero_grad(set_to_none=True)
                outputs = self._averaged(inputs)
                if self._show is not None:
                    self._show(outputs)
                loss = self._workload.loss(outputs, targets)
                self._averaged.backward(loss)
            return loss

        loss = passes()
        parameters = list(self.model.parameters()) if measure else []
        before = [parameter.detach().clone() for parameter in parameters]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        gradient_norm = math.hypot(*norms(gradients))
        with self._watch("update"):
            if isinstance(self.optimizer, SNGD) and self.optimizer.needs_closure:
                # Its first evaluation has been done.
                again = chain([loss], (passes() for _ in count()))
                self.optimizer.step(lambda: next(again).item())
            else:
                self.optimizer.step()
        self._steps += 1
        self._look_at_the_clock()
        self._schedule.at(self._done)
        moved = [parameter.detach() - old for parameter, old in zip(parameters, before, strict=True)]
        return loss.detach(), (gradient_norm, math.hypot(*norms(moved)))
