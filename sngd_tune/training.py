"""`Training`: one run of one configuration, epoch by epoch. It knows no Ray and no MLflow.

Data-parallel, where `torch.distributed` is initialized: each rank takes its equal part of every joint batch
(`trial.batch_size` is the joint one), and what comes out is what one process comes to, to rounding. Gradients are
averaged by `DistributedDataParallel`, which sends the first while the last are still computed, statistics and roots by
`core.distributed`. What would part the ranks is decided together: the end of the time, a loss that is not finite.

Three things are no joint batch's: batch normalization sees a rank's own part, dropout draws other numbers on each rank,
and a pass leaves out what ranks cannot share (`batches`).
"""

import dataclasses
import inspect
import math
import warnings
from collections.abc import Callable, Iterator
from itertools import chain, count
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sngd_tune.batches import Batches
from sngd_tune.core.distributed import Ranks
from sngd_tune.core.optimizer import SNGD
from sngd_tune.core.snapshots import Snapshot
from sngd_tune.core.stopwatch import Stopwatch
from sngd_tune.energy.meter import energy_meter
from sngd_tune.lr_schedule import LrSchedule
from sngd_tune.memory import PeakMemory
from sngd_tune.methods import build, local_fishers, output_observer
from sngd_tune.records.energy import SOURCES, Energy, total
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
            _tensors(split, self._device) for split in (splits.train, splits.validation, splits.test)
        )
        torch.manual_seed(trial.seed)
        self._ranks = Ranks()
        self._batches = Batches(
            len(self._train[0]), trial.batch_size, trial.seed, self._device, self._ranks.size, self._ranks.rank
        )
        self.model, self.optimizer = build(workload.model().to(self._device), trial, self._ranks.size)
        self._averaging = _averaging(self.model) if self._ranks.size > 1 else self.model
        self._show: Callable[[Tensor], None] | None = (
            output_observer(self.model, self.optimizer, likelihood) if likelihood is not None else None
        )
        self._schedule = LrSchedule(self.optimizer, trial.optimizer.lr_schedule)
        self._watch = Stopwatch(self._device)
        self._memory = PeakMemory(self._device)
        self._meter = energy_meter(self._device, gpu_share)
        self._energy = self._meter.nothing  # used so far, by all ranks; None once it is not known
        self._fishers = local_fishers(self.model, self.optimizer)
        for fisher in self._fishers.values():
            fisher.stopwatch = self._watch
        self._snapshots: dict[str, Snapshot] = {}
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
        self._draw_apart()
        refreshes = sum(fisher.refreshes for fisher in self._fishers.values())
        with self._meter:
            loss, examples, norms = self._train_epoch()
        self._energy = total([self._energy, self._of_all_ranks(self._meter.energy)])
        self.epochs += 1
        self._seconds = self._now
        seconds = {part: self._watch.seconds.get(part, 0.0) for part in _PARTS}
        self._watch.seconds.clear()
        finite = math.isfinite(loss)
        self._ranks.broadcast(self.model.buffers(), source=0)
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
            peak_memory_bytes=int(self._ranks.largest(self._memory.read(), self._device)),
            examples_per_second=examples / max(sum(seconds.values()), 1e-9),
            energy_joules=None if self._energy is None else self._energy.joules,
            energy_source=None if self._energy is None else self._energy.source,
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
            "energy": None if self._energy is None else dataclasses.asdict(self._energy),
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
        self._now = self._seconds
        energy = state.get("energy")  # not in checkpoints of before it was measured
        self._energy = None if energy is None else Energy(**energy)

    def _random_states(self) -> list[Tensor]:
        """Torch's global generators, which layers such as dropout draw from."""
        states = [torch.get_rng_state()]
        return [*states, torch.cuda.get_rng_state(self._device)] if self._device.type == "cuda" else states

    def _draw_apart(self) -> None:
        """Give each rank random numbers of its own, and for each epoch anew, so that no checkpoint has to hold them."""
        if self._ranks.size > 1:
            seeds = np.random.SeedSequence((self.trial.seed, self.epochs, self._ranks.rank))
            torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0]))

    def _look_at_the_clock(self) -> None:
        """Where time counts, all ranks go by the clock of the first: none may leave a loop alone."""
        now = self._seconds + sum(self._watch.seconds.values())
        self._now = now if self.trial.seconds is None else self._ranks.first(now, self._device)

    def _of_all_ranks(self, energy: Energy | None) -> Energy | None:
        """The sum over the ranks; None where one does not know its own, or has it from another source."""
        own = [energy.joules if energy is not None and energy.source == source else math.nan for source in SOURCES]
        joules = zip(self._ranks.sum(own, self._device), SOURCES, strict=True)
        return next((Energy(each, source) for each, source in joules if not math.isnan(each)), None)

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
        norms = (0.0, 0.0)
        for i, indices in enumerate(self._batches.take(self._steps_per_epoch), start=1):
            measured = i in (1, self._steps_per_epoch)
            loss, found = self._step(indices, measure=measured)
            norms = found if measured else norms
            total += loss * len(indices)
            seen += len(indices)
            self._meter.look()
            over = i == self._steps_per_epoch or self._time_is_over
            if (over or i % _LOSS_CHECK == 1) and not self._ranks.all_agree(bool(total.isfinite()), self._device):
                return math.nan, seen * self._ranks.size, norms
            if over:
                break
        return self._ranks.mean(float(total) / seen, self._device), seen * self._ranks.size, norms

    def _step(self, indices: Tensor, measure: bool) -> tuple[Tensor, tuple[float, float]]:
        def evaluate() -> Tensor:
            with self._watch("forward_backward"):
                inputs, targets = self._train[0][indices], self._train[1][indices]
                self.optimizer.zero_grad(set_to_none=True)
                outputs = self._averaging(inputs)
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
        self._look_at_the_clock()
        self._schedule.at(self._done)
        moved = [parameter.detach() - old for parameter, old in zip(parameters, before, strict=True)]
        return loss.detach(), (gradient_norm, _norm(moved))

    @torch.no_grad()
    def _evaluate(self, data: tuple[Tensor, Tensor]) -> tuple[float, float | None]:
        """Mean loss and accuracy; each rank evaluates some of the batches."""
        self.model.eval()
        loss, correct = 0.0, 0.0
        has_accuracy = False
        size = self._workload.evaluation_batch
        batches = list(zip(data[0].split(size), data[1].split(size), strict=True))
        for inputs, targets in batches[self._ranks.rank :: self._ranks.size]:
            outputs = self.model(inputs)
            loss += float(self._workload.loss(outputs, targets)) * len(inputs)
            right = self._workload.correct(outputs, targets)
            if right is not None:
                has_accuracy = True
                correct += float(right)
        loss, correct = self._ranks.sum([loss, correct], self._device)
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


def _averaging(model: nn.Module) -> nn.Module:
    """The model with gradients that are averaged over the ranks."""
    # Buffers follow at the end of an epoch: a reconstruction has its Fisher matrices there, too large for every step.
    parameters = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in parameters else "broadcast_buffers"  # before torch 2.13
    options: dict[str, Any] = {name: False}
    return DistributedDataParallel(model, **options)


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
