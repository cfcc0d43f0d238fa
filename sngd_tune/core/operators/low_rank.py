"""A root that is a scaled identity but for a few directions."""

from functools import cached_property

import torch
from torch import Tensor

from sngd_tune.core.operators.base import Parts, RootOperator, take_apart

__all__ = ["LowRankOperator"]


class LowRankOperator(RootOperator):
    """``R = c I + U diag(s − c) Uᵀ``: exact on `r` directions, a scaled identity on the rest.

    Args:
        basis: ``U: [*lead, d, r]``, orthonormal columns (zero columns keep their direction in the rest).
        scale: ``s: [*lead, r]``, ``(eigenvalue + λ)^-½``.
        rest: ``c: [*lead]``, ``(mean of the other eigenvalues + λ)^-½``.
    """

    def __init__(self, basis: Tensor, scale: Tensor, rest: Tensor):
        self.basis = basis
        self.scale = scale
        self.rest = rest
        self._split: tuple[Parts, Parts] | None = None

    @classmethod
    def identity(
        cls, d: int, rank: int, dtype: torch.dtype, device: torch.device | str, lead: tuple[int, ...] = ()
    ) -> "LowRankOperator":
        """``R = I`` of size `d`, in the form of rank `rank`."""
        zeros = torch.zeros(*lead, d, rank, dtype=dtype, device=device)
        return cls(zeros, torch.ones_like(zeros[..., 0, :]), torch.ones(lead, dtype=dtype, device=device))

    def tensors(self) -> dict[str, Tensor]:
        return {"basis": self.basis, "scale": self.scale, "rest": self.rest}

    def scaled(self, c: Tensor) -> "LowRankOperator":
        return LowRankOperator(self.basis, self.scale * c.unsqueeze(-1), self.rest * c)

    def apply(self, x: Tensor) -> Tensor:
        return self._multiply(x, self._root)

    def solve(self, x: Tensor) -> Tensor:
        return self._multiply(x, self._inverse_root)

    def precondition(self, x: Tensor) -> Tensor:
        return self._multiply(x, self._inverse)

    def apply_(self, x: Tensor) -> Tensor:
        right, rest = self._root
        inner = x @ self.basis
        if x.dim() == 2 and self.basis.dim() == 2 and not x.is_cuda:
            return x.addmm_(inner, right, beta=self._rest)
        return x.mul_(rest[..., None, None]).add_(inner @ right)

    apply_transpose = apply
    apply_transpose_ = apply_
    solve_transpose = solve

    def accumulate(self, parts: Parts, into: Parts, momentum: float, length: float | None = None) -> None:
        """As in the base class, without temporaries: the norm of the natural gradient comes from ``x U``."""
        if parts[0].dim() > 2 or parts[0].is_cuda:  # on a GPU numbers would have to be waited for
            super().accumulate(parts, into, momentum, length)
            return
        basis, right = self._columns(len(parts))
        inner = parts[0] @ basis[0]
        for part, row in zip(parts[1:], basis[1:], strict=True):
            inner.addr_(part, row)
        scale = 1.0 if length is None else self._graft(length, inner)
        rest = scale * self._rest**2
        into[0].addmm_(inner, right[0], beta=momentum, alpha=scale).add_(parts[0], alpha=rest)
        for kept, part, row in zip(into[1:], parts[1:], right[1:], strict=True):
            kept.addmv_(inner, row, beta=momentum, alpha=scale).add_(part, alpha=rest)

    def _columns(self, count: int) -> tuple[Parts, Parts]:
        """``U`` and ``diag(s² − c²) Uᵀ``, each as what belongs to the weight and, of two parts, to the bias; views."""
        if self._split is None or len(self._split[0]) != count:
            right = self._inverse[0]
            basis = (self.basis,) if count == 1 else (self.basis[:-1], self.basis[-1])
            self._split = basis, take_apart(right, count)
        return self._split

    def _graft(self, length: float, inner: Tensor) -> float:
        """`length` over ``‖x (G + λI)⁻¹‖``, from ``x U = inner`` and ``‖x‖ = length``; 0 for ``x = 0``."""
        natural = self._rest**4 * length**2 + float(torch.dot((inner * self._gain).view(-1), inner.view(-1)))
        return length / natural**0.5 if natural > 0 else 0.0

    def _multiply(self, x: Tensor, power: tuple[Tensor, Tensor]) -> Tensor:
        right, rest = power
        if x.dim() == 2 and self.basis.dim() == 2 and not x.is_cuda:
            return torch.addmm(x, x @ self.basis, right, beta=float(rest))
        return rest[..., None, None] * x + (x @ self.basis) @ right

    def _power(self, exponent: int) -> tuple[Tensor, Tensor]:
        """``diag(s^e − c^e) Uᵀ`` and ``c^e``."""
        rest = self.rest**exponent
        kept = self.scale**exponent - rest.unsqueeze(-1)
        return (self.basis * kept.unsqueeze(-2)).mT.contiguous(), rest

    @cached_property
    def _root(self) -> tuple[Tensor, Tensor]:
        return self._power(1)

    @cached_property
    def _inverse_root(self) -> tuple[Tensor, Tensor]:
        return self._power(-1)

    @cached_property
    def _inverse(self) -> tuple[Tensor, Tensor]:
        return self._power(2)

    @cached_property
    def _rest(self) -> float:
        return float(self.rest)  # read once per refresh

    @cached_property
    def _gain(self) -> Tensor:
        """What each kept direction adds to ``‖x (G + λI)⁻¹‖²`` beyond the rest's part, per ``(x U)²``."""
        return self.scale**4 - self._rest**4
