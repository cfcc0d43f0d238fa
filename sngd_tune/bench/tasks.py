"""The tasks of ``sngd-tune bench step``: a model, batches of a real shape filled at random, and the floor of a setting.

All of them classify: the model gives logits ``[..., classes]``, and the loss is the mean cross-entropy. What a step
costs does not depend on what the numbers are, so nothing is read from a data set.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sngd_tune.settings import FisherSettings
from sngd_tune.workloads.mnist_mlp import MnistMlp
from sngd_tune.workloads.networks import LanguageLstm, SmallTransformer, small_cnn

__all__ = ["BLOCK", "TASKS", "LayerShape", "Learner", "Task", "extra_multiply_adds", "floor", "layer_shapes"]

#: Steps of a block: one default Fisher interval, so that each block holds its share of statistics and refreshes.
BLOCK = 50

_OVERSAMPLING = 8  # columns of a low-rank sketch beyond its rank, as in `core.nystrom`
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.RMSNorm)

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Task:
    """A model and its data.

    Attributes:
        name: as ``--task`` takes it.
        model: makes the model; the caller seeds.
        batch: makes one batch, inputs and targets.
        share: rounds that this task gets per round asked for; slow tasks get fewer.
    """

    name: str
    model: Callable[[], nn.Module]
    batch: Callable[[], Batch]
    share: float = 1.0

    def batches(self) -> list[Batch]:
        """`BLOCK` different ones, the same at each call, so that the data does not stay in the cache."""
        torch.manual_seed(1)
        return [self.batch() for _ in range(BLOCK)]

    def rounds(self, wanted: int) -> int:
        """Blocks a candidate for `wanted` rounds, ≥ 1."""
        return max(1, round(wanted * self.share))


@dataclass(frozen=True)
class LayerShape:
    """What a linear or convolutional layer multiplies: ``count`` times ``[n, d_in]`` by ``[d_in, d_out]``.

    Attributes:
        n: batch × positions.
        d_in: inputs of an output (channels of a group × kernel), the bias's 1 included.
        d_out: outputs of a group.
        count: groups.
    """

    n: int
    d_in: int
    d_out: int
    count: int = 1


def _images(batch: int, *shape: int) -> Batch:
    return torch.rand(batch, *shape), torch.randint(0, 10, (batch,))


def _tokens(batch: int, length: int, vocabulary: int) -> Batch:
    text = torch.randint(0, vocabulary, (batch, length + 1))
    return text[:, :-1].contiguous(), text[:, 1:].contiguous()


#: By name.
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("mnist_mlp", MnistMlp().model, lambda: _images(128, 784)),
        Task("cnn", small_cnn, lambda: _images(64, 1, 28, 28), share=0.2),
        Task("lstm", LanguageLstm, lambda: _tokens(20, 35, 1000), share=0.2),
        Task("transformer", SmallTransformer, lambda: _tokens(16, 128, 96), share=0.12),
    )
}


class Learner:
    """A model under training: each call is one step on a batch.

    Args:
        model: in training mode.
        optimizers: that step together, each with parameters of its own.
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]):
        self.model = model
        self.optimizers = optimizers

    def __call__(self, inputs: Tensor, targets: Tensor) -> None:
        """Forward, backward, update."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        self.loss(self.model(inputs), targets).backward()
        for optimizer in self.optimizers:
            optimizer.step()

    @staticmethod
    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy over all positions."""
        return nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten())

    def state_bytes(self) -> int | None:
        """Bytes of the tensors in the optimizers' `state_dict`; None where the state is not kept there."""
        return sum(_bytes([optimizer.state_dict() for optimizer in self.optimizers]).values())


def layer_shapes(model: nn.Module, inputs: Tensor) -> dict[str, LayerShape] | None:
    """Shapes of the linear and convolutional layers, by module name; None where it has others, norms aside."""
    modules = {name: m for name, m in model.named_modules() if any(True for _ in m.parameters(recurse=False))}
    if not all(isinstance(m, (nn.Linear, *_CONVOLUTIONS, *_NORMS)) for m in modules.values()):
        return None
    names = {module: name for name, module in modules.items() if not isinstance(module, _NORMS)}
    shapes: dict[str, LayerShape] = {}
    handles = [m.register_forward_hook(lambda m, _, s: shapes.update({names[m]: _shape(m, s)})) for m in names]
    with torch.no_grad():
        model(inputs)
    for handle in handles:
        handle.remove()
    return shapes


def extra_multiply_adds(shapes: Iterable[LayerShape], settings: FisherSettings, applications: int = 1) -> float | None:
    """Multiply-adds of a step beyond SGD's, on average over steps; None where it cannot be said.

    For ``input``: ``n d_in²`` where the batch enters ``G``, ``d_in³`` where the root is refreshed, ``d_out d_in²`` to
    apply it. For rank ``r``, sketched with ``l = r + 8`` columns: ``2 n d_in l``, ``d_in l²``, ``2 d_out d_in r``.

    Args:
        shapes: of the layers.
        settings: of all of them.
        applications: how often a step applies the root: twice with a base that works in its coordinates (Adam).
    """
    collected = 1 / settings.statistics_interval + 1 / settings.fisher_interval
    collected -= 1 / math.lcm(settings.statistics_interval, settings.fisher_interval)  # a refresh collects anyway
    total = 0.0
    for shape in shapes:
        parts = _parts(shape, settings)
        if parts is None:
            return None
        statistics, refresh, update = parts
        total += shape.count * (statistics * collected + refresh / settings.fisher_interval + update * applications)
    return total


def floor(extra: float, base: float) -> float:
    """The least ratio to SGD: ``1 + extra / base``.

    Args:
        extra: multiply-adds of a step beyond SGD's.
        base: those that the machine's fastest matrix product does in the time of an SGD step. (Not those that SGD does:
            on small layers it comes nowhere near that speed, and the quotient would be no floor.)
    """
    return 1 + extra / base


def _parts(shape: LayerShape, settings: FisherSettings) -> tuple[float, float, float] | None:
    """Multiply-adds of one statistics batch, one refresh and one application."""
    n, d, d_out = shape.n, shape.d_in, shape.d_out
    n = min(n, settings.positions or n)
    if settings.rank is not None:
        r, columns = min(settings.rank, d), min(settings.rank + _OVERSAMPLING, d)
        return 2 * n * d * columns, d * columns**2, d_out * d * min(2 * r, d)
    if settings.granularity == "diagonal":
        return n * d, d, d_out * d
    if settings.block is not None:
        if not settings.block.isdigit():
            return None
        b = d / math.ceil(d / int(settings.block))
        return n * d * b, d * b**2, d_out * d * b
    if settings.granularity == "kron":
        return n * (d**2 + d_out**2), d**3 + d_out**3, d_out * d**2 + d_out**2 * d
    units = {"input": 1, "unit": d_out}.get(settings.granularity)
    return None if units is None else (units * n * d**2, units * d**3, d_out * d**2)


def _shape(module: nn.Module, output: Tensor) -> LayerShape:
    weight = module.weight
    assert isinstance(weight, Tensor)
    d_in, count = math.prod(weight.shape[1:]) + (module.bias is not None), 1
    if isinstance(module, _CONVOLUTIONS):
        count = module.groups
    return LayerShape(output.numel() // weight.shape[0], d_in, weight.shape[0] // count, count)


def _bytes(value: Any) -> dict[int, int]:
    """Bytes of each storage below `value`, by its address."""
    if isinstance(value, Tensor):
        return {value.data_ptr(): value.numel() * value.element_size()}
    if isinstance(value, Mapping):
        below = list(value.values())
    elif isinstance(value, list | tuple):
        below = list(value)
    else:  # peers keep structured matrices of their own in the state
        below = [item for item in getattr(value, "__dict__", {}).values() if isinstance(item, Tensor)]
    return {address: size for item in below for address, size in _bytes(item).items()}
