"""Gradients that are averaged over the ranks, while they are still computed, and what the ranks wait for that."""

import inspect
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from sngd_tune.core.distributed import Ranks
from sngd_tune.core.stopwatch import Stopwatch

__all__ = ["AveragedGradients"]


class AveragedGradients:
    """A model whose backward pass leaves the average of the ranks' gradients; with one rank, the model itself.

    `DistributedDataParallel` sends gradients in buckets, the first while the last are still computed. What a step would
    not take with an infinitely fast network is the time from the moment this rank's last bucket is ready until the
    averages are there. It goes to ``communication`` of the stopwatch, and holds the wait for a slower rank as well.

    Args:
        model: with at least one parameter to train.
        ranks: of the default group.
        watch: a part of it runs during each backward pass.
    """

    def __init__(self, model: nn.Module, ranks: Ranks, watch: Stopwatch):
        self._watch = watch
        self._waiting = ExitStack()
        self._model = self._wrapped(model, ranks.size) if ranks.size > 1 else model

    def __call__(self, inputs: Tensor) -> Tensor:
        """The model's outputs."""
        outputs: Tensor = self._model(inputs)
        return outputs

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of the mean of the ranks' losses."""
        with self._waiting:  # which the exchange of the last bucket enters
            loss.backward()

    def _wrapped(self, model: nn.Module, size: int) -> nn.Module:
        # Buffers follow at the end of an epoch: a reconstruction's hold Fisher matrices, too large for every step.
        known = inspect.signature(DistributedDataParallel).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # before torch 2.13
        options: dict[str, Any] = {name: False}
        wrapped = DistributedDataParallel(model, **options)
        wrapped.register_comm_hook(size, self._exchange)
        return wrapped

    def _exchange(self, size: int, bucket: distributed.GradBucket) -> torch.futures.Future[Tensor]:
        """What `DistributedDataParallel` does without a hook: scale first, then sum."""
        if bucket.is_last():
            self._waiting.enter_context(self._watch("communication"))
        scaled = bucket.buffer().mul_(1 / size)
        return distributed.all_reduce(scaled, async_op=True).get_future().then(lambda summed: summed.value()[0])
