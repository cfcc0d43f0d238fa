"""Small problems for every method: one workload for each kind of network, and how a training is made on it."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from sngd_tune.records.trial import TrialConfig
from sngd_tune.training import Training
from sngd_tune.workloads.networks import LanguageLstm
from sngd_tune.workloads.workload import Split, Splits, Workload

CLASSES = 4


class Digitlike(Workload):
    """Prototypes of 6 × 6 pixels under noise, to be told apart; 80 to train, 40 to validate and to test."""

    likelihood = "softmax"
    shape: tuple[int, ...] = (36,)

    def load(self, data_dir: Path | None) -> Splits:
        rng = np.random.default_rng(0)
        prototypes = rng.random((CLASSES, 36))
        labels = rng.integers(CLASSES, size=160)
        images = prototypes[labels] + 0.2 * rng.standard_normal((160, 36))
        images = images.reshape(160, *self.shape).astype(np.float32)
        return Splits(*(Split(images[part], labels[part]) for part in (slice(80), slice(80, 120), slice(120, 160))))

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(36, 12), nn.Tanh(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, CLASSES))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)


class Convolutional(Digitlike):
    """The same as images, for two convolutions and a norm."""

    shape = (1, 6, 6)

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.GroupNorm(2, 4),
            nn.Tanh(),
            nn.Conv2d(4, 6, 3, stride=2),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(24, CLASSES),
        )


class Recurrent(Digitlike):
    """Tokens that count up, with an embedding and two LSTM layers; a prediction at each of 3 positions."""

    def load(self, data_dir: Path | None) -> Splits:
        start = np.random.default_rng(0).integers(6, size=(80, 1))
        tokens = (start + np.arange(4)) % 6
        parts = (slice(40), slice(40, 60), slice(60, 80))
        return Splits(*(Split(tokens[part, :-1].copy(), tokens[part, 1:].copy()) for part in parts))

    def model(self) -> nn.Module:
        return LanguageLstm(vocabulary=6, width=6)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())


WORKLOADS: dict[str, Workload] = {"linear": Digitlike(), "convolutional": Convolutional(), "recurrent": Recurrent()}

#: Settings under which each method trains these in a few steps.
METHODS: dict[str, dict[str, Any]] = {
    "sngd": {"optimizer": "sngd", "lr": 0.01, "fisher_interval": 5, "statistics_interval": 2},
    "sngd, explicit": {"base": "sgd", "form": "explicit", "step_bound": "graft", "lr": 0.1},
    "sngd, Nesterov": {"base": "sgd", "momentum_kind": "nesterov", "lr": 0.05},
    "sgd": {"optimizer": "sgd", "lr": 0.1},
    "sgd, Nesterov": {"optimizer": "sgd", "lr": 0.1, "momentum_kind": "nesterov"},
    "adamw": {"optimizer": "adamw", "lr": 0.02},
    "nadamw": {"optimizer": "nadamw", "lr": 0.02},
    "muon": {"optimizer": "muon", "lr": 0.02},
    "soap": {"optimizer": "soap", "lr": 0.02, "precondition_interval": 3},
    "exact_ngd": {"optimizer": "exact_ngd", "lr": 0.1, "momentum": 0.3},
}


def trial(epochs: int = 4, seed: int = 0, **parameters: Any) -> TrialConfig:
    values = {"batch_size": 10, "weight_decay": 1e-3, **parameters}
    return TrialConfig.from_flat(values, workload="toy", epochs=epochs, seed=seed)


def training(config: TrialConfig, kind: str = "linear") -> Training:
    workload = WORKLOADS[kind]
    return Training(config, workload, workload.load(None), device="cpu")
