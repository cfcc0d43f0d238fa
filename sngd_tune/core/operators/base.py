"""The contract of root operators, and how gradients are taken apart and joined."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

__all__ = ["Parts", "RootOperator", "join", "norm", "positive", "take_apart"]

#: A gradient or a direction as torch keeps it: ``(weight,)`` or ``(weight, bias)``.
Parts = tuple[Tensor, ...]


class RootOperator(ABC):
    """``R`` with ``R Rᵀ = (G + λI)⁻¹``, acting on ``x: [*lead, n, d]``."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The tensors that make up the operator; ``type(self)(**tensors)`` is the operator again."""

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """``x R``: inputs into the coordinates of ``W′``, and gradients (``∇_W′ = ∇_W R``)."""

    @abstractmethod
    def apply_transpose(self, x: Tensor) -> Tensor:
        """``x Rᵀ``: weights and displacements from the coordinates of ``W′`` back to those of ``W``."""

    @abstractmethod
    def solve(self, x: Tensor) -> Tensor:
        """``x R⁻¹``: gradients back to the coordinates of ``W``."""

    @abstractmethod
    def solve_transpose(self, x: Tensor) -> Tensor:
        """``x R⁻ᵀ``: weights and displacements into the coordinates of ``W′``."""

    def precondition(self, x: Tensor) -> Tensor:
        """``x (G + λI)⁻¹``: the natural gradient."""
        return self.apply_transpose(self.apply(x))

    def graft(self, x: Tensor) -> Tensor:
        """``x (G + λI)⁻¹`` with the norm of ``x`` (Frobenius): the natural gradient, as long as the gradient."""
        natural = self.precondition(x)
        return natural.mul_(norm(x) / positive(norm(natural)))

    def accumulate(self, x: Tensor, into: Tensor, momentum: float, graft: bool) -> None:
        """``into ← momentum · into + natural gradient`` (or the grafted one) of ``x``, in place.

        This is the innermost operation of training: a large layer's time goes into memory traffic, so operators that
        can do it without temporaries of the gradient's size do.
        """
        into.mul_(momentum).add_(self.graft(x) if graft else self.precondition(x))


def take_apart(joint: Tensor, count: int) -> Parts:
    """Inverse of `join` for `count` parts; views."""
    return (joint,) if count == 1 else (joint[..., :-1], joint[..., -1])


def join(parts: Parts) -> Tensor:
    """``[*lead, d_out, d]`` from the weight's part ``[*lead, d_out, d_in]`` and the bias's, its last column."""
    return parts[0] if len(parts) == 1 else torch.cat((parts[0], parts[1].unsqueeze(-1)), dim=-1)


def norm(x: Tensor) -> Tensor:
    """Frobenius norm over all of ``x``, ``[]``; as an inner product, which costs a third of `vector_norm` on a CPU."""
    flat = x.reshape(-1)
    return torch.dot(flat, flat).sqrt()


def positive(x: Tensor) -> Tensor:
    """`x` ≥ 0 kept away from 0, where it divides."""
    return x.clamp(min=torch.finfo(x.dtype).tiny)
