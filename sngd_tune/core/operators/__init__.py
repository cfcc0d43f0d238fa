"""Roots as operators on row vectors: what a root of ``(G + λI)⁻¹`` can do once it is computed.

An operator is immutable. Its `tensors` are all it is made of, with shapes that do not depend on the data, so that they
can be kept as buffers, saved, and taken back. All of them take leading dimensions: several roots side by side.
"""

from sngd_tune.core.operators.base import Parts, RootOperator, join, take_apart
from sngd_tune.core.operators.block import (
    BlockOperator,
    KronOperator,
    LayerOperator,
    RearrangedOperator,
    UnitOperator,
    split_blocks,
)
from sngd_tune.core.operators.dense import (
    EigenbasisOperator,
    MatrixOperator,
    SymmetricOperator,
    TriangularOperator,
)
from sngd_tune.core.operators.diagonal import DiagonalOperator
from sngd_tune.core.operators.low_rank import LowRankOperator

__all__ = [
    "BlockOperator",
    "DiagonalOperator",
    "EigenbasisOperator",
    "KronOperator",
    "LayerOperator",
    "LowRankOperator",
    "MatrixOperator",
    "Parts",
    "RearrangedOperator",
    "RootOperator",
    "SymmetricOperator",
    "TriangularOperator",
    "UnitOperator",
    "join",
    "split_blocks",
    "take_apart",
]
