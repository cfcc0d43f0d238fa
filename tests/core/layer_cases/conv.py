"""`nn.Conv1d` to `nn.Conv3d`, in every form of stride, padding, dilation and groups."""

from itertools import product

import torch
from torch import Tensor, nn

from tests.core.layer_cases.base import Case, draw, seeded


def patches(layer, x: Tensor) -> Tensor:
    """The patches of ``x: [B, C, *space]`` by loops over examples and places, ``[*lead, n, d]``."""
    axes = range(len(layer.kernel_size))
    for axis in axes:
        x = _pad(layer, x, axis)
    outputs = [range(0, x.shape[2 + a] - layer.dilation[a] * (layer.kernel_size[a] - 1), layer.stride[a]) for a in axes]
    channels = layer.in_channels // layer.groups
    rows = []
    for group in range(layer.groups):
        rows.append([])
        for example, places in product(range(len(x)), product(*outputs)):
            row = [
                x[(example, group * channels + channel, *_place(layer, places, offset))]
                for channel in range(channels)
                for offset in product(*map(range, layer.kernel_size))
            ]
            rows[-1].append(torch.stack(row + [x.new_ones(())] * (layer.bias is not None)))
    written = torch.stack([torch.stack(group) for group in rows])
    return written if layer.groups > 1 else written[0]


def _place(layer, places, offset):
    return tuple(place + step * j for place, step, j in zip(places, layer.dilation, offset, strict=True))


def _pad(layer, x, axis):
    if layer.padding == "valid":
        return x
    total = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
    before, after = (total // 2, total - total // 2) if layer.padding == "same" else (layer.padding[axis],) * 2
    n, at = x.shape[2 + axis], torch.arange(-before, x.shape[2 + axis] + after)
    if layer.padding_mode == "zeros":
        inside = ((at >= 0) & (at < n)).to(x.dtype).view(-1, *[1] * (x.dim() - 3 - axis))
        return x.index_select(2 + axis, at.clamp(0, n - 1)) * inside
    if layer.padding_mode == "reflect":
        at = (n - 1) - (at.abs() - (n - 1)).abs()
    at = at.clamp(0, n - 1) if layer.padding_mode == "replicate" else at % n
    return x.index_select(2 + axis, at)


def _case(name, layer, shape, batch=3):
    def rows(model, args):
        x = args[0] if batch else args[0].unsqueeze(0)
        return {"": patches(model, x)}

    shape = (batch, *shape) if batch else shape
    return Case(name, seeded(layer), lambda seed: (draw(*shape, seed=seed),), rows, examples=batch or 1)


def _stack():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.Tanh(),
        nn.Conv2d(4, 4, 2, groups=2, bias=False),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(4 * 2 * 2, 3),
    )


def _stack_rows(model, args):
    x = args[0]
    hidden = torch.tanh(model[0](x))
    flat = torch.tanh(model[2](hidden)).flatten(1)
    last = torch.cat((flat, torch.ones(len(flat), 1, dtype=x.dtype)), 1)
    return {"0": patches(model[0], x), "2": patches(model[2], hidden), "5": last}


CASES = [
    Case("conv-stack", seeded(_stack), lambda seed: (draw(6, 2, 6, 6, seed=seed),), _stack_rows, examples=6),
    _case("conv1d", lambda: nn.Conv1d(2, 3, 3, padding=2, dilation=2), (2, 7)),
    _case("conv1d-unbatched", lambda: nn.Conv1d(2, 3, 2, stride=2), (2, 8), batch=None),
    _case("conv1d-valid-groups", lambda: nn.Conv1d(4, 6, 3, padding="valid", groups=2), (4, 6)),
    _case("conv2d-same-even", lambda: nn.Conv2d(2, 2, (2, 4), padding="same", dilation=(1, 1)), (2, 3, 5)),
    _case("conv2d-reflect", lambda: nn.Conv2d(2, 2, 3, padding=(2, 1), padding_mode="reflect"), (2, 4, 3)),
    _case("conv2d-replicate", lambda: nn.Conv2d(2, 2, (2, 3), padding="same", padding_mode="replicate"), (2, 3, 4)),
    _case("conv2d-circular", lambda: nn.Conv2d(2, 2, (3, 2), padding=1, padding_mode="circular", stride=2), (2, 4, 5)),
    _case("conv2d-depthwise", lambda: nn.Conv2d(3, 6, (2, 3), groups=3, dilation=(2, 1)), (3, 5, 4)),
    _case("conv2d-unused-edge", lambda: nn.Conv2d(2, 3, 2, stride=3, bias=False), (2, 6, 7)),
    _case("conv2d-pointwise", lambda: nn.Conv2d(3, 2, 1), (3, 2, 3)),
    _case("conv2d-unbatched-groups", lambda: nn.Conv2d(4, 2, 2, groups=2, padding=1), (4, 2, 3), batch=None),
    _case("conv3d", lambda: nn.Conv3d(1, 2, (2, 1, 3), padding=(1, 0, 1), stride=(2, 1, 1)), (1, 3, 2, 3)),
    _case("conv3d-groups", lambda: nn.Conv3d(2, 2, 2, groups=2, bias=False), (2, 2, 3, 3)),
]
