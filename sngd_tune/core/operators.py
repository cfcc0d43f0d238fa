"""Roots as operators on row vectors: what a root of ``(G + λI)⁻¹`` can do once it is computed.

An operator is immutable. Its `tensors` are all it is made of, with shapes that do not depend on the data, so that they
can be kept as buffers, saved, and taken back.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

__all__ = [
    "BlockOperator",
    "DiagonalOperator",
    "LowRankOperator",
    "Parts",
    "RootOperator",
    "SymmetricOperator",
    "TriangularOperator",
    "join",
]


#: A gradient or a direction as torch keeps it: ``(weight,)`` or ``(weight, bias)``.
Parts = tuple[Tensor, ...]


class RootOperator(ABC):
    """``R`` with ``R Rᵀ = (G + λI)⁻¹``, acting on ``x: [..., n, d]``."""

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
        return natural.mul_(_norm(x) / _positive(_norm(natural)))

    def natural(self, parts: Parts) -> Parts:
        """`precondition` for a gradient in the parts in which torch keeps it: weight and, if there is one, bias."""
        return take_apart(self.precondition(join(parts)), len(parts))

    def accumulate(self, parts: Parts, into: Parts, momentum: float, graft: bool) -> None:
        """``into ← momentum · into + natural gradient`` (or the grafted one) of a gradient in parts, in place.

        This is the innermost operation of training: a large layer's time goes into memory traffic, so operators that
        can do it without temporaries of the gradient's size do.
        """
        joint = join(parts)
        natural = self.graft(joint) if graft else self.precondition(joint)
        for target, part in zip(into, take_apart(natural, len(parts)), strict=True):
            target.mul_(momentum).add_(part)


def take_apart(joint: Tensor, count: int) -> Parts:
    """Inverse of `join` for `count` parts."""
    return (joint,) if count == 1 else (joint[..., :-1], joint[..., -1])


def join(parts: Parts) -> Tensor:
    """``[..., d_out, d]`` from the weight's part ``[..., d_out, d_in]`` and the bias's ``[..., d_out]``, its last column."""
    return parts[0] if len(parts) == 1 else torch.cat((parts[0], parts[1].unsqueeze(-1)), dim=-1)


def _norm(x: Tensor) -> Tensor:
    """Frobenius norm, ``[]``; as an inner product, which costs a third of `vector_norm` on a CPU."""
    flat = x.reshape(-1)
    return torch.dot(flat, flat).sqrt()


def _norm_of(parts: Sequence[Tensor]) -> Tensor:
    """Frobenius norm of all parts together, ``[]``."""
    return torch.stack([_norm(part) for part in parts]).norm()


def _positive(x: Tensor) -> Tensor:
    """`x` ≥ 0 kept away from 0, where it divides."""
    return x.clamp(min=torch.finfo(x.dtype).tiny)


class DiagonalOperator(RootOperator):
    """``R = diag(r)``; ``r: [d]``, positive."""

    def __init__(self, scale: Tensor):
        self.scale = scale

    @classmethod
    def identity(cls, d: int, dtype: torch.dtype, device: torch.device | str, lead=()) -> "DiagonalOperator":
        """``R = I`` of size `d`."""
        return cls(torch.ones(d, dtype=dtype, device=device))

    @cached_property
    def _square(self) -> Tensor:
        return self.scale.square()

    def tensors(self) -> dict[str, Tensor]:
        return {"scale": self.scale}

    def apply(self, x: Tensor) -> Tensor:
        return x * self.scale

    def solve(self, x: Tensor) -> Tensor:
        return x / self.scale

    def precondition(self, x: Tensor) -> Tensor:
        return x * self._square

    def accumulate(self, parts: Parts, into: Parts, momentum: float, graft: bool) -> None:
        """As in the base class, the parts left apart."""
        columns = take_apart(self._square.unsqueeze(0), len(parts))
        natural = [part * column for part, column in zip(parts, columns, strict=True)]
        scale = float(_norm_of(parts) / _positive(_norm_of(natural))) if graft else 1.0
        for target, part in zip(into, natural, strict=True):
            target.mul_(momentum).add_(part, alpha=scale)

    apply_transpose = apply
    solve_transpose = solve


class SymmetricOperator(RootOperator):
    """A symmetric root and its inverse, both stored; ``[..., d, d]``."""

    def __init__(self, root: Tensor, inverse_root: Tensor):
        self.root = root
        self.inverse_root = inverse_root

    @classmethod
    def identity(cls, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> "SymmetricOperator":
        """``R = I`` of shape ``[..., d, d]``."""
        eye = torch.eye(shape[-1], dtype=dtype, device=device).expand(shape).clone()
        return cls(eye, eye.clone())

    @cached_property
    def _inverse(self) -> Tensor:
        return self.root @ self.root

    def tensors(self) -> dict[str, Tensor]:
        return {"root": self.root, "inverse_root": self.inverse_root}

    def apply(self, x: Tensor) -> Tensor:
        return x @ self.root

    def solve(self, x: Tensor) -> Tensor:
        return x @ self.inverse_root

    def precondition(self, x: Tensor) -> Tensor:
        return x @ self._inverse

    apply_transpose = apply
    solve_transpose = solve


class TriangularOperator(RootOperator):
    """``R = U⁻¹`` of the Cholesky factor ``Uᵀ U = G + λI``; ``U: [..., d, d]``, upper triangular.

    Upper, because LAPACK's lower factor is column-major: its transpose is row-major without a copy.
    """

    def __init__(self, factor: Tensor):
        self.factor = factor

    @classmethod
    def identity(cls, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> "TriangularOperator":
        """``R = I`` of shape ``[..., d, d]``."""
        return cls(torch.eye(shape[-1], dtype=dtype, device=device).expand(shape).clone())

    @cached_property
    def _inverse(self) -> Tensor:
        # Two triangular solves a step cost several times the one product with the inverse.
        return torch.cholesky_inverse(self.factor, upper=True)

    def tensors(self) -> dict[str, Tensor]:
        return {"factor": self.factor}

    def apply(self, x: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.factor, x, upper=True, left=False)

    def apply_transpose(self, x: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.factor.mT, x, upper=False, left=False)

    def solve(self, x: Tensor) -> Tensor:
        return x @ self.factor

    def solve_transpose(self, x: Tensor) -> Tensor:
        return x @ self.factor.mT

    def precondition(self, x: Tensor) -> Tensor:
        return x @ self._inverse


class LowRankOperator(RootOperator):
    """``R = c I + U diag(s − c) Uᵀ``: exact on `r` directions, a scaled identity on the rest.

    Args:
        basis: ``U: [d, r]``, orthonormal columns (zero columns keep their direction in the rest).
        scale: ``s: [r]``, ``(eigenvalue + λ)^-½``.
        rest: ``c: []``, ``(mean of the other eigenvalues + λ)^-½``.
    """

    def __init__(self, basis: Tensor, scale: Tensor, rest: Tensor):
        self.basis = basis
        self.scale = scale
        self.rest = rest

    @classmethod
    def identity(cls, d: int, rank: int, dtype: torch.dtype, device: torch.device | str, lead=()) -> "LowRankOperator":
        """``R = I`` of size `d`, in the form of rank `rank`."""
        zeros = torch.zeros(d, rank, dtype=dtype, device=device)
        one = torch.ones((), dtype=dtype, device=device)
        return cls(zeros, one.expand(rank).clone(), one)

    @cached_property
    def _rest(self) -> float:
        return float(self.rest)  # a number fuses into the product below; read once per refresh

    def _power(self, exponent: int) -> tuple[Tensor, float]:
        rest = self._rest**exponent
        return (self.basis * (self.scale**exponent - rest)).mT.contiguous(), rest

    @cached_property
    def _root(self) -> tuple[Tensor, float]:
        return self._power(1)

    @cached_property
    def _inverse_root(self) -> tuple[Tensor, float]:
        return self._power(-1)

    @cached_property
    def _inverse(self) -> tuple[Tensor, float]:
        return self._power(2)

    def dense(self) -> SymmetricOperator:
        """The same root as dense matrices."""
        eye = torch.eye(len(self.basis), dtype=self.basis.dtype, device=self.basis.device)
        return SymmetricOperator(self.apply(eye), self.solve(eye))

    def _multiply(self, x: Tensor, power: tuple[Tensor, float]) -> Tensor:
        right, rest = power
        if x.dim() == 2:
            return torch.addmm(x, x @ self.basis, right, beta=rest)
        return rest * x + (x @ self.basis) @ right

    def accumulate(self, parts: Parts, into: Parts, momentum: float, graft: bool) -> None:
        """As in the base class, without temporaries: the norm of the natural gradient comes from ``x U``."""
        if len(parts) == 1 or parts[0].dim() > 2 or parts[0].is_cuda:  # on a GPU numbers would have to be waited for
            super().accumulate(parts, into, momentum, graft)
            return
        (weight, bias), (basis, right, rest) = parts, self._with_bias
        inner = (weight @ basis[0]).addr_(bias, basis[1])
        scale = self._graft_scale(weight, bias, inner) if graft else 1.0
        into[0].addmm_(inner, right[0], beta=momentum, alpha=scale).add_(weight, alpha=scale * rest)
        into[1].addmv_(inner, right[1], beta=momentum, alpha=scale).add_(bias, alpha=scale * rest)

    def _graft_scale(self, weight: Tensor, bias: Tensor, inner: Tensor) -> float:
        """‖x‖ / ‖x (G + λI)⁻¹‖ from ``x U = inner``; 0 for ``x = 0``."""
        flat = weight.reshape(-1)
        squared = float(torch.dot(flat, flat)) + float(torch.dot(bias, bias))
        natural = self._rest**4 * squared + float(torch.dot((inner * self._gain).view(-1), inner.view(-1)))
        return float((squared / natural) ** 0.5) if natural > 0 else 0.0

    @cached_property
    def _gain(self) -> Tensor:
        """What each kept direction adds to ``‖x (G + λI)⁻¹‖²`` beyond the rest's part, per ``(x U)²``."""
        return self.scale**4 - self._rest**4

    @cached_property
    def _with_bias(self) -> tuple[Parts, Parts, float]:
        """``U``, ``diag(…) Uᵀ`` and the rest of the inverse, the bias's row and column apart."""
        right, rest = self._inverse
        return (self.basis[:-1], self.basis[-1]), (right[:, :-1], right[:, -1]), rest

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


class BlockOperator(RootOperator):
    """A block-diagonal root: an operator over ``[k, b, b]`` on rows cut into `k` pieces, padded with 0."""

    def __init__(self, inner: RootOperator, d: int, block: int):
        self.inner = inner
        self.d = d
        self.block = block

    def tensors(self) -> dict[str, Tensor]:
        return self.inner.tensors()

    def apply(self, x: Tensor) -> Tensor:
        return self._merge(self.inner.apply(split_blocks(x, self.block)))

    def apply_transpose(self, x: Tensor) -> Tensor:
        return self._merge(self.inner.apply_transpose(split_blocks(x, self.block)))

    def solve(self, x: Tensor) -> Tensor:
        return self._merge(self.inner.solve(split_blocks(x, self.block)))

    def solve_transpose(self, x: Tensor) -> Tensor:
        return self._merge(self.inner.solve_transpose(split_blocks(x, self.block)))

    def precondition(self, x: Tensor) -> Tensor:
        return self._merge(self.inner.precondition(split_blocks(x, self.block)))

    def accumulate(self, parts: Parts, into: Parts, momentum: float, graft: bool) -> None:
        """As in the base class, padded once and scaled while contiguous."""
        missing = parts[0].new_zeros(*parts[0].shape[:-1], -self.d % self.block)
        padded = torch.cat([parts[0], *(part.unsqueeze(-1) for part in parts[1:]), missing], dim=-1)
        blocks = split_blocks(padded, self.block)
        natural = self.inner.precondition(blocks)
        if graft:
            natural.mul_(_norm(blocks) / _positive(_norm(natural)))  # the padding is 0 and adds nothing
        for target, part in zip(into, take_apart(self._merge(natural), len(parts)), strict=True):
            target.mul_(momentum).add_(part)

    def _merge(self, blocks: Tensor) -> Tensor:
        """``[..., k, n, b]`` back to ``[..., n, d]``."""
        return blocks.transpose(-3, -2).flatten(-2)[..., : self.d]


def split_blocks(x: Tensor, block: int) -> Tensor:
    """``[..., n, d]`` as ``[..., k, n, b]`` with ``k = ⌈d / b⌉``; missing entries of the last block are 0."""
    missing = -x.shape[-1] % block
    padded = torch.nn.functional.pad(x, (0, missing)) if missing else x
    return padded.unflatten(-1, (-1, block)).transpose(-3, -2)

EigenbasisOperator = SymmetricOperator
