"""``G`` at one moment, for diagnosis: condition number, effective rank, drift. Off the training path."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from sngd_tune.core.nystrom import Eigenpairs

__all__ = ["DenseSnapshot", "DiagonalSnapshot", "LowRankSnapshot", "Snapshot"]


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
    """A diagonal ``G``, ``[d]``."""

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
        return float(self.value @ other.value)


class DenseSnapshot(Snapshot):
    """A dense ``G: [d, d]``, or a block-diagonal one, ``[k, b, b]``, whose last block ends in `padding` zero rows."""

    def __init__(self, value: Tensor, padding: int = 0):
        self.value = value.clone()
        self._padding = padding

    def extremes(self) -> tuple[float, float]:
        eigenvalues = torch.linalg.eigvalsh(self.value).reshape(-1, self.value.shape[-1])
        # Ascending, so that the zeros of the padding are the first of the last block.
        smallest = torch.cat((eigenvalues[:-1, 0], eigenvalues[-1, self._padding :][:1])).min()
        return max(float(smallest), 0.0), float(eigenvalues.max())

    def trace(self) -> float:
        return float(self.value.diagonal(dim1=-2, dim2=-1).sum(dtype=torch.float64))

    def squared_norm(self) -> float:
        return float(self.value.square().sum(dtype=torch.float64))

    def inner(self, other: Snapshot) -> float:
        assert isinstance(other, DenseSnapshot)
        return float((self.value * other.value).sum(dtype=torch.float64))


class LowRankSnapshot(Snapshot):
    """The leading eigenpairs of ``G`` and the mean of the rest."""

    def __init__(self, pairs: Eigenpairs):
        self.pairs = Eigenpairs(pairs.basis.double(), pairs.values.double(), pairs.tail.double())

    def extremes(self) -> tuple[float, float]:
        d, r = self.pairs.basis.shape
        low = self.pairs.tail if r < d else self.pairs.values[-1]
        return float(low), float(self.pairs.values[0])

    def trace(self) -> float:
        d, r = self.pairs.basis.shape
        return float(self.pairs.values.sum() + (d - r) * self.pairs.tail)

    def squared_norm(self) -> float:
        return float(self.pairs.squared_norm())

    def inner(self, other: Snapshot) -> float:
        """Trace of the product, from the factors: no ``d × d`` matrix is formed."""
        assert isinstance(other, LowRankSnapshot)
        left, right = self.pairs, other.pairs
        overlap = (left.basis.mT @ right.basis).square()
        d = len(left.basis)
        kept = (left.values - left.tail) @ overlap @ (right.values - right.tail)
        mixed = right.tail * (left.values - left.tail).sum() + left.tail * (right.values - right.tail).sum()
        return float(kept + mixed + d * left.tail * right.tail)
