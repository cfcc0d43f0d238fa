"""Roots of ``(G + λI)⁻¹`` for symmetric positive semi-definite ``G: [..., d, d]``.

Each takes ``G`` and ``λ`` (a tensor of shape ``[]``, > 0) and gives an operator; each names its failure with a
`RootError`, and none falls back on another in silence. `nystrom` works on a sketch and lives in a module of its own.

One root of 785 × 785 takes about 18 ms with Cholesky on one CPU thread (design notes), a step of the network it belongs
to 1.3 ms. This is why roots are refreshed at intervals.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from sngd_tune.core.operators import RootOperator, SymmetricOperator, TriangularOperator
from sngd_tune.errors import RootError

__all__ = ["DENSE_ROOTS", "cholesky", "denman_beavers", "eigh"]

_MAX_ITERATIONS = 60
_REMEDY = "raise relative_damping (≥ 1e-4 in float32)"


def cholesky(G: Tensor, damping: Tensor, last=None) -> TriangularOperator:
    """``R = U⁻¹`` from ``G + λI = Uᵀ U``: triangular, the cheapest root.

    Raises:
        RootError: ``G + λI`` is not positive definite in this precision.
    """
    factor, info = torch.linalg.cholesky_ex(_damped(G, damping))
    if bool((info != 0).any()):
        matrix = f"G + λI with λ={float(damping.mean()):.3g}"
        raise RootError(f"cholesky: {matrix} is not positive definite in {G.dtype}; {_REMEDY}")
    return TriangularOperator(factor.mT)


def eigh(G: Tensor, damping: Tensor, last=None) -> SymmetricOperator:
    """The symmetric root ``V (Λ + λ)^-½ Vᵀ``. Negative eigenvalues, which only rounding can make, count as 0.

    Raises:
        RootError: the eigensolver does not converge.
    """
    try:
        eigenvalues, V = torch.linalg.eigh(G)
    except RuntimeError as error:  # torch's LinAlgError, or a lapack failure on some builds
        raise RootError(f"eigh: no convergence on a {tuple(G.shape)} matrix in {G.dtype}; {_REMEDY}") from error
    scale = (eigenvalues.clamp(min=0) + damping.unsqueeze(-1)).sqrt().unsqueeze(-2)
    return SymmetricOperator((V / scale) @ V.mT, (V * scale) @ V.mT)


def denman_beavers(G: Tensor, damping: Tensor, last=None) -> SymmetricOperator:
    """The symmetric root by the Denman-Beavers iteration, the papers' choice.

    The product form with determinantal scaling (Higham, *Functions of Matrices*, 2008, eq. 6.29) needs one Cholesky
    inverse an iteration; the plain form costs 4 to 10 times as much and stalls on rank-deficient ``G``.

    Raises:
        RootError: an iterate is not positive definite, or the residual does not fall within 60 iterations.
    """
    A = _damped(G, damping)
    d = A.shape[-1]
    eye = torch.eye(d, dtype=A.dtype, device=A.device)
    tolerance = d * torch.finfo(A.dtype).eps
    M, root, inverse_root = A, A, eye.expand_as(A)
    previous = float("inf")
    for _ in range(_MAX_ITERATIONS):
        factor, info = torch.linalg.cholesky_ex(M)
        if bool((info != 0).any()):
            where = f"at λ={float(damping.mean()):.3g} in {A.dtype}"
            raise RootError(f"denman_beavers: an iterate lost definiteness {where}; {_REMEDY}")
        M_inverse = torch.cholesky_inverse(factor)
        # μ² = |det M|^(-1/d) brings the eigenvalues around 1, where the iteration converges quadratically.
        log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        mu = torch.exp(-log_det / (2 * d))[..., None, None] if previous > 1e-2 else 1.0
        scaled_inverse = M_inverse / mu**2
        root = 0.5 * mu * (root + root @ scaled_inverse)
        inverse_root = 0.5 * mu * (inverse_root + inverse_root @ scaled_inverse)
        M = 0.5 * (eye + 0.5 * (mu**2 * M + scaled_inverse))
        M = 0.5 * (M + M.mT)
        residual = float((M - eye).abs().amax())
        if residual <= tolerance or (residual < 1e-3 and residual >= previous):
            # Either converged, or rounding stops it from falling further.
            return SymmetricOperator(_symmetric(inverse_root), _symmetric(root))
        previous = residual
    after = f"after {_MAX_ITERATIONS} iterations at λ={float(damping.mean()):.3g}"
    raise RootError(f"denman_beavers: residual {previous:.2g} {after}; {_REMEDY}")


def _damped(G: Tensor, damping: Tensor) -> Tensor:
    A = G.clone()
    A.diagonal(dim1=-2, dim2=-1).add_(damping.unsqueeze(-1))
    return A


def _symmetric(A: Tensor) -> Tensor:
    return 0.5 * (A + A.mT)


DENSE_ROOTS: dict[str, Callable[[Tensor, Tensor], RootOperator]] = {
    "cholesky": cholesky,
    "eigh": eigh,
    "denman_beavers": denman_beavers,
}
