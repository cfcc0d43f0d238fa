"""One rank of `test_training_ranks`: ``python -m tests.training_ranks RANK WORLD DIRECTORY`` writes its results."""

import dataclasses
import io
import itertools
import sys
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from sngd_tune.core.distributed import Ranks
from sngd_tune.energy.counters import GpuCounter
from sngd_tune.energy.meter import EnergyMeter
from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.records.trial import TrialConfig
from sngd_tune.training import Training
from sngd_tune.workloads.digits_mlp import DigitsMlp
from sngd_tune.workloads.workload import Split, Splits, Workload
from tests.examples.moons import Moons

KRON = {"base": "sgd", "granularity": "kron", "lr": 0.1}
CASES: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "lr_schedule": "cosine"},
    "adamw": {"optimizer": "adamw", "lr": 3e-3},
    "nadamw": {"optimizer": "nadamw", "lr": 3e-3},
    "fused sgd": {"base": "sgd", "lr": 0.1, "momentum": 0.9},
    "fused adamw": {"base": "adamw", "lr": 3e-3},
    "explicit sgd": {"base": "sgd", "form": "explicit", "step_bound": "none", "lr": 0.05, "relative_damping": 1.0},
    "explicit adamw": {"base": "adamw", "form": "explicit", "lr": 3e-3},
    "kron": KRON,
    "kron sampled": {**KRON, "root": "cholesky", "fisher": "sampled"},
    "explicit kron sampled": {**KRON, "form": "explicit", "step_bound": "none", "lr": 1e-3, "fisher": "sampled"},
    "unit exact": {"base": "sgd", "granularity": "unit", "root": "cholesky", "fisher": "exact", "lr": 0.1},
    "levenberg_marquardt": {"base": "sgd", "damping_policy": "levenberg_marquardt", "lr": 0.1},
}
#: Rounding decides much in these: Muon iterates in bfloat16, and SOAP goes by eigenvectors, of which pixels that are
#: always 0 leave many free.
SENSITIVE: dict[str, dict[str, Any]] = {
    "muon": {"optimizer": "muon", "lr": 3e-3},
    "soap": {"optimizer": "soap", "lr": 3e-3},
}
INTERVALS = {"fisher_interval": 10, "statistics_interval": 5}


class Digits(DigitsMlp):
    """In float64, in which two ranks and one process differ by nothing but the order of sums.

    1196 training examples: two ranks can share the last batch of a pass as well.
    """

    def load(self, data_dir: Path | None) -> Splits:
        splits = super().load(data_dir)
        train = Split(splits.train.inputs[:1196], splits.train.targets[:1196])
        return Splits(*(Split(s.inputs.astype(np.float64), s.targets) for s in (train, splits.validation, splits.test)))

    def model(self) -> nn.Module:
        return super().model().double()


class DivergesHere(Moons):
    """The loss of rank 1 is NaN from the start, that of rank 0 never."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return super().loss(outputs, targets) * (float("nan") if Ranks().rank == 1 else 1.0)


class Normalized(Moons):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))


def config(epochs: int = 2, seconds: float | None = None, seed: int = 1, **parameters: Any) -> TrialConfig:
    own = {} if "optimizer" in parameters else INTERVALS
    values = {"batch_size": 50, **own, **parameters}
    trial = TrialConfig.from_flat(values, workload="any", epochs=epochs, seed=seed, test=True)
    return dataclasses.replace(trial, seconds=seconds)


def run(trial: TrialConfig, workload: Workload) -> tuple[list[EpochMetrics], Training]:
    training = Training(trial, workload, workload.load(None), device="cpu")
    epochs = [training.epoch()]
    while not training.finished and epochs[-1].finite:
        epochs.append(training.epoch())
    return epochs, training


def parameters(training: Training) -> list[Tensor]:
    return [parameter.detach() for parameter in training.model.parameters()]


def _trained() -> dict[str, Any]:
    results = {}
    for name, case in {**CASES, **SENSITIVE}.items():
        epochs, training = run(config(**case), Digits())
        results[name] = [metrics.scalars() for metrics in epochs], parameters(training)
    return results


def _resumed(rank: int, directory: Path) -> tuple[list[Tensor], list[Tensor]]:
    """With dropout, from the checkpoint of the first rank."""
    trial, path = config(epochs=3, lr=0.05), directory / "checkpoint.pt"
    begun = Training(trial, Moons(), Moons().load(None))
    begun.epoch()
    if rank == 0:
        torch.save(begun.state_dict(), path)
    torch.distributed.barrier()
    resumed = Training(trial, Moons(), Moons().load(None))
    resumed.load_state_dict(torch.load(io.BytesIO(path.read_bytes()), weights_only=True))
    for training in (begun, resumed):
        for _ in range(2):
            training.epoch()
    return parameters(begun), parameters(resumed)


def _diverged() -> tuple[list[bool], int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # skipped steps
        epochs, _ = run(config(optimizer="sgd", lr=0.1, momentum=0.0), DivergesHere())
    return [metrics.finite for metrics in epochs], epochs[-1].steps


def _drawn() -> float:
    """The random number after an epoch: dropout's next one."""
    run(config(epochs=1, optimizer="sgd", lr=0.1), Moons())
    return float(torch.rand(()))


def _energy(rank: int) -> list[dict[str, Any] | None]:
    """Of ranks that use 1 J and 2 J an epoch: with GPUs of their own, then one of them with half a GPU."""
    found = []
    for share in (1.0, 1.0 if rank == 0 else 0.5):
        joules = itertools.count(step=(rank + 1) / share)
        meter = EnergyMeter(GpuCounter(joules.__next__, share))
        with mock.patch("sngd_tune.training.energy_meter", return_value=meter):
            epochs, _ = run(config(epochs=2, optimizer="sgd", lr=0.1), Moons())
        energy = epochs[-1].energy
        found.append(None if energy is None else dataclasses.asdict(energy))
    return found


def main(rank: int, world: int, directory: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{directory}/rendezvous", rank=rank, world_size=world, timeout=timedelta(seconds=60)
    )
    timed, _ = run(config(epochs=100_000, seconds=0.3, optimizer="adamw", lr=3e-3), Digits())
    normalized = run(config(epochs=2, optimizer="sgd", lr=0.1), Normalized())[1]
    results = {
        "trained": _trained(),
        "resumed": _resumed(rank, directory),
        "diverged": _diverged(),
        "drawn": _drawn(),
        "energy": _energy(rank),
        "timed": [(metrics.steps, metrics.training_seconds, metrics.validation_loss) for metrics in timed],
        "buffers": list(normalized.model.buffers()),
    }
    torch.save(results, directory / f"{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
