"""`nn.Embedding`: alone, with padding, and under a linear layer."""

import torch
from torch import nn

from tests.core.layer_cases.base import Case, seeded

VOCABULARY = 7


def _numbers(*shape):
    def data(seed):
        return (torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed)),)

    return data


def _one_hot(index):
    return nn.functional.one_hot(index.reshape(-1), VOCABULARY).double()


def _stack():
    return nn.Sequential(nn.Embedding(VOCABULARY, 4), nn.Tanh(), nn.Linear(4, 3, bias=False))


CASES = [
    Case(
        "embedding",
        seeded(lambda: nn.Embedding(VOCABULARY, 3)),
        _numbers(5),
        lambda model, args: {"": _one_hot(args[0])},
        examples=5,
    ),
    Case(
        "embedding-padding",
        seeded(lambda: nn.Embedding(VOCABULARY, 3, padding_idx=2)),
        _numbers(4, 3, 2),
        lambda model, args: {"": _one_hot(args[0])},
        examples=4,
    ),
    Case(
        "embedding-stack",
        seeded(_stack),
        _numbers(4, 3),
        lambda model, args: {"0": _one_hot(args[0]), "2": torch.tanh(model[0](args[0])).flatten(0, 1)},
        examples=4,
    ),
]
