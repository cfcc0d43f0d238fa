"""The contract of root operators, and how gradients are taken apart and joined."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

__all__ = ["Parts", "RootOperator", "add_grafted", "join", "take_apart"]

#: A gradient or a direction as torch keeps it: ``(weight,)`` or ``(weight, bias)``.
Parts = tuple[Tensor, ...]


class RootOperator(ABC):
    """``R`` with ``R Rᵀ = (G + λI)⁻¹``, or a multiple of it (`scaled`), acting on ``x: [*lead, n, d]``."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The tensors that make up the operator; ``type(self)(**tensors)`` is the operator again."""

    @abstractmethod
    def scaled(self, c: Tensor) -> "RootOperator":
        """``c R``, an operator of the same kind.

        Args:
            c: > 0, one for each matrix that is damped by itself (`Estimate.damping_shape`).
        """

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

    def apply_(self, x: Tensor) -> Tensor:
        """`apply` to what nobody needs any more: in its memory where that can be done."""
        return self.apply(x)

    def apply_transpose_(self, x: Tensor) -> Tensor:
        """`apply_transpose`, as `apply_`."""
        return self.apply_transpose(x)

    def precondition(self, x: Tensor) -> Tensor:
        """``x (G + λI)⁻¹``: the natural gradient."""
        return self.apply_transpose(self.apply(x))

    def natural(self, parts: Parts) -> Parts:
        """The natural gradient ``∇ (G + λI)⁻¹`` of ``([*lead, d_out, d_in], [*lead, d_out])``, in parts as well."""
        return take_apart(self.precondition(join(parts)), len(parts))

    def accumulate(self, parts: Parts, into: Parts, momentum: float, length: float | None = None) -> None:
        """``into ← momentum · into + natural gradient`` of `parts`, in place.

        This is the innermost operation of training: a large layer's time goes into memory traffic, so operators that
        can do it without temporaries of the gradient's size do.

        Args:
            parts: as in `natural`; weight and bias come apart, as joining them is a copy.
            into: shaped as `parts`.
            momentum: in [0, 1).
            length: norm that the natural gradient is scaled to (grafting); None leaves its own.
        """
        joint = self.precondition(join(parts))
        add_grafted((joint,), take_apart(joint, len(parts)), into, momentum, length)


def take_apart(joint: Tensor, count: int) -> Parts:
    """Inverse of `join` for `count` parts; views."""
    return (joint,) if count == 1 else (joint[..., :-1], joint[..., -1])


def join(parts: Parts) -> Tensor:
    """``[*lead, d_out, d]`` from the weight's part ``[*lead, d_out, d_in]`` and the bias's, its last column."""
    return parts[0] if len(parts) == 1 else torch.cat((parts[0], parts[1].unsqueeze(-1)), dim=-1)


def add_grafted(whole: Parts, natural: Parts, into: Parts, momentum: float, length: float | None) -> None:
    """``into ← momentum · into + scale · natural``, in place, with the scale that gives it a norm of `length`.

    Args:
        whole: the numbers of `natural` in contiguous tensors: without its last column a matrix takes longer.
        natural: as `into` is shaped.
        into: changed in place.
        momentum: in [0, 1).
        length: None for a scale of 1.
    """
    scale = 1.0
    if length is not None:
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(whole)))
        wanted = length / norm.clamp(min=torch.finfo(norm.dtype).tiny)
        if wanted.is_cuda:  # which is not waited for
            natural = tuple(part * wanted for part in natural)
        else:
            scale = float(wanted)
    for kept, each in zip(into, natural, strict=True):
        kept.mul_(momentum).add_(each, alpha=scale)
