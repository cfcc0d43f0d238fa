"""The gradient noise scale: at which batch size a batch's gradient is as much noise as signal.

McCandlish et al. 2018 (arXiv 1812.06162): ``B_noise = tr Σ / |∇|²``, with ``Σ`` the covariance of one example's
gradient. Both are estimated without bias from a gradient at two batch sizes, here one batch of ``b`` examples and the
``K`` batches together: with ``M_kl = ⟨∇_k, ∇_l⟩`` the mean off the diagonal estimates ``|∇|²``, and the mean on the
diagonal less that ``tr Σ / b``. (The two-size formulas of their appendix A.1, averaged over all choices of batches.)

Preconditioned descent sees another scale. A step with ``P = C Cᵀ`` is a plain step in the coordinates ``∇ C``, so its
scale is ``tr(P Σ) / ⟨∇, P ∇⟩``: the same estimate of gradients in those coordinates (`scaling.coordinates`). Whether
SNGD raises the critical batch size is read from both scales of one model at one time; that a scale predicts the
critical size is an assumption (a curvature near the identity), which `critical_batch` tests.

Of ``M`` only the diagonal and the sums of its rows, ``⟨∇_k, Σ_l ∇_l⟩``, are needed, for the jackknife as well. So each
batch is differentiated twice, once for the sum and once for the products with it, and no gradient is kept. (Of 10
million parameters in two coordinates that took 0.31 GB, copy of the model included; 16 gradients kept are 1.3 GB more.)

Batches must be enough: with ``K b`` below some 4 ``B_noise`` the signal is often not told from 0.

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

from sngd_tune.errors import ConfigurationError
from sngd_tune.scaling.coordinates import Coordinates

__all__ = ["NoiseScale", "Products", "measure_noise", "noise_scale"]

_LEVEL = 0.95
_FEWEST = 4  # batches
_CHUNK = 2**20  # numbers in float64 at a time


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


@dataclass(frozen=True)
class Products:
    """What an estimate is made of: of the gradients ``∇_k`` of ``K`` independent batches.

    Attributes:
        own: ``[K]``, ``⟨∇_k, ∇_k⟩``.
        joint: ``[K]``, ``⟨∇_k, Σ_l ∇_l⟩``.
    """

    own: np.ndarray
    joint: np.ndarray

    def moments(self, examples: int) -> np.ndarray:
        """``|∇|²`` and ``tr Σ``, ``[2]``."""
        return _moments(self.own.sum(), self.joint.sum(), len(self.own), examples)

    def moments_without(self, examples: int) -> np.ndarray:
        """The same without one of the batches, for each of them: ``[2, K]``."""
        own, joint = self.own.sum() - self.own, self.joint.sum() - 2 * self.joint + self.own
        return _moments(own, joint, len(self.own) - 1, examples)


def noise_scale(products: Products, examples: int) -> NoiseScale:
    """From the scalar products of the gradients of independent batches.

    Args:
        products: of at least 4 batches.
        examples: ``b ≥ 1`` of each batch, over which its gradient is the mean.

    Raises:
        ConfigurationError: there are too few batches.
    """
    count = len(products.own)
    if count < _FEWEST:
        raise ConfigurationError(f"batches={count}: must be ≥ {_FEWEST}, as their spread is what is measured")
    whole = products.moments(examples)
    pseudo = count * whole[:, None] - (count - 1) * products.moments_without(examples)
    low, high = _fieller(whole, np.cov(pseudo) / count, count - 1)
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
    """Noise scales of one model in several coordinates, from the same backward passes.

    The model stays as it is, and so do torch's generators: both passes over a batch draw the same numbers.

    Args:
        model: an optimizer that observes it is not disturbed, as a copy is differentiated, in the model's own mode.
        loss: gives the mean loss of a model on a batch.
        batches: independent, at least 4, of equally many examples: drawn with replacement where the data is small, as
            parts of one set are anticorrelated, which takes ``tr Σ / N`` off the signal.
        examples: of each.
        coordinates: by name, such as ``{"sgd": plain, "sngd": Reconstructed(optimizer.layers)}``.

    Raises:
        ConfigurationError: there are too few batches.
    """
    sums: dict[str, Tensor] = {}
    own: dict[str, list[float]] = {name: [] for name in coordinates}
    joint: dict[str, list[float]] = {name: [] for name in coordinates}

    def add(name: str, gradient: Tensor) -> None:
        sums[name] = sums[name].add_(gradient) if name in sums else gradient.clone()

    def multiply(name: str, gradient: Tensor) -> None:
        own[name].append(_product(gradient, gradient))
        joint[name].append(_product(gradient, sums[name]))

    for see in (add, multiply):
        _differentiate(model, loss, batches, coordinates, see)
    products = {name: Products(np.array(own[name]), np.array(joint[name])) for name in coordinates}
    return {name: noise_scale(found, examples) for name, found in products.items()}


def _differentiate(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], Tensor],
    batches: Sequence[Any],
    coordinates: Mapping[str, Coordinates],
    see: Callable[[str, Tensor], None],
) -> None:
    """Show the gradient of each batch in all coordinates: the same each time, as copy and random numbers are."""
    own = copy.deepcopy(model)
    devices = {parameter.device for parameter in own.parameters() if parameter.is_cuda}
    with torch.random.fork_rng(devices), torch.enable_grad():
        for batch in batches:
            own.zero_grad()
            loss(own, batch).backward()
            for name, seen in coordinates.items():
                see(name, seen(own).detach())


def _product(one: Tensor, other: Tensor) -> float:
    """In float64, as small differences of products count."""
    pairs = zip(one.split(_CHUNK), other.split(_CHUNK), strict=True)
    return math.fsum(float(a.double() @ b.double()) for a, b in pairs)


def _moments(own: Any, joint: Any, count: int, examples: int) -> np.ndarray:
    signal = (joint - own) / (count * (count - 1))
    return np.array([signal, examples * (own / count - signal)])


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
