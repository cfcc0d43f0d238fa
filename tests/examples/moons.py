"""A user's own workload, as the README describes one: two interleaved half-moons, and a small network with dropout."""

from pathlib import Path

import numpy as np
from torch import Tensor, nn

from sngd_tune.workloads.workload import Split, Splits, Workload


class Moons(Workload):
    """Points of the plane, each on one of two half-moons."""

    def load(self, data_dir: Path | None) -> Splits:
        rng = np.random.default_rng(0)
        labels = rng.permutation(np.repeat([0, 1], 200))
        angle = np.pi * rng.random(400)
        x = np.where(labels == 0, np.cos(angle), 1 - np.cos(angle))
        y = np.where(labels == 0, np.sin(angle), 0.5 - np.sin(angle))
        points = np.stack([x, y], axis=1) + 0.1 * rng.standard_normal((400, 2))
        points, labels = points.astype(np.float32), labels.astype(np.int64)
        return Splits(*(Split(points[part], labels[part]) for part in (slice(200), slice(200, 300), slice(300, 400))))

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    def correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.argmax(-1) == targets).sum()


MOONS = Moons()


def make_moons() -> Moons:
    """A workload may be a class, an instance or a function."""
    return Moons()


NUMBER = 3


def needs_an_argument(size: int) -> Moons:
    raise AssertionError(size)


def breaks() -> Moons:
    raise KeyError("no such column")
