"""What a kind of layer brings to the conformance suite (`tests/core/test_layer_kinds.py`)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Case", "draw", "seeded", "squared_error"]


def squared_error(output: Tensor) -> Tensor:
    """Mean over dimension 0 of the squared distance to a fixed wave."""
    wave = torch.sin(torch.arange(output.numel(), dtype=output.dtype)).view(output.shape)
    return (output - wave).square().sum() / len(output)


def draw(*shape: int, seed: int) -> Tensor:
    """Standard normal, float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeded(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """The same float64 module at each call."""

    def made() -> nn.Module:
        torch.manual_seed(0)
        return make().double()

    return made


@dataclass(frozen=True)
class Case:
    """One layer in one form, inside a model all parameters of which belong to local Fisher layers.

    Attributes:
        name: of the case.
        make: the model, float64, the same at each call (`seeded`).
        data: arguments of its forward, float64 where they are not integers, for a seed (`draw`).
        rows: ``(model, args) → {site name: a}``, the inputs of each site as `account` and `SNGD.layers` name it, with
            ``a: [*lead, n, d]`` (the positions of an example together, a final 1 for the bias), written down without
            help of the package.
        examples: in each batch.
        even: whether every row of every example is an input; False where rows fill up shorter sequences.
        loss: of the model's output; a mean over examples.
    """

    name: str
    make: Callable[[], nn.Module]
    data: Callable[[int], tuple[Any, ...]]
    rows: Callable[[nn.Module, tuple[Any, ...]], dict[str, Tensor]]
    examples: int
    even: bool = True
    loss: Callable[[Any], Tensor] = squared_error

    def __str__(self) -> str:
        return self.name
