"""``sngd-tune bench convergence``: steps and seconds to the loss that the best of some plain optimizers ends at.

The question behind a default: which setting gets there first, untuned? SGD with momentum and AdamW get a grid of three
learning rates each; the *target* of a workload is the lowest validation loss that any of them has at the end. SNGD is
its default, and that with one thing changed. What passes the target is told by the validation loss at regular looks, so
steps and seconds are known to a look; a miss is None, and so is the figure of what diverged.

All candidates start from the same weights and see the same batches. They train by turns, from look to look, in one
process, so that whatever else the machine does hits all of them alike; evaluation is not counted. One seed and untuned
settings: this is for choosing defaults, and not a comparison of methods.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sngd_tune.core.optimizer import SNGD
from sngd_tune.errors import SngdTuneError
from sngd_tune.settings import FisherSettings
from sngd_tune.workloads.registry import find_workload, load_data
from sngd_tune.workloads.workload import Split, Splits, Workload

__all__ = ["BASELINES", "CANDIDATES", "WORKLOADS", "measure"]

_LOOKS = 20
_EVALUATED = 20  # validation batches, at most

Make = Callable[[nn.Module], torch.optim.Optimizer]

#: Embedded or in the data directory; one of each kind of layer.
WORKLOADS = ("mnist_mlp", "mnist_autoencoder", "fashion_cnn", "ptb_lstm", "shakespeare_transformer")


def _sgd(lr: float) -> Make:
    return lambda model: torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, fused=True)


def _adamw(lr: float) -> Make:
    return lambda model: torch.optim.AdamW(model.parameters(), lr=lr, fused=True)


def _sngd(lr: float | None = None, base: str | None = None, **settings: Any) -> Make:
    return lambda model: SNGD(model, FisherSettings(**settings), lr=lr, base=base)


#: What the target comes from.
BASELINES: dict[str, Make] = {
    **{f"sgd, lr {lr:g}": _sgd(lr) for lr in (0.03, 0.1, 0.3)},
    **{f"adamw, lr {lr:g}": _adamw(lr) for lr in (1e-3, 2e-3, 4e-3)},
}

#: The default, and that with one thing changed.
CANDIDATES: dict[str, Make] = {
    "default": _sngd(),
    "lr 0.002": _sngd(lr=2e-3),
    "rank 64": _sngd(rank=64),
    "damping 0.01": _sngd(relative_damping=0.01),
    "damping 1": _sngd(relative_damping=1.0),
    "diagonal": _sngd(granularity="diagonal"),
    "on sgd": _sngd(base="sgd"),
    "on sgd, damping 1": _sngd(base="sgd", relative_damping=1.0),
}


def measure(
    workloads: Sequence[str],
    data_dir: Path | None,
    steps: int = 600,
    batch_size: int = 128,
    threads: int = 1,
    seed: int = 0,
    announce: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """One row per workload and candidate.

    ``task, setting, loss`` (validation, at the end), ``target, steps_to_target, seconds_to_target, milliseconds`` (a
    step, evaluation left out).

    Args:
        workloads: registered names, or ``module:attribute``.
        data_dir: the user's data directory.
        steps: of training, ≥ 20.
        batch_size: examples per step.
        threads: of torch.
        seed: of weights and batches.
        announce: is told what is measured next.

    Raises:
        ConfigurationError: an unknown workload, or data that is not there.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rows = []
        for name in workloads:
            announce(name)
            workload, splits = find_workload(name), load_data(name, data_dir)
            rows += _rows(name, _trained(workload, splits, steps, batch_size, seed))
        return rows
    finally:
        torch.set_num_threads(before)


def _trained(workload: Workload, splits: Splits, steps: int, batch_size: int, seed: int) -> "dict[str, _Run]":
    everyone = {**BASELINES, **CANDIDATES}
    runs = {name: _Run(make, workload, splits, batch_size, seed) for name, make in everyone.items()}
    for _ in range(_LOOKS):
        for run in runs.values():
            run.go_on(steps // _LOOKS)
    return runs


@dataclass
class _Look:
    """Validation loss after so many steps and seconds of training."""

    steps: int
    seconds: float
    loss: float


@dataclass
class _Run:
    """One candidate on its way."""

    make: Make
    workload: Workload
    splits: Splits
    batch_size: int
    seed: int
    looks: list[_Look] = field(default_factory=list)

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        self._model = self.workload.model()
        self._optimizer = self.make(self._model)
        self._random = np.random.default_rng(self.seed)
        self._steps, self._seconds, self._over = 0, 0.0, False

    def go_on(self, steps: int) -> None:
        """Train, and look; what has diverged stays where it is."""
        for _ in range(steps):
            if not self._over:
                inputs, targets = _batch(self.splits.train, self._random, self.batch_size)
                start = time.perf_counter()
                self._step(inputs, targets)
                self._seconds += time.perf_counter() - start
                self._steps += 1
        self.looks.append(_Look(self._steps, self._seconds, math.nan if self._over else self._validation_loss()))

    def _step(self, inputs: Tensor, targets: Tensor) -> None:
        self._optimizer.zero_grad()
        loss = self.workload.loss(self._model(inputs), targets)
        loss.backward()
        try:
            self._optimizer.step()
        except SngdTuneError:  # too many steps without finite gradients
            self._over = True
        self._over = self._over or not math.isfinite(loss.item())

    @torch.no_grad()
    def _validation_loss(self) -> float:
        self._model.eval()
        split = self.splits.validation
        part = slice(0, _EVALUATED * self.batch_size)
        inputs, targets = torch.from_numpy(split.inputs[part]), torch.from_numpy(split.targets[part])
        pairs = zip(inputs.split(self.batch_size), targets.split(self.batch_size), strict=True)
        total = sum(float(self.workload.loss(self._model(x), y)) * len(x) for x, y in pairs)
        self._model.train()
        return total / len(inputs)


def _batch(split: Split, random: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
    index = random.integers(0, len(split), size)
    return torch.from_numpy(split.inputs[index]), torch.from_numpy(split.targets[index])


def _rows(task: str, runs: Mapping[str, _Run]) -> list[dict[str, Any]]:
    ends = [runs[name].looks[-1].loss for name in BASELINES]
    target = min((loss for loss in ends if math.isfinite(loss)), default=math.nan)
    return [{"task": task, "setting": name, **_figures(run.looks, target)} for name, run in runs.items()]


def _figures(looks: Sequence[_Look], target: float) -> dict[str, Any]:
    there = next((look for look in looks if look.loss <= target), None)
    last = looks[-1]
    return {
        "loss": _rounded(last.loss),
        "target": _rounded(target),
        "steps_to_target": there.steps if there else None,
        "seconds_to_target": _rounded(there.seconds) if there else None,
        "milliseconds": _rounded(last.seconds / last.steps * 1e3),
    }


def _rounded(value: float) -> float | None:
    """Four digits; None for what is not a number, which JSON does not know."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
