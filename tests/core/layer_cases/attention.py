"""`nn.MultiheadAttention`: as self-attention and over another sequence, packed and with separate weights."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.core.layer_cases.base import Case, draw, seeded

WIDTH, HEADS = 6, 2


class SelfAttention(nn.Module):
    """Attention of a sequence to itself; the output alone."""

    def __init__(self, **arguments):
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, **arguments)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0]


class CrossAttention(nn.Module):
    """Attention to another sequence, without the weights; batch first in and out."""

    def __init__(self, **arguments):
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, **arguments)

    def forward(self, query: Tensor, key: Tensor, value: Tensor | None = None) -> Tensor:
        inputs = [query, key, key if value is None else value]
        if not self.attention.batch_first:
            inputs = [x if x is inputs[i - 1] else x.transpose(0, 1) for i, x in enumerate(inputs)]
            inputs[2] = inputs[1] if value is None else inputs[2]
        output = self.attention(inputs[0], key=inputs[1], value=inputs[2], need_weights=False)[0]
        return output if self.attention.batch_first else output.transpose(0, 1)


def _one(x: Tensor, bias: bool) -> Tensor:
    return torch.cat((x, torch.ones(*x.shape[:-1], 1, dtype=x.dtype)), -1) if bias else x


def _heads(module: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What the output projection gets, ``[N, L, E]``: the textbook, head by head."""
    if module.in_proj_weight is not None:
        weights = module.in_proj_weight.chunk(3)
    else:
        weights = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    biases = (None,) * 3 if module.in_proj_bias is None else module.in_proj_bias.chunk(3)
    q, k, v = (functional.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
    each = []
    for i in range(HEADS):
        part = slice(i * WIDTH // HEADS, (i + 1) * WIDTH // HEADS)
        scores = q[..., part] @ k[..., part].mT / (WIDTH // HEADS) ** 0.5
        each.append(scores.softmax(-1) @ v[..., part])
    return torch.cat(each, -1)


def _filled(x: Tensor, longest: int) -> Tensor:
    """Shorter sequences are filled with 0, and their rows weigh more: means over all rows stay theirs."""
    return functional.pad(x, (0, 0, 0, longest - x.shape[1])) * (longest / x.shape[1]) ** 0.5


def _rows(model, args):
    module = model.attention
    query, key, value = (args * 3)[:3] if len(args) == 1 else (*args, args[1])[:3]
    if query.dim() == 2:
        query, key, value = (x[None] for x in (query, key, value))
    if isinstance(model, SelfAttention) and args[0].dim() == 3 and not module.batch_first:
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
    bias, longest = module.in_proj_bias is not None, max(query.shape[1], key.shape[1])
    inputs = (query, key, value)
    if module.in_proj_weight is not None:
        packed = torch.stack([_filled(_one(x, bias), longest) for x in inputs]).flatten(1, 2)
        rows = {"attention.in_proj": packed}
    else:
        rows = {f"attention.{name}_proj": x.flatten(0, 1) for name, x in zip("qkv", inputs, strict=True)}
    return {**rows, "attention.out_proj": _one(_heads(module, *inputs), bias).flatten(0, 1)}


def _self(name, shape, examples, **arguments):
    make = seeded(lambda: SelfAttention(**arguments))
    return Case(name, make, lambda seed: (draw(*shape, seed=seed),), _rows, examples=examples)


def _cross(name, *shapes, **arguments):
    make = seeded(lambda: CrossAttention(**arguments))

    def data(seed):
        return tuple(draw(*shape, seed=10 * seed + i) for i, shape in enumerate(shapes))

    even = shapes[0][1] == shapes[1][1] or "kdim" in arguments
    return Case(name, make, data, _rows, examples=shapes[0][0], even=even)


CASES = [
    _self("attention-self", (4, 3, WIDTH), 4, batch_first=True),
    _self("attention-self-length-first", (3, 4, WIDTH), 4),
    _self("attention-self-no-bias", (4, 3, WIDTH), 4, batch_first=True, bias=False),
    _self("attention-self-unbatched", (5, WIDTH), 1, batch_first=True),
    _cross("attention-cross", (4, 3, WIDTH), (4, 3, WIDTH), batch_first=True),
    _cross("attention-cross-longer", (3, 2, WIDTH), (3, 4, WIDTH)),
    _cross("attention-cross-shorter", (3, 4, WIDTH), (3, 2, WIDTH), (3, 2, WIDTH), batch_first=True),
    _cross("attention-separate", (3, 2, WIDTH), (3, 4, 3), (3, 4, 5), batch_first=True, bias=False, kdim=3, vdim=5),
]
