"""Workloads in which something goes wrong. Which fault, the batch size says: all that a loss sees of its trial."""

import time
from pathlib import Path

import torch
from torch import Tensor, nn

from sngd_tune.workloads.workload import Splits
from tests.examples.moons import Moons

RAISES, RUNS_OUT_OF_MEMORY, DIVERGES = 50, 40, 20  # any other batch size trains; 200 examples are whole batches of each


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


class AlwaysRaises(Moons):
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        raise RuntimeError("no batch is good enough")


class Slow(Moons):
    """Takes 0.6 s an epoch at batch size 100, so that each has a result of its own."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            time.sleep(0.3)
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
