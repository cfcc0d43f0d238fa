"""The gradient noise scale of a training in this process, after some of its epochs."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.records.study import NoiseConfig
from sngd_tune.scaling.coordinates import coordinates_of
from sngd_tune.scaling.noise import NoiseScale, measure_noise
from sngd_tune.training import Training
from sngd_tune.workloads.workload import Split, Workload

__all__ = ["NoiseProbe"]

#: Names in `EpochMetrics` by coordinates.
_NAMES = {"own": "noise_scale", "plain": "plain_noise_scale"}


class NoiseProbe:
    """A training whose metrics have the gradient noise scale, in plain coordinates and in the method's own.

    The training goes on as it would without, bit for bit: batches are drawn by a generator of the probe's own, and a
    copy of the model is differentiated. It is in training mode: the noise of dropout is noise of a step as well, and
    batch normalization sees batches as training does. Seconds, joules and peak memory of the metrics are the
    training's alone.

    Args:
        training: by itself; no rank of several.
        config: when it is measured, and from how many batches.
        workload: its loss.
        data: the training set.
    """

    def __init__(self, training: Training, config: NoiseConfig, workload: Workload, data: Split) -> None:
        self._training, self._config, self._workload, self._data = training, config, workload, data

    @property
    def finished(self) -> bool:
        """As the training's own, and so on below."""
        return self._training.finished

    def epoch(self) -> EpochMetrics:
        """The next one, with the noise scale after it where it is due."""
        metrics = self._training.epoch()
        if metrics.epoch not in self._config.epochs or not metrics.finite:
            return metrics
        return replace(metrics, **_fields(self._measure(metrics.epoch)))

    def state_dict(self) -> dict[str, Any]:
        return self._training.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._training.load_state_dict(state)

    def _measure(self, epoch: int) -> dict[str, NoiseScale]:
        model, examples = self._training.model, self._training.trial.batch_size
        coordinates = coordinates_of(model, self._training.optimizer)
        if not coordinates:
            return {}
        model.train()
        try:
            return measure_noise(model, self._loss, self._batches(epoch), examples, coordinates)
        finally:
            model.eval()

    def _batches(self, epoch: int) -> list[np.ndarray]:
        """Indices of examples, drawn with replacement; the same ones after the same epoch of a seed."""
        generator = np.random.default_rng((self._training.trial.seed, epoch))
        shape = self._config.batches, self._training.trial.batch_size
        return list(generator.integers(len(self._data), size=shape))

    def _loss(self, model: nn.Module, batch: np.ndarray) -> Tensor:
        device = next(model.parameters()).device
        inputs, targets = (torch.from_numpy(each[batch]).to(device) for each in (self._data.inputs, self._data.targets))
        return self._workload.loss(model(inputs), targets)


def _fields(scales: dict[str, NoiseScale]) -> dict[str, Any]:
    """Of `EpochMetrics`; gradients that are not finite say nothing."""
    found: dict[str, Any] = {}
    for coordinates, scale in scales.items():
        name = _NAMES[coordinates]
        if not math.isnan(scale.noise):
            found |= {name: scale.size, f"{name}_low": scale.low, f"{name}_high": scale.high}
    return found
