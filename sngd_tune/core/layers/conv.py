"""`nn.Conv1d`, `nn.Conv2d`, `nn.Conv3d`: ``s = W a`` with a patch of the input as ``a``, at every output position."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from sngd_tune.core.layers.base import LayerKind, Seen, Shape, Site
from sngd_tune.core.patches import Kernel, Patches

__all__ = ["ConvKind"]


class ConvKind(LayerKind):
    """Convolutions of any stride, padding, padding mode, dilation and number of groups.

    The groups are independent matrices side by side. Output positions are examples' positions, as a linear layer's
    further dimensions are.
    """

    modules = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    convolves = True

    def sites(self, module: Any) -> Sequence[Site]:
        bias, groups, positions = module.bias is not None, module.groups, math.prod(module.kernel_size)
        lead = (groups,) if groups > 1 else ()
        d = module.in_channels // groups * positions + bias
        shape = Shape(lead, module.out_channels // groups, d, positions=positions)
        return [Site("", ("weight", "bias") if bias else ("weight",), shape)]

    def seen(
        self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any, record: Any
    ) -> Sequence[Seen]:
        x: Tensor = (args[0] if args else kwargs["input"]).detach()
        batched = x.dim() == len(module.kernel_size) + 2
        x = x if batched else x.unsqueeze(0)
        kernel = Kernel(module.kernel_size, module.stride, module.dilation, module.groups, module.bias is not None)

        def arrange(gradient: Tensor) -> Tensor:
            return _rows(gradient if batched else gradient.unsqueeze(0), kernel.groups)

        return [Seen(Patches(_padded(x, module), kernel), output, arrange)]


def _padded(x: Tensor, module: Any) -> Tensor:
    """``x: [B, C, *space]`` with the module's padding around it."""
    sides = [side for axis in reversed(range(len(module.kernel_size))) for side in _sides(module, axis)]
    if not any(sides):
        return x
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    return nn.functional.pad(x, sides, mode=mode)


def _sides(module: Any, axis: int) -> tuple[int, int]:
    """Padding before and after an axis; of an odd sum, "same" puts the larger half behind."""
    if module.padding == "valid":
        return 0, 0
    if module.padding == "same":
        total = module.dilation[axis] * (module.kernel_size[axis] - 1)
        return total // 2, total - total // 2
    return module.padding[axis], module.padding[axis]


def _rows(gradient: Tensor, groups: int) -> Tensor:
    """Gradient of the output, ``[examples, d_out, *outputs]``, as rows ``[*lead, n, d_out / groups]``."""
    rows = gradient.unflatten(1, (groups, -1)).flatten(3).permute(1, 0, 3, 2).flatten(1, 2)
    return rows if groups > 1 else rows[0]
