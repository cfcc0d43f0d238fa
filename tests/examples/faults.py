"""Workloads in which something goes wrong. Which fault, the batch size says: all that a loss sees of its trial."""

import time
from pathlib import Path

import torch
from torch import Tensor, nn

from sngd_tune.core.distributed import Ranks
from sngd_tune.workloads.workload import Splits
from tests.examples.moons import Moons

RAISES, RUNS_OUT_OF_MEMORY, DIVERGES = 50, 40, 20  # any other batch size trains; 200 examples are whole batches of each
SLOW = 100  # 0.6 s an epoch, so that each has a result of its own; of `FaultyOnOneRank`


class Faulty(Moons):
    """Raises or runs out of memory in epoch 3, or diverges in epoch 2."""

    def __init__(self) -> None:
        self._steps = 0

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        loss = super().loss(outputs, targets)
        if not torch.is_grad_enabled():
            return loss
        size = len(targets)
        self._steps += 1
        epoch = -(-self._steps * size // 200)
        if size == RAISES and epoch == 3:
            raise RuntimeError("the workload [of this test] raises in epoch 3")
        if size == RUNS_OUT_OF_MEMORY and epoch == 3:
            raise MemoryError("no memory left for this test")
        return loss * torch.nan if size == DIVERGES and epoch == 2 else loss


class FaultyOnOneRank(Moons):
    """Raises, diverges or is slow from epoch 2 on, on rank 1 alone, for whose part of a step the other ranks wait."""

    def __init__(self) -> None:
        self._seen = 0

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        loss, ranks = super().loss(outputs, targets), Ranks()
        if not torch.is_grad_enabled() or ranks.rank != 1:
            return loss
        size = ranks.size * len(targets)
        self._seen += size
        if self._seen > 200 and size == RAISES:
            raise RuntimeError("the workload [of this test] raises on one rank")
        if size == SLOW:
            time.sleep(0.3)
        return loss * torch.nan if self._seen > 200 and size == DIVERGES else loss


class AlwaysRaises(Moons):
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        raise RuntimeError("no batch is good enough")


class Slow(Moons):
    """Takes 0.6 s an epoch at batch size 100, so that each has a result of its own."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            time.sleep(0.3)
        return super().loss(outputs, targets)


class Hungry(Moons):
    """Takes half a GB more of memory in each step, at the batch size of a trial that runs out of it."""

    def __init__(self) -> None:
        self._eaten: list[Tensor] = []

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if torch.is_grad_enabled() and len(targets) == RUNS_OUT_OF_MEMORY:
            if len(self._eaten) == 20:
                raise AssertionError("10 GB, and nobody minds")
            self._eaten.append(torch.ones(125_000_000))
            time.sleep(0.2)
        return super().loss(outputs, targets)


class RaisesWhenLoading(Moons):
    def load(self, data_dir: Path | None) -> Splits:
        raise ZeroDivisionError("nothing to divide")


class LoadsNothing(Moons):
    def load(self, data_dir: Path | None) -> Splits:
        return None  # type: ignore[return-value]


class RaisesInModel(Moons):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, -1))


class Unfinished(Moons.__mro__[1]):  # type: ignore[misc]  # Workload itself: its methods are abstract
    """Has no methods yet."""


class WithoutAccuracy(Moons):
    correct = Moons.__mro__[1].correct  # type: ignore[assignment]
