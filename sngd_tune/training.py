"""`Training`: one run of one configuration, epoch by epoch. It knows no Ray and no MLflow."""

import math
import warnings
from collections.abc import Callable, Iterator
from itertools import chain, count
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from sngd_tune.core.optimizer import SNGD
from sngd_tune.core.snapshots import Snapshot
from sngd_tune.core.stopwatch import Stopwatch
from sngd_tune.memory import PeakMemory
from sngd_tune.methods import build, local_fishers, output_observer
from sngd_tune.records.metrics import EpochMetrics, LayerDiagnostics
from sngd_tune.records.trial import TrialConfig
from sngd_tune.workloads.likelihood import required_likelihood
from sngd_tune.workloads.workload import Split, Splits, Workload

__all__ = ["Training", "train"]

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
        likelihood = required_likelihood(workload) if trial.fisher and trial.fisher.needs_outputs else None
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._train, self._validation, self._test = (
            _tensors(split, self._device) for split in (splits.train, splits.validation, splits.test)
        )
        torch.manual_seed(trial.seed)
        self._order = torch.Generator().manual_seed(trial.seed)
        self.model, self.optimizer = build(workload.model().to(self._device), trial)
        self._show: Callable[[Tensor], None] | None = (
            output_observer(self.model, self.optimizer, likelihood) if likelihood is not None else None
        )
        self._schedule = _schedule(self.optimizer, trial, self._steps_per_epoch)
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
        """True after the last epoch."""
        return self.epochs >= self.trial.epochs

    def epoch(self) -> EpochMetrics:
        """Train one epoch and evaluate it.

        A loss that is NaN or infinite ends the epoch early; ``metrics.finite`` is False then.

        Raises:
            FisherError: the local Fisher layers met NaN, or have no root.
        """
        self._memory.reset()
        self._watch.seconds.clear()
        refreshes = sum(fisher.refreshes for fisher in self._fishers.values())
        loss, examples, norms = self._train_epoch()
        self.epochs += 1
        seconds = {part: self._watch.seconds.get(part, 0.0) for part in _PARTS}
        self._seconds += sum(seconds.values())
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
            "schedule": self._schedule.state_dict() if self._schedule else {},
            "order": self._order.get_state(),
            "random": self._random_states(),
            "epochs": self.epochs,
            "steps": self._steps,
            "seconds": self._seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`; the parameters' trajectory is that of the uninterrupted run, bit for bit."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self._schedule:
            self._schedule.load_state_dict(state["schedule"])
        self._order.set_state(state["order"].cpu())
        torch.set_rng_state(state["random"][0].cpu())
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state["random"][-1].cpu(), self._device)
        self.epochs, self._steps, self._seconds = state["epochs"], state["steps"], state["seconds"]

    def _random_states(self) -> list[Tensor]:
        """Torch's global generators, which layers such as dropout draw from."""
        states = [torch.get_rng_state()]
        return [*states, torch.cuda.get_rng_state(self._device)] if self._device.type == "cuda" else states

    @property
    def _steps_per_epoch(self) -> int:
        return -(-len(self._train[0]) // self.trial.batch_size)

    def _train_epoch(self) -> tuple[float, int, tuple[float, float]]:
        """One pass: mean loss, examples seen, norms of the last gradient and of the last update."""
        self.model.train()
        batches = (
            torch.randperm(len(self._train[0]), generator=self._order).to(self._device).split(self.trial.batch_size)
        )
        total = torch.zeros((), device=self._device)
        norms = (0.0, 0.0)
        for i, indices in enumerate(batches):
            last = i == len(batches) - 1
            loss, norms = self._step(indices, measure=last)
            total += loss * len(indices)
            if (last or i % _LOSS_CHECK == 0) and not bool(total.isfinite()):
                return math.nan, (i + 1) * self.trial.batch_size, norms
        return float(total) / len(self._train[0]), len(self._train[0]), norms

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
            if self._schedule:
                self._schedule.step()
        self._steps += 1
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


def _schedule(optimizer: torch.optim.Optimizer, trial: TrialConfig, steps_per_epoch: int) -> LRScheduler | None:
    if trial.optimizer.lr_schedule == "constant":
        return None
    return CosineAnnealingLR(optimizer, T_max=trial.epochs * steps_per_epoch)


def _norm(tensors: list[Tensor]) -> float:
    """Euclidean norm over all of them."""
    return math.sqrt(sum(float(torch.linalg.vector_norm(tensor.float())) ** 2 for tensor in tensors))
