"""A running low-rank view of ``G`` that never forms ``G``: a Nyström sketch, refined by subspace iteration.

Kept are ``Y = G Ω`` for an orthonormal ``Ω: [d, l]`` and the exact trace. Both are linear in ``G``, so that the moving
average of the sketch is the sketch of the moving average, at ``4 n d l`` operations a batch instead of ``n d²`` and
``d l`` numbers instead of ``d²``. The single-pass Nyström approximation ``Y (Ωᵀ Y)⁺ Yᵀ`` (Tropp et al. 2017) gives the
leading eigenpairs; what they leave of the trace goes to the other directions evenly, as a scaled identity.

At each refresh ``Ω ← orth(Y)``, one subspace iteration for the price of a QR, and the sketch moves along. So the basis
follows a drifting ``G`` and the approximation tightens with each refresh. It is exact where ``l = d``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sngd_tune.core.operators import LowRankOperator
from sngd_tune.errors import RootError

__all__ = ["OVERSAMPLING", "Decomposition", "Eigenpairs", "decompose", "nystrom"]

#: Columns of the sketch beyond the rank; 5 to 10 are customary (Halko et al. 2011).
OVERSAMPLING = 8


@dataclass(frozen=True)
class Eigenpairs:
    """``G ≈ U diag(values) Uᵀ + tail (I − U Uᵀ)``.

    Attributes:
        basis: ``U: [d, r]``, orthonormal.
        values: ``[r]``, descending, ≥ 0.
        tail: ``[]``, mean of the eigenvalues not kept, ≥ 0.
    """

    basis: Tensor
    values: Tensor
    tail: Tensor

    def squared_norm(self) -> Tensor:
        """``‖G‖²`` (Frobenius)."""
        d, r = self.basis.shape
        return self.values.square().sum() + (d - r) * self.tail.square()


@dataclass(frozen=True)
class Decomposition:
    """The eigenpairs of a sketch, and what the next sketch is made of.

    Attributes:
        pairs: the leading eigenpairs.
        range: ``Q = orth(Y): [d, l]``, in whose span the pairs lie; the next ``Ω``.
        coordinates: ``Qᵀ U: [l, r]``.
    """

    pairs: Eigenpairs
    range: Tensor
    coordinates: Tensor

    def next_sketch(self) -> Tensor:
        """``G Q`` with ``G`` replaced by its low-rank view, ``[d, l]``."""
        V, tail = self.coordinates, self.pairs.tail
        inner = (V * (self.pairs.values - tail)) @ V.mT
        inner.diagonal().add_(tail)
        return self.range @ inner


def decompose(sketch: Tensor, basis: Tensor, trace: Tensor, rank: int, retained=None) -> Decomposition:
    """The leading `rank` eigenpairs from ``Y = G Ω``.

    Args:
        sketch: ``Y: [d, l]``.
        basis: ``Ω: [d, l]``, orthonormal columns.
        trace: ``tr G``, ``[]``.
        rank: pairs to keep, ≤ l.

    Raises:
        RootError: a decomposition does not converge.
    """
    core = basis.mT @ sketch
    try:
        values, V = torch.linalg.eigh(0.5 * (core + core.mT))
        # Directions in which the sketch is zero to rounding carry nothing; their pseudo-inverse is 0.
        cutoff = (values[-1] * values.numel() ** 0.5 * torch.finfo(values.dtype).eps).clamp(
            min=torch.finfo(values.dtype).tiny
        )
        inverse_root = torch.where(values > cutoff, values.clamp(min=cutoff).rsqrt(), torch.zeros_like(values))
        Q, T = torch.linalg.qr(sketch)
        W, singular_values, _ = torch.linalg.svd(T @ (V * inverse_root))
    except RuntimeError as error:
        shape = tuple(sketch.shape)
        raise RootError(f"nystrom: no convergence on a sketch of shape {shape}; raise relative_damping") from error
    kept = singular_values[:rank].square()
    others = max(sketch.shape[0] - rank, 1)
    tail = ((trace - kept.sum()) / others).clamp(min=0)
    coordinates = W[:, :rank]
    return Decomposition(Eigenpairs(Q @ coordinates, kept, tail), Q, coordinates)


def nystrom(pairs: Eigenpairs, damping: Tensor) -> LowRankOperator:
    """The symmetric root ``(G + λI)^-½`` of a low-rank view."""
    return LowRankOperator(pairs.basis, (pairs.values + damping).rsqrt(), (pairs.tail + damping).rsqrt())
