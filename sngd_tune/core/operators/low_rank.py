"""A root that is a scaled identity but for a few directions."""

from functools import cached_property

import torch
from torch import Tensor

from sngd_tune.core.operators.base import RootOperator

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

    @classmethod
    def identity(
        cls, d: int, rank: int, dtype: torch.dtype, device: torch.device | str, lead: tuple[int, ...] = ()
    ) -> "LowRankOperator":
        """``R = I`` of size `d`, in the form of rank `rank`."""
        zeros = torch.zeros(*lead, d, rank, dtype=dtype, device=device)
        return cls(zeros, torch.ones_like(zeros[..., 0, :]), torch.ones(lead, dtype=dtype, device=device))

    def tensors(self) -> dict[str, Tensor]:
        return {"basis": self.basis, "scale": self.scale, "rest": self.rest}

    def apply(self, x: Tensor) -> Tensor:
        return self._multiply(x, self._root)

    def solve(self, x: Tensor) -> Tensor:
        return self._multiply(x, self._inverse_root)

    def precondition(self, x: Tensor) -> Tensor:
        return self._multiply(x, self._inverse)

    apply_transpose = apply
    solve_transpose = solve

    def accumulate(self, x: Tensor, into: Tensor, momentum: float, graft: bool) -> None:
        """As in the base class, without temporaries: the norm of the natural gradient comes from ``x U``."""
        if x.dim() > 2 or x.is_cuda:  # on a GPU numbers would have to be waited for
            super().accumulate(x, into, momentum, graft)
            return
        right, _ = self._inverse
        inner = x @ self.basis
        scale = self._graft_scale(x, inner) if graft else 1.0
        into.addmm_(inner, right, beta=momentum, alpha=scale).add_(x, alpha=scale * self._rest**2)

    def _graft_scale(self, x: Tensor, inner: Tensor) -> float:
        """‖x‖ / ‖x (G + λI)⁻¹‖ from ``x U = inner``; 0 for ``x = 0``."""
        flat = x.reshape(-1)
        squared = float(torch.dot(flat, flat))
        natural = self._rest**4 * squared + float(torch.dot((inner * self._gain).view(-1), inner.view(-1)))
        return float((squared / natural) ** 0.5) if natural > 0 else 0.0

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
