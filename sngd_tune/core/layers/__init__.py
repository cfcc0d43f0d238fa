"""The kinds of layers that can get local Fisher layers: one file each, listed in `KINDS`."""

from torch import nn

from sngd_tune.core.layers.attention import AttentionKind
from sngd_tune.core.layers.base import LayerKind
from sngd_tune.core.layers.conv import ConvKind
from sngd_tune.core.layers.embedding import EmbeddingKind
from sngd_tune.core.layers.linear import LinearKind
from sngd_tune.core.layers.recurrent import RecurrentCellKind, RecurrentKind

__all__ = ["KINDS", "kind_of"]

KINDS: tuple[LayerKind, ...] = (
    LinearKind(),
    ConvKind(),
    RecurrentKind(),
    RecurrentCellKind(),
    AttentionKind(),
    EmbeddingKind(),
)

_BY_CLASS = {module: kind for kind in KINDS for module in kind.modules}


def kind_of(module: nn.Module) -> LayerKind | None:
    """The kind of a module, by its exact class; None where there is none."""
    return _BY_CLASS.get(type(module))
