"""Bounds on a natural gradient step, for base optimizers whose step is proportional to the gradient.

Early on ``G`` comes from few batches and its inverse explodes in the directions they miss; without a bound an MLP on
MNIST diverges within ten steps at a normal learning rate (measured in the prototype of the design).

Each bound exists twice, once for each form of the method: on natural gradients in the coordinates of ``W``, and on
gradients in those of ``W′``, where ``⟨∇, (G + λI)⁻¹∇⟩`` is ``‖∇_W′‖²``.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sngd_tune.core.operators import RootOperator

__all__ = ["BOUNDS", "Graft", "Rebuilt", "StepBound", "TrustRegion", "Unbounded", "kl_scale"]


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The gradient of a ``W′`` on its way into a step of the explicit form.

    Attributes:
        gradient: ``∇_W′ = ∇_W R``, ``[*lead, d_out, d]``.
        root: ``R``.
        lr: η of its parameter group.
        kl_bound: of the layer's settings.
    """

    gradient: Tensor
    root: RootOperator
    lr: float
    kl_bound: float


class StepBound(ABC):
    """How far a step may go."""

    #: Whether each layer's natural gradient gets the norm of its gradient.
    graft = False
    #: Whether all layers together stay in one trust region.
    joint = False

    @abstractmethod
    def limit(self, layers: Sequence[Rebuilt]) -> None:
        """Bound the gradients of ``W′`` in place, those of all layers that ask for this bound at once."""


class Unbounded(StepBound):
    """The bare natural gradient step."""

    def limit(self, layers: Sequence[Rebuilt]) -> None:
        """Leave them."""


class Graft(StepBound):
    """The natural gradient's direction with the gradient's norm, layer by layer."""

    graft = True

    def limit(self, layers: Sequence[Rebuilt]) -> None:
        for layer in layers:
            natural = torch.linalg.vector_norm(layer.root.apply_transpose(layer.gradient))
            plain = torch.linalg.vector_norm(layer.root.solve(layer.gradient))
            layer.gradient.mul_(plain / natural.clamp(min=torch.finfo(natural.dtype).tiny))


class TrustRegion(StepBound):
    """The whole step scaled down to a predicted KL divergence (`kl_scale`)."""

    joint = True

    def limit(self, layers: Sequence[Rebuilt]) -> None:
        products = [layer.lr**2 * layer.gradient.square().sum() for layer in layers]
        scales = kl_scale(products, [layer.kl_bound for layer in layers])
        for layer, scale in zip(layers, scales, strict=True):
            layer.gradient.mul_(scale)


BOUNDS: dict[str, StepBound] = {"none": Unbounded(), "graft": Graft(), "kl": TrustRegion()}


def kl_scale(products: Sequence[Tensor], bounds: Sequence[float]) -> list[Tensor]:
    """Factors that keep the predicted KL divergence of a joint step below each layer's bound.

    Args:
        products: for each layer ``η² ⟨∇, (G + λI)⁻¹ ∇⟩``, ``[]``, ≥ 0.
        bounds: for each layer its ``kl_bound``.

    Returns:
        for each layer ``min(1, sqrt(bound / Σ products))``, ``[]``.
    """
    if not products:
        return []
    total = torch.stack(list(products)).sum()
    tiny = torch.finfo(total.dtype).tiny
    return [(bound / total.clamp(min=tiny)).sqrt().clamp(max=1.0) for bound in bounds]
