"""``G`` at one moment, for diagnosis: condition number, effective rank, drift. Off the training path.

Leading dimensions are matrices side by side: the blocks of one block-diagonal ``G``.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from sngd_tune.core.nystrom import Eigenpairs

__all__ = ["DenseSnapshot", "DiagonalSnapshot", "KronSnapshot", "LowRankSnapshot", "Snapshot"]


class Snapshot(ABC):
    """What can be asked of ``G``. All results are Python floats."""

    @abstractmethod
    def extremes(self) -> tuple[float, float]:
        """Smallest and largest eigenvalue, both ≥ 0."""

    @abstractmethod
    def trace(self) -> float:
        """``tr G``."""

    @abstractmethod
    def squared_norm(self) -> float:
        """``‖G‖²`` (Frobenius)."""

    @abstractmethod
    def inner(self, other: "Snapshot") -> float:
        """``⟨G, H⟩`` with a snapshot of the same kind."""

    def condition_number(self, damping: float) -> float:
        """Largest over smallest eigenvalue of ``G + λI``."""
        low, high = self.extremes()
        return (high + damping) / (low + damping)

    def effective_rank(self) -> float:
        """``tr(G)² / tr(G²)``, between 1 and d; 0 for ``G = 0``."""
        norm = self.squared_norm()
        return self.trace() ** 2 / norm if norm > 0 else 0.0

    def drift(self, before: "Snapshot") -> float:
        """``‖G − G_before‖ / ‖G_before‖`` (Frobenius); 0 where the one before is 0."""
        scale = before.squared_norm()
        difference = max(self.squared_norm() + scale - 2 * self.inner(before), 0.0)
        return (difference / scale) ** 0.5 if scale > 0 else 0.0


class DiagonalSnapshot(Snapshot):
    """A diagonal ``G``, ``[..., d]``."""

    def __init__(self, value: Tensor):
        self.value = value.double()

    def extremes(self) -> tuple[float, float]:
        return float(self.value.min()), float(self.value.max())

    def trace(self) -> float:
        return float(self.value.sum())

    def squared_norm(self) -> float:
        return float(self.value.square().sum())

    def inner(self, other: Snapshot) -> float:
        assert isinstance(other, DiagonalSnapshot)
        return float((self.value * other.value).sum())


class DenseSnapshot(Snapshot):
    """Dense ``G: [..., d, d]``, or blocks ``[..., k, b, b]`` the last of which end in `padding` zero rows."""

    def __init__(self, value: Tensor, padding: int = 0):
        self.value = value.clone()
        self._padding = padding

    def extremes(self) -> tuple[float, float]:
        eigenvalues = torch.linalg.eigvalsh(self.value)  # ascending: the zeros of the padding come first
        smallest = eigenvalues[..., 0]
        if self._padding:
            smallest = torch.cat((smallest[..., :-1], eigenvalues[..., -1:, self._padding]), dim=-1)
        return max(float(smallest.min()), 0.0), float(eigenvalues.max())

    def trace(self) -> float:
        return float(self.value.diagonal(dim1=-2, dim2=-1).sum(dtype=torch.float64))

    def squared_norm(self) -> float:
        return float(self.value.square().sum(dtype=torch.float64))

    def inner(self, other: Snapshot) -> float:
        assert isinstance(other, DenseSnapshot)
        return float((self.value * other.value).sum(dtype=torch.float64))


class KronSnapshot(Snapshot):
    """``G = B ⊗ A``, from ``A: [..., d, d]`` and ``B: [..., d_out, d_out]``; the product is never formed."""

    def __init__(self, inputs: Tensor, outputs: Tensor):
        self.factors = inputs.double(), outputs.double()

    def extremes(self) -> tuple[float, float]:
        values = [torch.linalg.eigvalsh(factor).clamp(min=0) for factor in self.factors]
        return float((values[0][..., 0] * values[1][..., 0]).min()), float(
            (values[0][..., -1] * values[1][..., -1]).max()
        )

    def trace(self) -> float:
        traces = [factor.diagonal(dim1=-2, dim2=-1).sum(-1) for factor in self.factors]
        return float((traces[0] * traces[1]).sum())

    def squared_norm(self) -> float:
        return self.inner(self)

    def inner(self, other: Snapshot) -> float:
        assert isinstance(other, KronSnapshot)
        products = [(left * right).sum((-2, -1)) for left, right in zip(self.factors, other.factors, strict=True)]
        return float((products[0] * products[1]).sum())


class LowRankSnapshot(Snapshot):
    """The leading eigenpairs of ``G: [..., d, d]`` and the mean of the rest."""

    def __init__(self, pairs: Eigenpairs):
        self.pairs = Eigenpairs(pairs.basis.double(), pairs.values.double(), pairs.tail.double())

    def extremes(self) -> tuple[float, float]:
        d, r = self.pairs.basis.shape[-2:]
        low = self.pairs.tail if r < d else self.pairs.values[..., -1]
        return float(low.min()), float(self.pairs.values[..., 0].max())

    def trace(self) -> float:
        d, r = self.pairs.basis.shape[-2:]
        return float(self.pairs.values.sum() + (d - r) * self.pairs.tail.sum())

    def squared_norm(self) -> float:
        return float(self.pairs.squared_norm().sum())

    def inner(self, other: Snapshot) -> float:
        """Trace of the product, from the factors: no ``d × d`` matrix is formed."""
        assert isinstance(other, LowRankSnapshot)
        left, right = self.pairs, other.pairs
        overlap = (left.basis.mT @ right.basis).square()
        d = left.basis.shape[-2]
        above = left.values - left.tail.unsqueeze(-1), right.values - right.tail.unsqueeze(-1)
        kept = (above[0].unsqueeze(-2) @ overlap @ above[1].unsqueeze(-1))[..., 0, 0]
        mixed = right.tail * above[0].sum(-1) + left.tail * above[1].sum(-1)
        return float((kept + mixed + d * left.tail * right.tail).sum())
