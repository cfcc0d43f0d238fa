"""`nn.Linear`: with and without bias, and over positions."""

import torch
from torch import Tensor, nn

from tests.core.layer_cases.base import Case, draw, seeded


def _with_one(x: Tensor) -> Tensor:
    return torch.cat((x, torch.ones(len(x), 1, dtype=x.dtype)), 1)


def _stack() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3, bias=False))


def _stack_rows(model, args):
    x = args[0].reshape(-1, 5)
    return {"0": _with_one(x), "2": torch.tanh(model[0](x))}


CASES = [
    Case("linear", seeded(_stack), lambda seed: (draw(8, 5, seed=seed),), _stack_rows, examples=8),
    Case("linear-positions", seeded(_stack), lambda seed: (draw(4, 3, 2, 5, seed=seed),), _stack_rows, examples=4),
    Case(
        "linear-single-row",
        seeded(lambda: nn.Linear(5, 2)),
        lambda seed: (draw(5, seed=seed),),
        lambda model, args: {"": _with_one(args[0][None])},
        examples=1,
    ),
]
