"""A diagonal root."""

from functools import cached_property

import torch
from torch import Tensor

from sngd_tune.core.operators.base import Parts, RootOperator, add_grafted

__all__ = ["DiagonalOperator"]


class DiagonalOperator(RootOperator):
    """``R = diag(r)``; ``r: [*lead, d]``, positive."""

    def __init__(self, scale: Tensor):
        self.scale = scale

    @classmethod
    def identity(
        cls, d: int, dtype: torch.dtype, device: torch.device | str, lead: tuple[int, ...] = ()
    ) -> "DiagonalOperator":
        """``R = I`` of size `d`."""
        return cls(torch.ones(*lead, d, dtype=dtype, device=device))

    @cached_property
    def _row(self) -> Tensor:
        return self.scale.unsqueeze(-2)

    @cached_property
    def _square(self) -> Tensor:
        return self._row.square()

    def tensors(self) -> dict[str, Tensor]:
        return {"scale": self.scale}

    def scaled(self, c: Tensor) -> "DiagonalOperator":
        return DiagonalOperator(self.scale * c.unsqueeze(-1))

    def apply(self, x: Tensor) -> Tensor:
        return x * self._row

    def solve(self, x: Tensor) -> Tensor:
        return x / self._row

    def precondition(self, x: Tensor) -> Tensor:
        return x * self._square

    def natural(self, parts: Parts) -> Parts:
        if len(parts) == 1:
            return (self.precondition(parts[0]),)
        return parts[0] * self._square[..., :-1], parts[1] * self._square[..., -1]

    def accumulate(self, parts: Parts, into: Parts, momentum: float, length: float | None = None) -> None:
        natural = self.natural(parts)  # nothing to join
        add_grafted(natural, natural, into, momentum, length)

    apply_transpose = apply
    solve_transpose = solve
