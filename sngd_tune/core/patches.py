"""The inputs of convolutions: patches that nobody writes down where a statistic has a shorter way.

A convolution is ``s = W a`` with the patches of its input as rows ``a`` (Grosse and Martens 2016). All patches
together are up to K times as large as the input, K the kernel positions; only `rows`, `chunks` and `take` copy any.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sngd_tune.core.inputs import Inputs, Rows

__all__ = ["Kernel", "Patches"]

#: Bytes of patches that `Patches.chunks` writes down at a time. On a CPU the writing takes 6 % to 10 % as long as the
#: product with them (289 and 577 inputs); 0.5 to 4 MiB make no difference, as they stay in the cache, 8 MiB are slower.
_CHUNK = 4 * 2**20


@dataclass(frozen=True)
class Kernel:
    """Of a convolution over an input that is padded already.

    Attributes:
        size: of the kernel, one number for each of the dimensions of space.
        stride: of the outputs.
        dilation: between kernel positions.
        groups: of channels that do not see each other.
        bias: whether a final 1 belongs to each patch.
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    bias: bool

    @property
    def positions(self) -> int:
        """K."""
        return math.prod(self.size)

    def outputs(self, space: tuple[int, ...]) -> tuple[int, ...]:
        """Output positions along each dimension of a padded input of these sizes."""
        every = zip(space, self.size, self.stride, self.dilation, strict=True)
        return tuple((n - dilation * (size - 1) - 1) // stride + 1 for n, size, stride, dilation in every)

    def windows(self, x: Tensor) -> Tensor:
        """The patches of ``x: [B, C, *space]`` as a view ``[B, C, *outputs, *size]``."""
        for axis, (size, stride, dilation) in enumerate(zip(self.size, self.stride, self.dilation, strict=True)):
            x = x.unfold(2 + axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
        return x

    def sums(self, x: Tensor) -> Tensor:
        """The patches of ``x: [..., C, *space]`` summed over all output positions, ``[..., C, K]``.

        One product for each dimension of space.
        """
        outputs = self.outputs(x.shape[-len(self.size) :])
        for size, stride, dilation, count in zip(self.size, self.stride, self.dilation, outputs, strict=True):
            axis = -len(self.size)
            # member[i, j]: whether kernel position j falls on place i for some output.
            member = x.new_zeros(x.shape[axis], size)
            for j in range(size):
                member[dilation * j :: stride, j][:count] = 1
            x = torch.tensordot(x, member, dims=([axis], [0]))  # the kernel's dimensions line up behind
        return x.flatten(-len(self.size))


class Patches(Inputs):
    """The patches ``a: [*lead, n, d]`` of a batch, ordered channel by channel; ``lead`` are the groups, if several.

    Args:
        x: padded input ``[examples, C, *space]``.
        kernel: of the convolution.
    """

    def __init__(self, x: Tensor, kernel: Kernel):
        self._x, self._kernel = x, kernel
        self._outputs = kernel.outputs(tuple(x.shape[2:]))
        self.examples = len(x)
        self.count = self.examples * math.prod(self._outputs)
        self._lead = (kernel.groups,) if kernel.groups > 1 else ()

    def rows(self) -> Tensor:
        return self._written(self._kernel.windows(self._x))

    def to(self, dtype: torch.dtype) -> "Patches":
        return self if self._x.dtype == dtype else Patches(self._x.to(dtype), self._kernel)

    def is_finite(self) -> bool:
        flat = self._x.reshape(-1)
        return bool(torch.dot(flat, flat).isfinite())

    def take(self, index: Tensor) -> Rows:
        x = self._x.contiguous()
        example, channel, *space = self._kernel.windows(x).stride()
        at = torch.unravel_index(index, (self.examples, *self._outputs))
        places = sum((i * stride for i, stride in zip(at[1:], space, strict=False)), at[0] * example)
        within = torch.arange(x.shape[1], device=x.device) * channel
        for size, stride in zip(self._kernel.size, space[len(self._outputs) :], strict=True):
            within = within.unsqueeze(-1) + torch.arange(size, device=x.device) * stride
        # By number from the flat input: an index into the view of the patches takes two to ten times as long.
        taken = x.view(-1).take(places.view(-1, 1) + within.reshape(-1))
        return Rows(self._grouped(taken.view(len(index), x.shape[1], -1)))

    def chunks(self) -> Iterator[Tensor]:
        windows = self._kernel.windows(self._x)
        size = windows[0].numel() * self._x.element_size() if self.examples else 0
        if size <= _CHUNK:
            for part in windows.split(max(1, _CHUNK // max(size, 1))):
                yield self._written(part)
            return
        lines = max(1, self._outputs[0] * _CHUNK // size)  # along the first dimension of space
        for example in windows.split(1):
            for part in example.split(lines, dim=2):
                yield self._written(part)

    def diagonal(self) -> Tensor:
        # The mean over the batch first: what is left of the work does not grow with it.
        moments = self._kernel.sums(self._x.square().mean(0)) / math.prod(self._outputs)
        return self._grouped(moments.unsqueeze(0)).squeeze(-2)

    def sketch(self, basis: Tensor) -> Tensor:
        """The products ``y = aᵀΩ`` are a convolution with Ω, and ``Σ a yᵀ`` is a convolution's weight gradient."""
        kernel, rank = self._kernel, basis.shape[-1]
        columns = basis.unflatten(0, (-1,)) if self._lead else basis.unsqueeze(0)
        weight = columns[:, : columns.shape[1] - kernel.bias].mT.reshape(kernel.groups * rank, -1, *kernel.size)
        bias = columns[:, -1].reshape(-1) if kernel.bias else None
        zeros = [0] * len(kernel.size)
        geometry = (kernel.stride, zeros, kernel.dilation, False, zeros, kernel.groups)
        y = torch.ops.aten.convolution(self._x, weight, bias, *geometry)
        _, products, sums = torch.ops.aten.convolution_backward(
            y, self._x, weight, [len(weight)] if kernel.bias else None, *geometry, [False, True, kernel.bias]
        )
        products = products.reshape(kernel.groups, rank, -1).mT
        if kernel.bias:
            products = torch.cat((products, sums.view(kernel.groups, 1, rank)), dim=1)
        return products.reshape(basis.shape) / self.count

    def reduced(self) -> Rows:
        return Rows(self._grouped(self._kernel.sums(self._x) / math.prod(self._outputs)))

    def _grouped(self, patches: Tensor) -> Tensor:
        """Patches ``[m, C, K]`` as rows ``[*lead, m, d]``."""
        rows = patches.unflatten(1, (self._kernel.groups, -1)).flatten(2).transpose(0, 1)
        if self._kernel.bias:
            rows = torch.nn.functional.pad(rows, (0, 1), value=1.0)
        return rows if self._lead else rows[0]

    def _written(self, windows: Tensor) -> Tensor:
        """Some of `Kernel.windows` as rows, column-major: along an output line the input is contiguous."""
        kernel, space = self._kernel, len(self._outputs)
        grouped = windows.unflatten(1, (kernel.groups, -1))  # [B, groups, C, *outputs, *size]
        outputs, size = range(3, 3 + space), range(3 + space, 3 + 2 * space)
        ordered = grouped.permute(1, 2, *size, 0, *outputs)
        features = math.prod(ordered.shape[1 : 2 + space])
        columns = windows.new_empty(kernel.groups, features + kernel.bias, math.prod(ordered.shape[2 + space :]))
        columns[:, :features].view(ordered.shape).copy_(ordered)
        if kernel.bias:
            columns[:, -1] = 1
        return columns.mT if self._lead else columns[0].mT
