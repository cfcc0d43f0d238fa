"""The learning rate over a training, as a function of the share of it that is done.

The share and not the step: where a training ends after some seconds, nobody knows beforehand how many steps it has.
"""

import math
from collections.abc import Callable

import torch

__all__ = ["SCHEDULES", "LrSchedule"]

#: Of a training: over which the learning rate rises before it falls (5 %, as AlgoPerf's baselines; Dahl et al. 2023).
WARMUP = 0.05
_FIRST = 0.01  # of the learning rate, where it begins to rise


def _constant(done: float) -> float:
    return 1.0


def _cosine(done: float) -> float:
    return (1 + math.cos(math.pi * min(done, 1.0))) / 2


def _warmup_cosine(done: float) -> float:
    if done < WARMUP:
        return _FIRST + (1 - _FIRST) * done / WARMUP
    return _cosine((done - WARMUP) / (1 - WARMUP))


#: Factor of the learning rate by the share that is done, from 0 to 1.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": _constant,
    "cosine": _cosine,
    "warmup_cosine": _warmup_cosine,
}


class LrSchedule:
    """Sets the learning rates of an optimizer's groups, each relative to what it was at first.

    Args:
        optimizer: whose groups have ``lr``.
        name: of `SCHEDULES`.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, name: str) -> None:
        self._optimizer = optimizer
        self._factor = SCHEDULES[name]
        self._initial = [float(group["lr"]) for group in optimizer.param_groups]
        self.at(0.0)

    def at(self, done: float) -> None:
        """Set the rates for the step that follows when the share `done` of the training is over."""
        for group, initial in zip(self._optimizer.param_groups, self._initial, strict=True):
            group["lr"] = initial * self._factor(done)
