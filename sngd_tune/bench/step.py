"""``sngd-tune bench step``: time of an SNGD step over a step of torch.optim.SGD, refreshes and statistics included.

The task is the papers' network (784-80-80-80-10) at batch 128 on random images, in one thread. Each candidate trains
its own copy; blocks of 50 steps, one Fisher interval, alternate. The floor of ``input`` with a dense root is about 2.4:
its first layer alone multiplies an 80 × 785 gradient by a 785 × 785 matrix, 1.4 ms beside an SGD step of 1.1 ms.
"""

import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sngd_tune.bench.interleave import interleave, median_ratio
from sngd_tune.core.optimizer import SNGD
from sngd_tune.settings import FisherSettings
from sngd_tune.workloads.mnist_mlp import MnistMlp

__all__ = ["CANDIDATES", "measure"]

_BATCH = 128
_BATCHES = 50  # different ones, so that the data does not stay in the cache
_BASELINE = "sgd"

Make = Callable[[nn.Module], torch.optim.Optimizer]


def _sngd(granularity: str, base: str = "sgd", **settings: Any) -> Make:
    chosen = FisherSettings(granularity=granularity, **settings)
    return lambda model: SNGD(model, chosen, base=base)


#: Settings by name; what they leave out is default: fisher_interval 50, statistics_interval 20, grafted, momentum 0.9.
CANDIDATES: dict[str, Make] = {
    _BASELINE: lambda model: torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3),
    "default": lambda model: SNGD(model),
    "diagonal": _sngd("diagonal"),
    "block:64": _sngd("block:64"),
    "rank 16": _sngd("input", rank=16),
    "rank 64": _sngd("input", rank=64),
    "input": _sngd("input", root="cholesky"),
    "rank 16, adamw": _sngd("input", base="adamw", rank=16),
}


def measure(rounds: int = 25, threads: int = 1) -> list[dict[str, Any]]:
    """One row per candidate: ``task, setting, threads, milliseconds, ratio_amortized`` and its quartiles.

    Args:
        rounds: blocks of 50 steps per candidate, ≥ 1; the first block, with its warm-up and dense refreshes, is not
            counted.
        threads: CPU threads of torch.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    gc.disable()  # a collection would hit one candidate
    try:
        data = torch.rand(_BATCHES, _BATCH, 784), torch.randint(0, 10, (_BATCHES, _BATCH))
        seconds = interleave({name: _block(make, data) for name, make in CANDIDATES.items()}, rounds)
    finally:
        gc.enable()
        torch.set_num_threads(before)
    return [_row(name, values, seconds[_BASELINE], threads) for name, values in seconds.items()]


def _block(make: Make, data: tuple[Tensor, Tensor]) -> Callable[[], None]:
    torch.manual_seed(0)
    model = MnistMlp().model()
    return partial(_train, model, make(model), data)


def _train(model: nn.Module, optimizer: torch.optim.Optimizer, data: tuple[Tensor, Tensor]) -> None:
    for inputs, targets in zip(*data, strict=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()


def _row(name: str, seconds: list[float], baseline: list[float], threads: int) -> dict[str, Any]:
    median, lower, upper = median_ratio(seconds, baseline)
    return {
        "task": "mnist_mlp",
        "setting": name,
        "threads": threads,
        "milliseconds": round(sorted(seconds)[len(seconds) // 2] / _BATCHES * 1e3, 3),
        "ratio_amortized": round(median, 3),
        "lower_quartile": round(lower, 3),
        "upper_quartile": round(upper, 3),
    }
