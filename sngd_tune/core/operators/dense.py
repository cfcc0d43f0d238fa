"""Roots that are stored as whole matrices."""

from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from sngd_tune.core.operators.base import RootOperator

__all__ = ["EigenbasisOperator", "MatrixOperator", "SymmetricOperator", "TriangularOperator"]


def _eye(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> Tensor:
    return torch.eye(shape[-1], dtype=dtype, device=device).expand(shape).clone()


class MatrixOperator(RootOperator):
    """Any root and its inverse, both stored; ``[*lead, d, d]``."""

    def __init__(self, root: Tensor, inverse_root: Tensor):
        self.root = root
        self.inverse_root = inverse_root

    @classmethod
    def identity(cls, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> "MatrixOperator":
        """``R = I`` of shape ``[*lead, d, d]``."""
        return cls(_eye(shape, dtype, device), _eye(shape, dtype, device))

    @cached_property
    def _inverse(self) -> Tensor:
        return self.root @ self.root.mT

    def tensors(self) -> dict[str, Tensor]:
        return {"root": self.root, "inverse_root": self.inverse_root}

    def scaled(self, c: Tensor) -> Self:
        whole = c[..., None, None]
        return type(self)(self.root * whole, self.inverse_root / whole)

    def apply(self, x: Tensor) -> Tensor:
        return x @ self.root

    def apply_transpose(self, x: Tensor) -> Tensor:
        return x @ self.root.mT

    def solve(self, x: Tensor) -> Tensor:
        return x @ self.inverse_root

    def solve_transpose(self, x: Tensor) -> Tensor:
        return x @ self.inverse_root.mT

    def precondition(self, x: Tensor) -> Tensor:
        return x @ self._inverse


class SymmetricOperator(MatrixOperator):
    """A symmetric root and its inverse."""

    apply_transpose = MatrixOperator.apply
    solve_transpose = MatrixOperator.solve


class TriangularOperator(RootOperator):
    """``R = U⁻¹`` of the Cholesky factor ``Uᵀ U = G + λI``; ``U: [*lead, d, d]``, upper triangular.

    Upper, because LAPACK's lower factor is column-major: its transpose is row-major without a copy.
    """

    def __init__(self, factor: Tensor):
        self.factor = factor

    @classmethod
    def identity(cls, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> "TriangularOperator":
        """``R = I`` of shape ``[*lead, d, d]``."""
        return cls(_eye(shape, dtype, device))

    @cached_property
    def _inverse(self) -> Tensor:
        # Two triangular solves a step cost several times the one product with the inverse.
        return torch.cholesky_inverse(self.factor, upper=True)

    def tensors(self) -> dict[str, Tensor]:
        return {"factor": self.factor}

    def scaled(self, c: Tensor) -> "TriangularOperator":
        return TriangularOperator(self.factor / c[..., None, None])

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


class EigenbasisOperator(RootOperator):
    """``R = V diag(s)``: the coordinates of ``W′`` are the eigenvectors of ``G``.

    Args:
        basis: ``V: [*lead, d, d]``, orthogonal, eigenvectors in columns.
        scale: ``s: [*lead, d]``, ``(eigenvalue + λ)^-½``.
    """

    def __init__(self, basis: Tensor, scale: Tensor):
        self.basis = basis
        self.scale = scale

    @classmethod
    def identity(cls, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> "EigenbasisOperator":
        """``R = I`` of shape ``[*lead, d, d]``."""
        return cls(_eye(shape, dtype, device), torch.ones(shape[:-1], dtype=dtype, device=device))

    @cached_property
    def _row(self) -> Tensor:
        return self.scale.unsqueeze(-2)

    @cached_property
    def _inverse(self) -> Tensor:
        return (self.basis * self._row.square()) @ self.basis.mT

    def tensors(self) -> dict[str, Tensor]:
        return {"basis": self.basis, "scale": self.scale}

    def scaled(self, c: Tensor) -> "EigenbasisOperator":
        return EigenbasisOperator(self.basis, self.scale * c.unsqueeze(-1))

    def apply(self, x: Tensor) -> Tensor:
        return (x @ self.basis) * self._row

    def apply_transpose(self, x: Tensor) -> Tensor:
        return (x * self._row) @ self.basis.mT

    def solve(self, x: Tensor) -> Tensor:
        return (x / self._row) @ self.basis.mT

    def solve_transpose(self, x: Tensor) -> Tensor:
        return (x @ self.basis) / self._row

    def precondition(self, x: Tensor) -> Tensor:
        return x @ self._inverse
