"""One rank of `test_communication`: ``python -m tests.communication RANK WORLD DIRECTORY`` writes what it measured."""

import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from sngd_tune.averaging import AveragedGradients
from sngd_tune.core.distributed import Ranks
from sngd_tune.core.stopwatch import Stopwatch
from tests.examples.moons import Moons
from tests.training_ranks import config, run

DELAY = 0.02  # seconds
CASES: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "lr": 0.1},
    "fused": {"base": "sgd", "lr": 0.1},
    "explicit": {"base": "sgd", "form": "explicit", "step_bound": "none", "lr": 0.05, "relative_damping": 1.0},
}


class SlowSecond(Moons):
    """The second rank takes `DELAY` longer for each forward pass."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if torch.is_grad_enabled() and Ranks().rank == 1:
            time.sleep(DELAY)
        return super().loss(outputs, targets)


def _delayed(name: str) -> Any:
    """A collective of `torch.distributed` on a slow network."""
    collective = getattr(distributed, name)

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(DELAY)
        return collective(*arguments, **options)

    return mock.patch.object(distributed, name, slow)


def _measured(workload: Moons, **case: Any) -> dict[str, float]:
    epochs, _ = run(config(epochs=1, **case), workload)
    return {name: float(value) for name, value in epochs[0].scalars().items()}


def _same_gradients() -> bool:
    """Whether the averages are bit for bit those of `DistributedDataParallel` without a hook."""
    torch.manual_seed(0)
    plain, measured = Moons().model().eval(), Moons().model().eval()  # without dropout
    measured.load_state_dict(plain.state_dict())
    torch.manual_seed(Ranks().rank)
    inputs = torch.randn(32, 2)
    wrapped = DistributedDataParallel(plain)  # which has to outlive the backward pass
    wrapped(inputs).exp().mean().backward()
    averaged = AveragedGradients(measured, Ranks(), Stopwatch("cpu"))
    averaged.backward(averaged(inputs).exp().mean())
    pairs = zip(plain.parameters(), measured.parameters(), strict=True)
    return all(one.grad is not None and torch.equal(one.grad, other.grad) for one, other in pairs)


def main(rank: int, world: int, directory: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{directory}/rendezvous", rank=rank, world_size=world, timeout=timedelta(seconds=60)
    )
    with _delayed("all_reduce"):
        reduced = {name: _measured(Moons(), **case) for name, case in CASES.items()}
    with _delayed("broadcast"):
        roots = _measured(Moons(), **CASES["fused"])
    results = {
        "reduced": reduced,
        "roots": roots,
        "slow second": _measured(SlowSecond(), **CASES["sgd"]),
        "same gradients": _same_gradients(),
    }
    torch.save(results, directory / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
