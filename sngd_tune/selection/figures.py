"""The figures of a probed layer, for people: spectrum, noise, drift, output side."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sngd_tune.records.selection import LayerProbe
from sngd_tune.selection.candidates import Candidate
from sngd_tune.selection.gain import Judge, eigenbasis, output_weights
from sngd_tune.selection.probe import LayerEvidence
from sngd_tune.selection.sample import LayerSample

__all__ = ["drift", "effective_rank", "layer_probe", "least_damping", "retained_trace", "spectrum"]

_RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_FLOOR = 1e-4  # of the mean, under the condition number
#: Share of the directions in which the damping has to cover the sampling error of ``G``.
_COVERED = 0.9
_OUTPUT_DAMPINGS = (1e-2, 1e-1, 1.0)


def layer_probe(evidence: LayerEvidence, plain: float, candidates: Sequence[Candidate]) -> LayerProbe:
    """All figures of a layer; those of several matrices side by side are means, the condition number the largest.

    Args:
        evidence: of the layer.
        plain: expected decrease without a local Fisher layer.
        candidates: of the layer.
    """
    match, fit = evidence.match, evidence.fit
    shape, values = match.site.shape, spectrum(fit.inputs)
    first = evidence.seen.passes[0].inputs
    strongest = max(candidates, key=lambda each: each.best.fresh)
    return LayerProbe(
        layer=match.name,
        module=type(match.module).__name__,
        inputs=shape.d,
        outputs=shape.d_out,
        matrices=shape.matrices,
        positions=first.count / max(first.examples, 1),
        effective_rank=effective_rank(values),
        condition_number=_condition(values),
        retained_trace=retained_trace(values),
        batch_noise=fit.batch_noise,
        least_damping=least_damping(fit, evidence.judges),
        drift={age: drift(sample, evidence) for age, sample in sorted(evidence.earlier.items())},
        retained_gain={age: strongest.best.retained(age) for age in sorted(evidence.earlier)},
        output_effective_rank=effective_rank(spectrum(fit.outputs)),
        output_gain=_output_gain(evidence, strongest.best.fresh),
        progress=plain,
    )


def spectrum(matrix: Tensor) -> Tensor:
    """Eigenvalues of ``[L, d, d]``, or of a diagonal ``[L, d]``; descending, ≥ 0."""
    values = matrix.sort(-1).values if matrix.dim() == 2 else torch.linalg.eigvalsh(matrix)
    return values.flip(-1).clamp(min=0)


def effective_rank(values: Tensor) -> float:
    """``tr(G)² / tr(G²)`` from eigenvalues ``[L, d]``, in [1, d]; 0 for ``G = 0``."""
    squares = values.square().sum(-1)
    return float((values.sum(-1).square() / squares.clamp(min=torch.finfo(values.dtype).tiny)).mean())


def retained_trace(values: Tensor) -> dict[int, float]:
    """Share of the trace in the leading eigenvalues, by their number; from descending eigenvalues ``[L, d]``."""
    share = values.cumsum(-1) / values.sum(-1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    return {rank: float(share[:, rank - 1].mean()) for rank in _RANKS if rank <= values.shape[-1]}


def least_damping(fit: LayerSample, judges: Sequence[LayerSample]) -> float:
    """Relative damping that makes up for what small eigenvalues are underestimated by, ≥ 0.

    Along an eigenvector of a fitted ``G`` other batches have, on average, more than its small eigenvalue says (and less
    than its large one): the fit has found the directions in which its own sample happens to be short (Marchenko and
    Pastur 1967). This is the shortfall that 90 % of the directions stay below, over the mean of the diagonal. For
    ``G = I`` from ``n`` rows it nears ``1 − (1 − √(d / n))²``.
    """
    if fit.one_hot:
        return 0.0
    values, vectors = torch.linalg.eigh(fit.inputs)
    others = sum((judge.inputs for judge in judges), torch.zeros_like(fit.inputs)) / len(judges)
    found = (vectors * (others @ vectors)).sum(-2)
    short = (found - values).clamp(min=0) / values.mean(-1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    return float(short.quantile(_COVERED, dim=-1).mean())


def drift(earlier: LayerSample, evidence: LayerEvidence) -> float:
    """``‖G_now − G_then‖ / ‖G_now‖`` (Frobenius), what sampling alone would make of it taken off, ≥ 0."""
    now = evidence.fit
    norm = float(now.inputs.square().sum())
    if not norm:
        return 0.0
    moved = float((now.inputs - earlier.inputs).square().sum()) / norm
    sampling = now.batch_noise**2 / now.batches + earlier.batch_noise**2 / earlier.batches
    return math.sqrt(max(moved - sampling, 0.0))


def _condition(values: Tensor) -> float:
    floor = _FLOOR * values.mean(-1)
    return float(((values[:, 0] + floor) / (values[:, -1] + floor).clamp(min=torch.finfo(values.dtype).tiny)).max())


def _output_gain(evidence: LayerEvidence, best: float) -> float | None:
    """Expected decrease of a dense `P` on both sides over `best`, the one on the input side alone; with fresh roots."""
    fit = evidence.fit
    if fit.one_hot or best <= 0:
        return None
    judge, basis = Judge(*evidence.judges, fit.examples), eigenbasis(fit.inputs)
    found = []
    for damping in _OUTPUT_DAMPINGS:  # each factor has the root of the whole's (core.estimates.kron)
        outputs = output_weights(fit.outputs, math.sqrt(damping))
        found.append(float(judge.progress(basis, basis.weights(math.sqrt(damping)), outputs).sum()))
    return max(found) / evidence.share / best
