"""`nn.MultiheadAttention`: three projections side by side, and the one behind the heads.

What the last one gets shows only inside `torch.nn.functional.multi_head_attention_forward`. A torch function mode, in
force around the forward pass of statistics batches, records the `linear` calls there: inputs and outputs.
"""

from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from sngd_tune.core.inputs import Inputs, Rows, with_bias_input
from sngd_tune.core.layers.base import LayerKind, Seen, Shape, Site

__all__ = ["AttentionKind", "JointOutput", "SharedRows", "StackedRows"]

_NAMES = ("query", "key", "value")


class SharedRows(Inputs):
    """Rows that are the same for several matrices: computed and held once.

    Args:
        rows: ``[n, d]``.
        matrices: how many share them; the one leading dimension.
    """

    def __init__(self, rows: Inputs, matrices: int):
        self._each = rows
        self._matrices = matrices
        self.count, self.examples = rows.count, rows.examples

    def _spread(self, x: Tensor) -> Tensor:
        return x.expand(self._matrices, *x.shape)

    def rows(self) -> Tensor:
        return self._spread(self._each.rows())

    def to(self, dtype: torch.dtype) -> "SharedRows":
        return SharedRows(self._each.to(dtype), self._matrices)

    def is_finite(self) -> bool:
        return self._each.is_finite()

    def take(self, index: Tensor) -> "SharedRows":
        return SharedRows(self._each.take(index), self._matrices)

    def diagonal(self) -> Tensor:
        return self._spread(self._each.diagonal())

    def squared_norm(self) -> Tensor:
        return self._spread(self._each.squared_norm())

    def sketch(self, basis: Tensor) -> Tensor:
        """As in the base class, as one product."""
        d, columns = basis.shape[-2:]
        joint = self._each.sketch(basis.transpose(0, 1).reshape(d, -1))
        return joint.view(d, self._matrices, columns).transpose(0, 1)

    def reduced(self) -> "SharedRows":
        return SharedRows(self._each.reduced(), self._matrices)


class StackedRows(Rows):
    """Rows of queries, keys and values side by side, ``[3, n, d]``, of sequences that may differ in length.

    `n` is that of the longest. Shorter ones are filled up with rows of 0, example by example, and their own rows weigh
    ``(longest / length)^½`` each, so that ``E[a aᵀ]`` over the `n` rows is that over the real ones. `JointOutput`
    weighs their gradients by the inverse: ``∇_W = Σ g aᵀ`` stays true, and so does ``E[g gᵀ]`` with its own count.

    Args:
        parts: ``[examples, length_i, d]`` each.
    """

    def __init__(self, parts: Sequence[Tensor]):
        super().__init__(_side_by_side(parts, 0.5), len(parts[0]))
        self._parts = parts

    def to(self, dtype: torch.dtype) -> Rows:
        return self if self._a.dtype == dtype else StackedRows([part.to(dtype) for part in self._parts])

    def reduced(self) -> Rows:
        """As in the base class, over the real rows."""
        return Rows(torch.stack([part.mean(1) for part in self._parts]))


class JointOutput:
    """Tensors of the graph whose gradients belong together: what `Seen` needs of an output.

    Args:
        tensors: ``[length_i, examples, k_i · width]``, with the outputs of one or several matrices side by side.
        width: outputs of one matrix.
    """

    def __init__(self, tensors: Sequence[Tensor], width: int):
        self.tensors = tensors
        self._width = width

    def join(self, gradients: Sequence[Tensor | None]) -> Tensor:
        """Side by side, ``[k, n, width]``, batch first."""
        pairs = zip(gradients, self.tensors, strict=True)
        whole = [torch.zeros_like(tensor) if gradient is None else gradient for gradient, tensor in pairs]
        parts = [part.transpose(0, 1) for each in whole for part in each.split(self._width, -1)]
        return _side_by_side(parts, -0.5)


#: The function without its question for modes: asked inside one, it would come back to its handler without an end.
_ATTENTION = FunctionType(
    functional.multi_head_attention_forward.__code__,
    {**vars(functional), "has_torch_function": lambda tensors: False},
    argdefs=functional.multi_head_attention_forward.__defaults__,
)


class _Recorder(TorchFunctionMode):
    """Records the `linear` calls of one forward pass of `nn.MultiheadAttention`: its projections in, then the one out.

    Where two of them are in force, the inner one runs the attention, and the outer one sees the same calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.multi_head_attention_forward:
            with self:  # a mode is off inside its own handler
                return _ATTENTION(*args, **kwargs)
        output = func(*args, **kwargs)
        if func is functional.linear:
            self.calls.append((args[0], output))
        return output


class AttentionKind(LayerKind):
    """`nn.MultiheadAttention` in all its configurations.

    Sites: ``in_proj``, the three packed projections as independent matrices (``q_proj``, ``k_proj`` and ``v_proj``,
    without their common bias, where `kdim` or `vdim` make them separate weights), and ``out_proj``. Padded positions
    count as any other, as they do in the linear layers around.
    """

    modules = (nn.MultiheadAttention,)
    plain: ClassVar = {
        "in_proj_bias": "one bias for three separate weights",
        "bias_k": "a learned key, not a weight",
        "bias_v": "a learned value, not a weight",
    }

    def sites(self, module: Any) -> Sequence[Site]:
        width, bias = module.embed_dim, module.in_proj_bias is not None
        if module._qkv_same_embed_dim:
            names = ("in_proj_weight", "in_proj_bias") if bias else ("in_proj_weight",)
            inward = [Site("in_proj", names, Shape((3,), width, width + bias))]
        else:
            widths = (width, module.kdim, module.vdim)
            inward = [
                Site(f"{x}_proj", (f"{x}_proj_weight",), Shape((), width, d))
                for x, d in zip("qkv", widths, strict=True)
            ]
        bias = module.out_proj.bias is not None
        names = ("out_proj.weight", "out_proj.bias") if bias else ("out_proj.weight",)
        return [*inward, Site("out_proj", names, Shape((), width, width + bias))]

    def watch(self, module: nn.Module) -> _Recorder:
        return _Recorder()

    def seen(
        self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any, record: Any
    ) -> Sequence[Seen]:
        *inward, (heads, out) = record.calls
        given = {**dict(zip(_NAMES, args, strict=False)), **kwargs}
        inputs = [_batch_first(given[name].detach(), module.batch_first) for name in _NAMES]
        examples = len(inputs[0])
        outputs = [call[1] for call in inward]
        if module._qkv_same_embed_dim:
            first = [_packed(given, inputs, outputs, module.in_proj_bias is not None)]
        else:
            first = [Seen(Rows.of(x, False), s, _rows) for x, s in zip(inputs, outputs, strict=True)]
        a = with_bias_input(heads.detach(), module.out_proj.bias is not None)
        rows = Rows(_rows(a.view(-1, examples, a.shape[-1])), examples)
        return [*first, Seen(rows, out, lambda gradient: _rows(gradient.view(-1, examples, gradient.shape[-1])))]


def _packed(given: Mapping[str, Tensor], inputs: list[Tensor], outputs: list[Tensor], bias: bool) -> Seen:
    """Of the packed projections, which torch applies in one product, in two or in three."""
    rows: Inputs
    if given["query"] is given["key"] and given["key"] is given["value"]:
        a = with_bias_input(inputs[0], bias)
        rows = SharedRows(Rows(a.flatten(0, 1), len(a)), 3)
    else:
        rows = StackedRows([with_bias_input(x, bias) for x in inputs])
    return Seen(rows, JointOutput(outputs, inputs[0].shape[-1]), lambda gradient: gradient)


def _batch_first(x: Tensor, batch_first: bool) -> Tensor:
    """``[examples, length, d]`` from an argument of the module."""
    if x.dim() == 2:
        return x.unsqueeze(0)
    return x if batch_first else x.transpose(0, 1)


def _rows(x: Tensor) -> Tensor:
    """``[*lead, length, examples, d]`` as rows ``[*lead, n, d]``, the positions of an example together."""
    return x.transpose(-3, -2).flatten(-3, -2)


def _side_by_side(parts: Sequence[Tensor], power: float) -> Tensor:
    """``[examples, length_i, d]`` as ``[k, n, d]``, times ``(longest / length_i)^power`` and filled up with 0."""
    longest = max(part.shape[1] for part in parts)
    return torch.stack([_filled(part, longest, power) for part in parts]).flatten(1, 2)


def _filled(part: Tensor, longest: int, power: float) -> Tensor:
    missing = longest - part.shape[1]
    return functional.pad(part, (0, 0, 0, missing)) * (longest / part.shape[1]) ** power if missing else part
