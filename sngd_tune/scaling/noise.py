"""The gradient noise scale: at which batch size a batch's gradient is as much noise as signal.

McCandlish et al. 2018 (arXiv 1812.06162): ``B_noise = tr Σ / |∇|²``, with ``Σ`` the covariance of one example's
gradient. Both are estimated without bias from a gradient at two batch sizes, here one batch of ``b`` examples and the
``K`` batches together: with ``M_kl = ⟨∇_k, ∇_l⟩`` the mean off the diagonal estimates ``|∇|²``, and the mean on the
diagonal less that ``tr Σ / b``. (The two-size formulas of their appendix A.1, averaged over all choices of batches.)

Preconditioned descent sees another scale. A step with ``P = R Rᵀ`` is a plain step in the coordinates of the
reconstruction, ``∇′ = ∇ R``, so its scale is ``tr(P Σ) / ⟨∇, P ∇⟩``: the same estimate of gradients in those
coordinates. Whether SNGD raises the critical batch size is read from both scales of one model at one time; that a
scale predicts the critical size is an assumption (a curvature near the identity), which `critical_batch` tests.

The interval is Fieller's for a ratio, from jackknifed batches (1954; Arvesen 1969): where the gradient cannot be told
from 0 its upper end is open. In simulations (4 to 64 batches, noise scales of 1 to 60 batches) it held 96 to 99.8 % of
the time: it errs on the wide side.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sngd_tune.core.account import matches
from sngd_tune.core.local_fisher import LocalFisher
from sngd_tune.core.operators.base import join
from sngd_tune.errors import ConfigurationError
from sngd_tune.settings import FisherSettings

__all__ = ["Coordinates", "NoiseScale", "Reconstructed", "measure_noise", "noise_scale", "plain"]

#: Gradients of a model after a backward pass, as one vector.
Coordinates = Callable[[nn.Module], Tensor]

_LEVEL = 0.95
_FEWEST = 4  # batches
_CHUNK = 2**20  # columns in float64 at a time


@dataclass(frozen=True, kw_only=True)
class NoiseScale:
    """An estimate.

    Attributes:
        size: ``B_noise``, examples; infinite where the estimate of ``|∇|²`` is not above 0.
        low, high: its 95 % interval, ≥ 0.
        signal: ``|∇|²``, unbiased: it can be below 0.
        noise: ``tr Σ`` of one example, unbiased.
        batches: ``K``.
        examples: ``b``, of each.
    """

    size: float
    low: float
    high: float
    signal: float
    noise: float
    batches: int
    examples: int


def noise_scale(products: np.ndarray, examples: int) -> NoiseScale:
    """From the scalar products of the gradients of independent batches.

    Args:
        products: ``M: [K, K]``, ``K ≥ 4``.
        examples: ``b ≥ 1`` of each batch, over which its gradient is the mean.

    Raises:
        ConfigurationError: there are too few batches.
    """
    count = len(products)
    if count < _FEWEST:
        raise ConfigurationError(f"batches={count}: must be ≥ {_FEWEST}, as their spread is what is measured")
    whole = _moments(products, examples)
    without = [_moments(np.delete(np.delete(products, k, 0), k, 1), examples) for k in range(count)]
    pseudo = count * whole - (count - 1) * np.array(without)
    low, high = _fieller(whole, np.cov(pseudo.T) / count, count - 1)
    signal, noise = whole.tolist()
    size = noise / signal if signal > 0 else math.inf
    return NoiseScale(
        size=max(size, 0.0), low=low, high=high, signal=signal, noise=noise, batches=count, examples=examples
    )


def measure_noise(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], Tensor],
    batches: Sequence[Any],
    examples: int,
    coordinates: Mapping[str, Coordinates],
) -> dict[str, NoiseScale]:
    """Noise scales of one model in several coordinates, from the same backward passes; the model stays as it is.

    Args:
        model: an optimizer that observes it is not disturbed, as a copy is differentiated.
        loss: gives the mean loss of a model on a batch.
        batches: independent, at least 4, of equally many examples: drawn with replacement where the data is small, as
            parts of one set are anticorrelated, which takes ``tr Σ / N`` off the signal.
        examples: of each.
        coordinates: by name, such as ``{"sgd": plain, "sngd": Reconstructed(optimizer.layers)}``.

    Raises:
        ConfigurationError: there are too few batches.
    """
    own = copy.deepcopy(model)
    rows: dict[str, list[Tensor]] = {name: [] for name in coordinates}
    with torch.enable_grad():
        for batch in batches:
            own.zero_grad()
            loss(own, batch).backward()
            for name, seen in coordinates.items():
                rows[name].append(seen(own))
    return {name: noise_scale(_products(torch.stack(found)), examples) for name, found in rows.items()}


def plain(model: nn.Module) -> Tensor:
    """Gradients as they are; what has none counts as 0 and is left out."""
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


class Reconstructed:
    """Gradients in the coordinates of the reconstruction, ``∇ R`` for layers with a root and as they are elsewhere.

    Args:
        layers: `SNGD.layers` of the optimizer that trains the model, by the name of the site.
    """

    def __init__(self, layers: Mapping[str, LocalFisher]):
        self._layers = layers

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> Tensor:
        """The vector, whose squared length is ``⟨∇, P ∇⟩``."""
        parts: list[Tensor] = []
        seen: set[Tensor] = set()
        for match in matches(model, FisherSettings()):
            gradients = [parameter.grad for parameter in match.parameters]
            if match.name in self._layers and all(gradient is not None for gradient in gradients):
                fisher = self._layers[match.name]
                joint = join(match.site.matrices(tuple(gradients))).to(fisher.dtype)  # type: ignore[arg-type]
                parts.append(fisher.root.apply(joint).flatten())
                seen.update(match.parameters)
        rest = [p.grad.flatten() for p in model.parameters() if p not in seen and p.grad is not None]
        return torch.cat([*parts, *rest])


def _products(rows: Tensor) -> np.ndarray:
    """``M`` in float64, as small differences of it count."""
    parts = (part.detach().double() for part in rows.split(_CHUNK, dim=1))
    return np.asarray(sum(part @ part.mT for part in parts).cpu())


def _moments(products: np.ndarray, examples: int) -> np.ndarray:
    """``|∇|²`` and ``tr Σ``."""
    count = len(products)
    signal = (products.sum() - products.trace()) / (count * (count - 1))
    return np.array([signal, examples * (products.trace() / count - signal)])


def _fieller(moments: np.ndarray, covariance: np.ndarray, freedom: int) -> tuple[float, float]:
    """Interval of ``tr Σ / |∇|²``: the ratios ``λ`` for which ``tr Σ − λ |∇|²`` is not told from 0."""
    from scipy.stats import t

    margins = float(t.ppf((1 + _LEVEL) / 2, freedom)) ** 2 * covariance
    (a, b), (_, c) = (np.outer(moments, moments) - margins).tolist()
    if b * b < a * c:
        return 0.0, math.inf
    ends = sorted((b + side * math.sqrt(b * b - a * c)) / a for side in (-1, 1)) if a else [c / (2 * b), math.inf]
    if a > 0:
        return max(ends[0], 0.0), max(ends[1], 0.0)
    return max(ends[1], 0.0), math.inf  # all beyond the larger root
