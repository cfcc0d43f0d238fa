"""Roots of dense matrices: ``R`` with ``R Rᵀ = (G + λI)⁻¹`` for symmetric ``G: [*lead, d, d]`` (both halves are read).

Each takes ``G``, ``λ`` (> 0; ``[*lead]``, or ``[]`` for all alike) and the last root, from which an iteration may
start. Each names its failure with a `RootError`, and none falls back on another in silence. `nystrom` works on a sketch
and lives in a module of its own.

Rounding may leave eigenvalues of ``G`` a little below 0. `eigh` and `eigenbasis` count them as 0. The others need
``G + λI`` to be positive definite: what lies above ``−λ`` does no harm, and with an eigenvalue below they fail.

**Which one.** ``sngd-tune bench roots --rounds 5`` on a CPU, one thread, float32, the default damping; time as a
multiple of Cholesky's, the first product with the inverse included (`nystrom`: without the sketch, which batches form):

=================== ======= ======= ======= ======= ======= =========================================================
root                d = 64  256     512     1024    2048    choose it for
=================== ======= ======= ======= ======= ======= =========================================================
cholesky            0.14 ms 1.0 ms  6.2 ms  34 ms   216 ms  CPU, any size: SGD and momentum, which take any root
eigh                2.2     4.4     5.2     6.2     7.2     CPU, any size: Adam in symmetric coordinates
eigenbasis          3.8     4.2     4.5     4.9     5.1     CPU, any size: Adam in the eigenvectors' coordinates
newton_schulz       3.2     10      14      24      27      GPU, from a few hundred inputs: expected, not measured
newton_schulz, warm 3.5     8.8     11      15      22
denman_beavers      9.4     19      22      29      32      the papers' results as they were made
nystrom, rank 16    3.6     0.9     0.2     0.07    0.01    CPU, above about 256 inputs, where a low rank will do
nystrom, rank 64    7.3     1.8     0.3     0.09    0.02
=================== ======= ======= ======= ======= ======= =========================================================

GPUs have not been measured. `newton_schulz` is matrix products only, which is what they are fast at; eigensolvers and
Cholesky factorizations are not. Residuals in the same run, up to 2048: eigensolvers 2e-2, the other dense roots 7e-4;
with condition number 1e10 and relative damping 1e-4 2e-2 and 4e-3.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache, partial

import torch
from torch import Tensor

from sngd_tune.core.operators import (
    EigenbasisOperator,
    MatrixOperator,
    RootOperator,
    SymmetricOperator,
    TriangularOperator,
)
from sngd_tune.errors import RootError

__all__ = ["DENSE_ROOTS", "Root", "cholesky", "denman_beavers", "eigenbasis", "eigh", "newton_schulz"]

Root = Callable[[Tensor, Tensor, RootOperator | None], RootOperator]

_MAX_ITERATIONS = 60
_REMEDY = "raise relative_damping (≥ 1e-4 in float32)"

_Polynomial = tuple[float, float, float]

#: Best near 1: the start of the series of ``m^-½``.
_TAYLOR = (15 / 8, -10 / 8, 3 / 8)
_MAX_POLISHING = 12
#: Residuals per eigenvalue: from where an iteration has gone wrong, and up to where it is as good as it gets.
_DIVERGED, _CLOSE = 1e3, 1e-2
#: ``‖I − R₀ᵀ A R₀‖`` up to which the last root is a start, and what the eigenvalues of ``R₀ᵀ A R₀`` are then taken for
#: at least: a moving average gives up little of ``G`` between refreshes.
_FAR, _LOWEST = 64.0, 0.5
#: ``‖I − Rᵀ A R‖`` from which a root that was started from the last one is given up for a fresh one: ``R₀ᵀ A R₀`` is
#: rounded twice at the size of ``R₀``, which a spectrum that has lost directions since can make the whole of it.
_INEXACT = 0.25


def cholesky(G: Tensor, damping: Tensor, last: RootOperator | None = None) -> TriangularOperator:
    """``R = U⁻¹`` from ``G + λI = Uᵀ U``: triangular, the cheapest root.

    Raises:
        RootError: ``G + λI`` is not positive definite in this precision.
    """
    factor, info = torch.linalg.cholesky_ex(_damped(G, damping))
    # LAPACK passes an infinite pivot.
    failed = (info != 0) | ~factor.diagonal(dim1=-2, dim2=-1).isfinite().all(-1)
    if bool(failed.any()):
        raise RootError(f"cholesky: G + λI is not positive definite at {_at(G, damping, failed)}; {_REMEDY}")
    return TriangularOperator(factor.mT)


def eigh(G: Tensor, damping: Tensor, last: RootOperator | None = None) -> SymmetricOperator:
    """The symmetric root ``V (Λ + λ)^-½ Vᵀ``. Negative eigenvalues, which only rounding can make, count as 0.

    Raises:
        RootError: the eigensolver does not converge, or ``λ`` is not positive where ``G`` is singular.
    """
    V, scale = _eigensystem("eigh", G, G, damping)
    root, inverse_root = (V * scale.unsqueeze(-2)) @ V.mT, (V / scale.unsqueeze(-2)) @ V.mT
    return SymmetricOperator(_symmetric(root), _symmetric(inverse_root))


def eigenbasis(G: Tensor, damping: Tensor, last: RootOperator | None = None) -> EigenbasisOperator:
    """``V (Λ + λ)^-½``: the coordinates are the eigenvectors, where Adam's second moments are kept as in SOAP.

    Eigenvectors are ordered by eigenvalue, the largest first, and their signs such that the largest component is
    positive, so that the coordinates stay what they were from one refresh to the next as far as the spectrum allows.
    Inputs that are always 0 (dead units, the padding of a block) stay coordinates of their own, the last ones, in
    their order; no other null vector mixes with them. Negative eigenvalues count as 0.

    Raises:
        RootError: as `eigh`.
    """
    dead = (G == 0).all(-1)
    V, scale = _eigensystem("eigenbasis", G, _set_apart(G, dead), damping)
    V, scale = V.flip(-1), scale.flip(-1)
    largest = V.gather(-2, V.abs().argmax(-2, keepdim=True))
    V = V * torch.where(largest < 0, -1.0, 1.0).to(V.dtype)
    return EigenbasisOperator(_with_own_axes(V, dead), scale)


def denman_beavers(G: Tensor, damping: Tensor, last: RootOperator | None = None) -> SymmetricOperator:
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
            where = _at(G, damping, info != 0)
            raise RootError(f"denman_beavers: an iterate lost definiteness at {where}; {_REMEDY}")
        M_inverse = torch.cholesky_inverse(factor)
        # μ² = |det M|^(-1/d) brings the eigenvalues around 1, where the iteration converges quadratically.
        log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        mu = torch.exp(-log_det / (2 * d))[..., None, None] if previous > 1e-2 else 1.0
        scaled_inverse = M_inverse / mu**2
        root = 0.5 * mu * (root + root @ scaled_inverse)
        inverse_root = 0.5 * mu * (inverse_root + inverse_root @ scaled_inverse)
        M = _symmetric(0.5 * (eye + 0.5 * (mu**2 * M + scaled_inverse)))
        error = (M - eye).abs().amax((-2, -1))
        residual = float(error.max())
        if residual <= tolerance or (residual < 1e-3 and residual >= previous):
            # Either converged, or rounding stops it from falling further.
            return SymmetricOperator(_symmetric(inverse_root), _symmetric(root))
        previous = residual
    where = f"after {_MAX_ITERATIONS} iterations at {_at(G, damping, ~(error <= tolerance))}"
    raise RootError(f"denman_beavers: residual {previous:.2g} {where}; {_REMEDY}")


def newton_schulz(G: Tensor, damping: Tensor, last: RootOperator | None = None) -> MatrixOperator:
    """A root by matrix products alone, started from the last one where that is not too far.

    With ``A = G + λI`` and the last root ``R₀``: ``R = R₀ (R₀ᵀ A R₀)^-½`` goes on in the coordinates of ``R₀``, of
    which Adam's second moments are, in two or three iterations while ``‖I − R₀ᵀ A R₀‖ < 1`` and a few more up to 64.
    Beyond that, where rounding spoils it, and without a last root, ``R`` is the symmetric root, in 4 to 7 iterations
    for condition numbers of 1e2 to 1e6. (From ``R₀`` products lead to the symmetric root only where it commutes with
    ``A``.) Of several matrices all start alike. On a GPU products must not be rounded to TF32.

    Raises:
        RootError: the residual does not fall.
    """
    A, where = _damped(G, damping), partial(_at, G, damping)
    if isinstance(last, MatrixOperator):
        B = _symmetric(last.root.mT @ A @ last.root)
        E = torch.eye(B.shape[-1], dtype=B.dtype, device=B.device) - B
        distance = torch.linalg.matrix_norm(E @ E, keepdim=True).sqrt()  # ≥ the largest eigenvalue of E, and near it
        if bool((distance < _FAR).all()):
            with suppress(RootError):  # B is nearly singular
                found = _continued(last, B, distance, where)
                if _deviation(found.root, A) < _INEXACT:
                    return found
    size = A.abs().amax((-2, -1), keepdim=True)  # against underflow in the square
    size = size * torch.linalg.matrix_norm((A / size) @ (A / size), keepdim=True).sqrt()  # ≥ the largest eigenvalue
    lowest = float((damping[..., None, None] / size).amin())
    Z, Y = _coupled(A / size, _best_polynomials(_level(lowest)), where)
    return MatrixOperator(Z / size.sqrt(), Y * size.sqrt())


def _continued(last: MatrixOperator, B: Tensor, distance: Tensor, where: Callable[[Tensor], str]) -> MatrixOperator:
    """``R₀ B^-½`` and its inverse, which one Newton step keeps from drifting off over many refreshes."""
    size = torch.where(distance < 1, 1, 1 + distance)
    largest = float(size.max())
    polynomials = (_TAYLOR,) if largest == 1 else _best_polynomials(_level(_LOWEST / largest))
    Z, Y = _coupled(B / size, polynomials, where)
    R, X = last.root @ Z / size.sqrt(), Y @ last.inverse_root * size.sqrt()
    return MatrixOperator(R, 2 * X - X @ (R @ X))


def _deviation(R: Tensor, A: Tensor) -> float:
    """The largest ``‖I − Rᵀ A R‖`` (spectral; a lower bound, and near it), by power iteration with thin products."""
    d = A.shape[-1]
    x = torch.randn(d, min(d, 8), generator=torch.Generator().manual_seed(d)).to(A).expand(*A.shape[:-1], -1)
    for _ in range(3):
        x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=torch.finfo(A.dtype).tiny)
        x = x - R.mT @ (A @ (R @ x))
    return float(torch.linalg.matrix_norm(x).max())


def _coupled(B: Tensor, polynomials: Sequence[_Polynomial], where: Callable[[Tensor], str]) -> tuple[Tensor, Tensor]:
    """``B^-½`` and ``B^½``, both symmetric, by products only.

    ``Q = aI + b ZY + c (ZY)², Y ← Y Q, Z ← Q Z`` from ``Y = B, Z = I``: the coupled form does not amplify rounding
    errors (Higham 2008, section 6.4). The last polynomial is repeated until the residual is down.

    Args:
        B: eigenvalues in the interval of the polynomials.
        polynomials: ``(a, b, c)`` of the first iterations.
        where: names the matrices of a mask, for the message.
    """
    Z = _evaluate(polynomials[0], B)
    Y = B @ Z
    for polynomial in polynomials[1:]:
        Q = _evaluate(polynomial, Z @ Y)
        Y, Z = Y @ Q, Q @ Z
    size = B.shape[-1] ** 0.5
    previous = math.inf
    for _ in range(_MAX_POLISHING):
        M = Z @ Y
        residuals = _distance_from_one(M) / size
        residual = float(residuals.max())
        if not residual < _DIVERGED:
            break
        if residual < _CLOSE and residual > previous / 2:  # rounding stops it from falling further
            return _symmetric(Z), _symmetric(Y)
        Q = _evaluate(_TAYLOR, M)
        Y, Z = Y @ Q, Q @ Z
        if residual**3 < torch.finfo(B.dtype).eps:  # its order: the next residual is below rounding
            return _symmetric(Z), _symmetric(Y)
        previous = residual
    failed = ~(residuals < min(_CLOSE, residual))  # out of iterations while close, the farthest
    raise RootError(f"newton_schulz: residual {residual:.2g} does not fall at {where(failed)}; {_REMEDY}")


def _evaluate(polynomial: _Polynomial, M: Tensor) -> Tensor:
    a, b, c = polynomial
    Q = c * (M @ M) + b * M
    Q.diagonal(dim1=-2, dim2=-1).add_(a)
    return Q


def _distance_from_one(M: Tensor) -> Tensor:
    """``‖M − I‖`` (Frobenius), ``[*lead]``."""
    return torch.linalg.matrix_norm(M - torch.eye(M.shape[-1], dtype=M.dtype, device=M.device))


def _level(lowest: float) -> int:
    """The least `l` with ``2^-l ≤ lowest / 2`` (rounding may take an eigenvalue below its bound), 80 at most."""
    return min(80, math.ceil(1 - math.log2(lowest))) if lowest > 0 else 80


@lru_cache
def _best_polynomials(level: int) -> tuple[_Polynomial, ...]:
    """For ``B`` with eigenvalues in ``[2^-level, 1]``: each leads as near to ``I`` as the degree allows.

    In ``x``, the square root of an eigenvalue of ``Z Y``, they are the odd polynomials ``ax + bx³ + cx⁵`` of least
    distance to 1 on the interval where the one before has led (Chen and Chow 2014; Amsel et al. 2025, *The Polar
    Express*). The plain cubic takes two to three times as many products.
    """
    low, high, found = 2 ** (-level / 2), 1.0, []
    while high - low > 0.02:
        a, b, c = _minimax(low, high)
        found.append((a, b, c))
        low = a * low + b * low**3 + c * low**5
        high = 2 - low
    return tuple(found) or (_TAYLOR,)


def _minimax(low: float, high: float) -> _Polynomial:
    """The odd polynomial of degree 5 nearest to 1 on ``[low, high]``, by exchange (Remez) of its two inner extrema."""
    inner, error, before = ((3 * low + high) / 4, (low + 3 * high) / 4), 0.0, math.inf
    while abs(error - before) > 1e-14:
        before = error
        points = zip((low, *inner, high), (1.0, -1.0, 1.0, -1.0), strict=True)
        system = torch.tensor([[x, x**3, x**5, sign] for x, sign in points], dtype=torch.float64, device="cpu")
        a, b, c, error = torch.linalg.solve(system, torch.ones(4, dtype=torch.float64, device="cpu")).tolist()
        spread = math.sqrt(9 * b * b - 20 * a * c)
        inner = math.sqrt((-3 * b - spread) / (10 * c)), math.sqrt((-3 * b + spread) / (10 * c))
    return a, b, c


def _eigensystem(name: str, G: Tensor, solved: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
    """``V`` and ``(Λ + λ)^-½`` of `solved`, which differs from ``G`` in its null space only."""
    try:
        eigenvalues, V = torch.linalg.eigh(solved)
    except RuntimeError as error:  # torch's LinAlgError, or a lapack failure on some builds
        anywhere = torch.ones(G.shape[:-2], dtype=torch.bool)
        raise RootError(f"{name}: no convergence at {_at(G, damping, anywhere)}; {_REMEDY}") from error
    scale = (eigenvalues.clamp(min=0) + damping.unsqueeze(-1)).rsqrt()
    failed = ~(scale.isfinite() & (scale > 0)).all(-1)  # an infinite eigenvalue has the scale 0
    if bool(failed.any()):
        where = _at(G, damping, failed)
        raise RootError(f"{name}: eigenvalues of G + λI are not positive and finite at {where}; {_REMEDY}")
    return V, scale


def _set_apart(G: Tensor, dead: Tensor) -> Tensor:
    """``G`` with eigenvalues below all others, and all different, on the axes whose rows are 0."""
    d = G.shape[-1]
    scale = G.diagonal(dim1=-2, dim2=-1).amax(-1, keepdim=True)
    scale = torch.where(scale > 0, scale, 1)
    below = -scale * (1 + torch.arange(d, dtype=G.dtype, device=G.device) / d)
    return G + torch.diag_embed(torch.where(dead, below, 0))


def _with_own_axes(V: Tensor, dead: Tensor) -> Tensor:
    """``V`` with its last columns, which belong to the axes of `dead`, made exactly these axes."""
    d, count = V.shape[-1], dead.sum(-1, keepdim=True)
    columns = torch.arange(d, device=V.device)
    place = d - count + dead.cumsum(-1) - 1
    axes = dead.unsqueeze(-1) & (place.unsqueeze(-1) == columns)
    return V.masked_fill(dead.unsqueeze(-1) | (columns >= d - count).unsqueeze(-2), 0) + axes.to(V.dtype)


def _damped(G: Tensor, damping: Tensor) -> Tensor:
    A = G.clone()
    A.diagonal(dim1=-2, dim2=-1).add_(damping.unsqueeze(-1))
    return A


def _symmetric(A: Tensor) -> Tensor:
    return 0.5 * (A + A.mT)


def _at(G: Tensor, damping: Tensor, failed: Tensor) -> str:
    """The damping of the matrices of the mask `failed: [*lead]`, for messages."""
    lowest = float(damping.expand(failed.shape)[failed.to(damping.device)].min())
    share = f" ({int(failed.sum())} of {failed.numel()} matrices)" if failed.numel() > 1 else ""
    return f"λ={lowest:.3g} in {G.dtype}{share}"


DENSE_ROOTS: dict[str, Root] = {
    "cholesky": cholesky,
    "eigh": eigh,
    "eigenbasis": eigenbasis,
    "denman_beavers": denman_beavers,
    "newton_schulz": newton_schulz,
}
