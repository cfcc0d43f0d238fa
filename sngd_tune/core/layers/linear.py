"""`nn.Linear`: ``s = W a``, over any leading dimensions."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from sngd_tune.core.inputs import Rows
from sngd_tune.core.layers.base import LayerKind, Seen, Shape, Site
from sngd_tune.core.operators import Parts

__all__ = ["LinearKind", "MatrixSite"]


class MatrixSite(Site):
    """A site whose parameters are matrices already: nothing to rearrange, and no time for it."""

    def matrices(self, parts: Parts) -> Parts:
        return parts

    def shaped(self, matrices: Parts, like: Parts) -> Parts:
        return matrices


class LinearKind(LayerKind):
    """`nn.Linear`. All dimensions of its input but the last are examples and positions; the first is the batch."""

    modules = (nn.Linear,)

    def sites(self, module: Any) -> Sequence[Site]:
        bias = module.bias is not None
        shape = Shape((), module.out_features, module.in_features + bias)
        return [MatrixSite("", ("weight", "bias") if bias else ("weight",), shape)]

    def seen(
        self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any, record: Any
    ) -> Sequence[Seen]:
        x: Tensor = args[0] if args else kwargs["input"]
        inputs = Rows.of(x, module.bias is not None)
        return [Seen(inputs, output, lambda gradient: gradient.reshape(-1, gradient.shape[-1]))]
