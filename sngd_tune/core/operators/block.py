"""Roots put together from smaller ones: blocks of columns, rows of their own, both sides, the layer as one vector."""

from abc import abstractmethod
from collections.abc import Callable
from copy import copy
from typing import Self

import torch
from torch import Tensor

from sngd_tune.core.operators.base import RootOperator

__all__ = ["BlockOperator", "KronOperator", "LayerOperator", "RearrangedOperator", "UnitOperator", "split_blocks"]


class RearrangedOperator(RootOperator):
    """An operator that acts on another arrangement of the entries of ``x``."""

    def __init__(self, inner: RootOperator):
        self.inner = inner

    @abstractmethod
    def _through(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """`function` on the arrangement, the result arranged as ``x`` is."""

    def tensors(self) -> dict[str, Tensor]:
        return self.inner.tensors()

    def scaled(self, c: Tensor) -> Self:
        other = copy(self)
        other.inner = self.inner.scaled(c)
        return other

    def apply(self, x: Tensor) -> Tensor:
        return self._through(self.inner.apply, x)

    def apply_transpose(self, x: Tensor) -> Tensor:
        return self._through(self.inner.apply_transpose, x)

    def solve(self, x: Tensor) -> Tensor:
        return self._through(self.inner.solve, x)

    def solve_transpose(self, x: Tensor) -> Tensor:
        return self._through(self.inner.solve_transpose, x)

    def precondition(self, x: Tensor) -> Tensor:
        return self._through(self.inner.precondition, x)


class BlockOperator(RearrangedOperator):
    """A block-diagonal root: `inner` over ``[*lead, k, b, b]`` on rows cut into `k` pieces, padded with 0."""

    def __init__(self, inner: RootOperator, d: int, block: int):
        super().__init__(inner)
        self.d = d
        self.block = block

    def scaled(self, c: Tensor) -> Self:
        return super().scaled(c.unsqueeze(-1))  # one for all blocks, which are damped alike

    def _through(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return function(split_blocks(x, self.block)).transpose(-3, -2).flatten(-2)[..., : self.d]


class UnitOperator(RearrangedOperator):
    """A root for each output: `inner` over ``[*lead, d_out, d, d]``, one row of ``x`` each."""

    def _through(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return function(x.unsqueeze(-2)).squeeze(-2)


class LayerOperator(RearrangedOperator):
    """A root of the whole layer: `inner` over ``[*lead, d_out · d, d_out · d]`` on ``x`` as one row."""

    def _through(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return function(x.flatten(-2).unsqueeze(-2)).squeeze(-2).unflatten(-1, x.shape[-2:])


class KronOperator(RootOperator):
    """``x ↦ Sᵀ x R``: `inner` is ``R``, on the inputs; `outer` is ``S: [*lead, d_out, d_out]``, on the outputs."""

    def __init__(self, inner: RootOperator, outer: RootOperator):
        self.inner = inner
        self.outer = outer

    def tensors(self) -> dict[str, Tensor]:
        inner = {f"input_{name}": tensor for name, tensor in self.inner.tensors().items()}
        return inner | {f"output_{name}": tensor for name, tensor in self.outer.tensors().items()}

    def scaled(self, c: Tensor) -> "KronOperator":
        return KronOperator(self.inner.scaled(c), self.outer)

    def apply(self, x: Tensor) -> Tensor:
        return self.outer.apply(self.inner.apply(x).mT).mT

    def apply_transpose(self, x: Tensor) -> Tensor:
        return self.outer.apply_transpose(self.inner.apply_transpose(x).mT).mT

    def solve(self, x: Tensor) -> Tensor:
        return self.outer.solve(self.inner.solve(x).mT).mT

    def solve_transpose(self, x: Tensor) -> Tensor:
        return self.outer.solve_transpose(self.inner.solve_transpose(x).mT).mT

    def precondition(self, x: Tensor) -> Tensor:
        return self.outer.precondition(self.inner.precondition(x).mT).mT


def split_blocks(x: Tensor, block: int) -> Tensor:
    """``[..., n, d]`` as ``[..., k, n, b]`` with ``k = ⌈d / b⌉``; missing entries of the last block are 0."""
    missing = -x.shape[-1] % block
    padded = torch.nn.functional.pad(x, (0, missing)) if missing else x
    return padded.unflatten(-1, (-1, block)).transpose(-3, -2)
