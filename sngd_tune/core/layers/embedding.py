"""`nn.Embedding`: ``s = W a`` with a unit vector ``a`` for each number, so that ``E[a aᵀ]`` is diagonal by nature."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from sngd_tune.core.layers.base import LayerKind, Seen, Shape, Site
from sngd_tune.core.operators import Parts
from sngd_tune.core.tokens import Tokens

__all__ = ["EmbeddingKind", "TransposedSite"]


class TransposedSite(Site):
    """A site whose weight is ``Wᵀ``: what an embedding calls a row is a column here."""

    def matrices(self, parts: Parts) -> Parts:
        return (parts[0].mT,)

    def shaped(self, matrices: Parts, like: Parts) -> Parts:
        return (matrices[0].mT,)


class EmbeddingKind(LayerKind):
    """`nn.Embedding`. The first dimension of its input is the batch, further ones are positions.

    A row that a batch does not look up has gradient 0, and so has the row of `padding_idx` always: a natural gradient
    of 0 follows, and only momentum and weight decay move it, as they do under any base optimizer.
    """

    modules = (nn.Embedding,)

    def refusal(self, module: Any) -> str | None:
        if module.max_norm is not None:
            return "max_norm: its forward pass rewrites the weight"
        if module.sparse:
            return "sparse=True: its gradient is sparse"
        if module.scale_grad_by_freq:
            return "scale_grad_by_freq: what it returns is not the gradient of the loss"
        return None

    def sites(self, module: Any) -> Sequence[Site]:
        shape = Shape((), module.embedding_dim, module.num_embeddings, one_hot=True)
        return [TransposedSite("", ("weight",), shape, gradients=False)]

    def seen(
        self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any, record: Any
    ) -> Sequence[Seen]:
        index: Tensor = args[0] if args else kwargs["input"]
        tokens = Tokens.of(index.detach(), module.num_embeddings, output.dtype)
        return [Seen(tokens, None, lambda gradient: gradient)]
