"""A running low-rank view of ``G`` that never forms ``G``: a Nyström sketch, refined by subspace iteration.

Kept are ``Y = G Ω`` for an orthonormal ``Ω: [d, l]`` and the exact trace. Both are linear in ``G``, so that the moving
average of the sketch is the sketch of the moving average, at ``4 n d l`` operations a batch instead of ``n d²`` and
``d l`` numbers instead of ``d²``. The single-pass Nyström approximation ``Y (Ωᵀ Y)⁺ Yᵀ`` (Tropp et al. 2017) gives the
leading eigenpairs; what they leave of the trace goes to the other directions evenly, as a scaled identity.

At each refresh ``Ω ← orth(Y)``, one subspace iteration for the price of a QR, and the sketch moves along. So the basis
follows a drifting ``G`` and the approximation tightens with each refresh. It is exact where ``l = d``, and where ``l``
is at least the rank of ``G``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sngd_tune.core.operators import LowRankOperator
from sngd_tune.errors import RootError

__all__ = ["OVERSAMPLING", "Decomposition", "Eigenpairs", "decompose", "nystrom"]

#: Columns of the sketch beyond the rank; 5 to 10 are customary (Halko et al. 2011).
OVERSAMPLING = 8

_REMEDY = "raise relative_damping (≥ 1e-4 in float32)"


@dataclass(frozen=True)
class Eigenpairs:
    """``G ≈ U diag(values) Uᵀ + tail (I − U Uᵀ)``.

    Attributes:
        basis: ``U: [*lead, d, r]``, orthonormal; a column of zeros stands for a pair that is left to the rest.
        values: ``[*lead, r]``, descending, ≥ 0; those of zero columns are `tail`.
        tail: ``[*lead]``, mean of the eigenvalues not kept, ≥ 0; the least one kept where all are.
    """

    basis: Tensor
    values: Tensor
    tail: Tensor

    def squared_norm(self) -> Tensor:
        """``‖G‖²`` (Frobenius), ``[*lead]``."""
        d, r = self.basis.shape[-2:]
        return self.values.square().sum(-1) + (d - r) * self.tail.square()


@dataclass(frozen=True)
class Decomposition:
    """The eigenpairs of a sketch, and what the next sketch is made of.

    Attributes:
        pairs: the leading eigenpairs, as many as are wanted.
        range: ``Q = orth(Y): [*lead, d, l]``, in whose span the pairs lie; the next ``Ω``. Where ``Y`` lacks rank,
            ``Ω`` makes up for it.
        coordinates: ``Qᵀ U: [*lead, l, r]``, of all pairs that the rank allows.
        values: theirs, ``[*lead, r]``.
        tail: mean of the eigenvalues beyond them, ``[*lead]``.
    """

    pairs: Eigenpairs
    range: Tensor
    coordinates: Tensor
    values: Tensor
    tail: Tensor

    def next_sketch(self) -> Tensor:
        """``G Q`` with ``G`` replaced by its low-rank view, ``[*lead, d, l]``."""
        V, tail = self.coordinates, self.tail.unsqueeze(-1)
        inner = (V * (self.values - tail).unsqueeze(-2)) @ V.mT
        inner.diagonal(dim1=-2, dim2=-1).add_(tail)
        return self.range @ inner


def decompose(
    sketch: Tensor, basis: Tensor, trace: Tensor, rank: int, retained_trace: float | None = None
) -> Decomposition:
    """The leading eigenpairs from ``Y = G Ω``.

    Args:
        sketch: ``Y: [*lead, d, l]``.
        basis: ``Ω: [*lead, d, l]``, orthonormal columns.
        trace: ``tr G``, ``[*lead]``.
        rank: pairs to keep, ≤ l.
        retained_trace: share of the trace in (0, 1] that is enough: pairs beyond it are left to the rest.

    Raises:
        RootError: a decomposition does not converge, or the sketch is not finite.
    """
    core = basis.mT @ sketch
    try:
        values, V = torch.linalg.eigh(0.5 * (core + core.mT))
        # Directions in which the sketch is zero to rounding carry nothing; their pseudo-inverse is 0.
        cutoff = values[..., -1:] * values.shape[-1] ** 0.5 * torch.finfo(values.dtype).eps
        cutoff = cutoff.clamp(min=torch.finfo(values.dtype).tiny)
        inverse_root = torch.where(values > cutoff, values.maximum(cutoff).rsqrt(), torch.zeros_like(values))
        Q = _range(sketch, basis)
        W, singular_values, _ = torch.linalg.svd(Q.mT @ sketch @ (V * inverse_root.unsqueeze(-2)))
    except RuntimeError as error:  # of numbers that are not finite the solvers say so, or find none
        raise RootError(f"nystrom: no convergence on {_named(sketch)}; {_REMEDY}") from error
    if not bool(singular_values.isfinite().all()):
        raise RootError(f"nystrom: no finite eigenvalues of {_named(sketch)}; {_REMEDY}")
    d, found, coordinates = sketch.shape[-2], singular_values[..., :rank].square(), W[..., :rank]
    others = torch.full_like(trace, d - rank)
    tail = _tail(trace, found.sum(-1), others, found[..., -1])
    pairs = Eigenpairs(Q @ coordinates, found, tail)
    if retained_trace is not None:
        pairs = _retained(pairs, trace, retained_trace)
    return Decomposition(pairs, Q, coordinates, found, tail)


def _retained(pairs: Eigenpairs, trace: Tensor, share: float) -> Eigenpairs:
    """The first pairs that reach the share of the trace; the shapes stay."""
    before = pairs.values.cumsum(-1) - pairs.values
    wanted = before < share * trace.unsqueeze(-1)
    others = pairs.basis.shape[-2] - wanted.sum(-1)
    tail = _tail(trace, (pairs.values * wanted).sum(-1), others, pairs.values[..., -1])
    values = torch.where(wanted, pairs.values, tail.unsqueeze(-1))
    return Eigenpairs(pairs.basis * wanted.unsqueeze(-2), values, tail)


def _range(sketch: Tensor, basis: Tensor) -> Tensor:
    """``orth(Y)``, completed by directions of ``Ω`` where ``Y`` lacks rank.

    QR would complete it by axes. With those of dead inputs for ``Ω`` no later sketch would see anything.
    """
    size = torch.linalg.matrix_norm(sketch, keepdim=True)
    rounding = torch.where(size > 0, size * torch.finfo(sketch.dtype).eps, 1)
    return torch.linalg.qr(sketch + rounding * basis).Q


def _tail(trace: Tensor, kept: Tensor, others: Tensor, least: Tensor) -> Tensor:
    """The mean of the `others` eigenvalues that make up the rest of the trace.

    Of none it is the `least` one kept: 0 would have the operator subtract ``λ^-½`` from ``λ^-½`` in every direction.
    """
    return torch.where(others > 0, ((trace - kept) / others.clamp(min=1)).clamp(min=0), least)


def _named(sketch: Tensor) -> str:
    return f"a sketch of shape {tuple(sketch.shape)} in {sketch.dtype}"


def nystrom(pairs: Eigenpairs, damping: Tensor) -> LowRankOperator:
    """The symmetric root ``(G + λI)^-½`` of a low-rank view; ``λ: [*lead]``.

    Raises:
        RootError: ``λ`` is not positive where the view is singular.
    """
    scale, rest = (pairs.values + damping.unsqueeze(-1)).rsqrt(), (pairs.tail + damping).rsqrt()
    if not bool(scale.isfinite().all() & rest.isfinite().all()):
        where = f"λ={float(damping.min()):.3g} in {rest.dtype}"
        raise RootError(f"nystrom: eigenvalues of G + λI are not positive and finite at {where}; {_REMEDY}")
    return LowRankOperator(pairs.basis, scale, rest)
