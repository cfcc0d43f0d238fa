"""`Training`: one run of one configuration, epoch by epoch. It knows no Ray and no MLflow."""

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator
from itertools import chain, count
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sngd_tune.batches import Batches
from sngd_tune.core.optimizer import SNGD
from sngd_tune.core.snapshots import Snapshot
from sngd_tune.core.stopwatch import Stopwatch
from sngd_tune.lr_schedule import LrSchedule
from sngd_tune.memory import PeakMemory
from sngd_tune.methods import build, local_fishers, output_observer
from sngd_tune.records.metrics import EpochMetrics, LayerDiagnostics
from sngd_tune.records.trial import TrialConfig
from sngd_tune.workloads.likelihood import required_likelihood
from sngd_tune.workloads.workload import Split, Splits, Workload

__all__ = ["Training", "rehearse", "train"]

_PARTS = ("forward_backward", "statistics", "refresh", "update")
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


def rehearse(trial: TrialConfig, workload: Workload, splits: Splits) -> None:
    """Take two steps that count for nothing.

    The first ones in a process are dearer than any later: code is loaded, memory is mapped (3 to 16 ms more on
    `digits_mlp` on a CPU; a GPU loads its libraries then). A training that has only seconds should not pay for that.
    """
    short = dataclasses.replace(trial, seconds=None, epochs=1, epoch_examples=2 * trial.batch_size)
    with contextlib.suppress(Exception):  # the training itself will say what is wrong
        Training(short, workload, splits).epoch()


class Training:
    """Model, optimizer and progress of one trial.

    Args:
        trial: what to train, and how.
        workload: model and loss.
        splits: its data; shared arrays are read, never written.
        device: default the first GPU where there is one, else the CPU.

    Raises:
        ConfigurationError: the trial's Fisher matrix needs a likelihood, and the workload has none.
    """

    def __init__(
        self, trial: TrialConfig, workload: Workload, splits: Splits, device: torch.device | str | None = None
    ):
        self.trial = trial
        self._workload = workload
        likelihood = required_likelihood(workload) if trial.needs_likelihood else None
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._train, self._validation, self._test = (
            _tensors(split, self._device) for split in (splits.train, splits.validation, splits.test)
        )
        torch.manual_seed(trial.seed)
        self._batches = Batches(len(self._train[0]), trial.batch_size, trial.seed, self._device)
        self.model, self.optimizer = build(workload.model().to(self._device), trial)
        self._show: Callable[[Tensor], None] | None = (
            output_observer(self.model, self.optimizer, likelihood) if likelihood is not None else None
        )
        self._schedule = LrSchedule(self.optimizer, trial.optimizer.lr_schedule)
        self._watch = Stopwatch(self._device)
        self._memory = PeakMemory(self._device)
        self._fishers = local_fishers(self.model, self.optimizer)
        for fisher in self._fishers.values():
            fisher.stopwatch = self._watch
        self._snapshots: dict[str, Snapshot] = {}
        self.epochs = 0
        self._steps = 0
        self._seconds = 0.0

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
        refreshes = sum(fisher.refreshes for fisher in self._fishers.values())
        loss, examples, norms = self._train_epoch()
        self.epochs += 1
        self._seconds = self._now
        seconds = {part: self._watch.seconds.get(part, 0.0) for part in _PARTS}
        self._watch.seconds.clear()
        finite = math.isfinite(loss)
        validation_loss, validation_accuracy = self._evaluate(self._validation) if finite else (math.nan, None)
        tested = self._evaluate(self._test) if finite and self.trial.test and self.finished else (None, None)
        return EpochMetrics(
            epoch=self.epochs,
            steps=self._steps,
            training_loss=loss,
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            test_loss=tested[0],
            test_accuracy=tested[1],
            training_seconds=self._seconds,
            epoch_seconds=sum(seconds.values()),
            **{f"{part}_seconds": value for part, value in seconds.items()},
            refreshes=sum(fisher.refreshes for fisher in self._fishers.values()) - refreshes,
            gradient_norm=norms[0],
            update_norm=norms[1],
            peak_memory_bytes=self._memory.read(),
            examples_per_second=examples / max(sum(seconds.values()), 1e-9),
            layers=self._diagnose() if finite else (),
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on: tensors and numbers only."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "batches": self._batches.state_dict(),
            "random": self._random_states(),
            "epochs": self.epochs,
            "steps": self._steps,
            "seconds": self._seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`; the parameters' trajectory is that of the uninterrupted run, bit for bit."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._batches.load_state_dict(state["batches"])
        torch.set_rng_state(state["random"][0].cpu())
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state["random"][-1].cpu(), self._device)
        self.epochs, self._steps, self._seconds = state["epochs"], state["steps"], state["seconds"]

    def _random_states(self) -> list[Tensor]:
        """Torch's global generators, which layers such as dropout draw from."""
        states = [torch.get_rng_state()]
        return [*states, torch.cuda.get_rng_state(self._device)] if self._device.type == "cuda" else states

    @property
    def _now(self) -> float:
        """Seconds of training so far."""
        return self._seconds + sum(self._watch.seconds.values())

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
        """Mean loss, examples seen, norms of the last gradient and update; of the first ones where time ended it."""
        self.model.train()
        total, seen = torch.zeros((), device=self._device), 0
        norms = (0.0, 0.0)
        for i, indices in enumerate(self._batches.take(self._steps_per_epoch), start=1):
            measured = i in (1, self._steps_per_epoch)
            loss, found = self._step(indices, measure=measured)
            norms = found if measured else norms
            total += loss * len(indices)
            seen += len(indices)
            over = i == self._steps_per_epoch or self._time_is_over
            if (over or i % _LOSS_CHECK == 1) and not bool(total.isfinite()):
                return math.nan, seen, norms
            if over:
                break
        return float(total) / seen, seen, norms

    def _step(self, indices: Tensor, measure: bool) -> tuple[Tensor, tuple[float, float]]:
        def evaluate() -> Tensor:
            with self._watch("forward_backward"):
                inputs, targets = self._train[0][indices], self._train[1][indices]
                self.optimizer.zero_grad(set_to_none=True)
                outputs = self.model(inputs)
                if self._show is not None:
                    self._show(outputs)
                loss = self._workload.loss(outputs, targets)
                loss.backward()
            return loss

        loss = evaluate()
        parameters = list(self.model.parameters()) if measure else []
        before = [parameter.detach().clone() for parameter in parameters]
        gradient_norm = _norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        with self._watch("update"):
            if isinstance(self.optimizer, SNGD) and self.optimizer.needs_closure:
                # Its first evaluation has been done.
                again = chain([loss], (evaluate() for _ in count()))
                self.optimizer.step(lambda: next(again).item())
            else:
                self.optimizer.step()
        self._steps += 1
        self._schedule.at(self._done)
        moved = [parameter.detach() - old for parameter, old in zip(parameters, before, strict=True)]
        return loss.detach(), (gradient_norm, _norm(moved))

    @torch.no_grad()
    def _evaluate(self, data: tuple[Tensor, Tensor]) -> tuple[float, float | None]:
        """Mean loss and accuracy."""
        self.model.eval()
        loss, correct = 0.0, 0.0
        has_accuracy = False
        size = self._workload.evaluation_batch
        for inputs, targets in zip(data[0].split(size), data[1].split(size), strict=True):
            outputs = self.model(inputs)
            loss += float(self._workload.loss(outputs, targets)) * len(inputs)
            right = self._workload.correct(outputs, targets)
            if right is not None:
                has_accuracy = True
                correct += float(right)
        return loss / len(data[0]), correct / len(data[0]) if has_accuracy else None

    def _diagnose(self) -> tuple[LayerDiagnostics, ...]:
        return tuple(self._diagnose_layer(name) for name, fisher in self._fishers.items() if fisher.refreshes)

    def _diagnose_layer(self, name: str) -> LayerDiagnostics:
        fisher = self._fishers[name]
        snapshot, before = fisher.snapshot(), self._snapshots.get(name)
        assert snapshot is not None  # it has been refreshed
        self._snapshots[name] = snapshot
        return LayerDiagnostics(
            layer=name,
            damping=float(fisher.damping.mean()),
            condition_number=snapshot.condition_number(float(fisher.damping.mean())),
            effective_rank=snapshot.effective_rank(),
            drift=snapshot.drift(before) if before is not None else None,
            refreshes=fisher.refreshes,
            root_failures=fisher.root_failures,
        )


def _tensors(split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    return _tensor(split.inputs, device), _tensor(split.targets, device)


def _tensor(array: np.ndarray, device: torch.device) -> Tensor:
    """A view of the array on the CPU, a copy on another device."""
    with warnings.catch_warnings():
        # Arrays in Ray's object store are read-only, which torch cannot express; nothing here writes to them.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array).to(device)


def _norm(tensors: list[Tensor]) -> float:
    """Euclidean norm over all of them."""
    return math.sqrt(sum(float(torch.linalg.vector_norm(tensor.float())) ** 2 for tensor in tensors))
