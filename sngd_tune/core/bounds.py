"""The trust region on a natural gradient step, for base optimizers whose step is proportional to the gradient.

Early on ``G`` comes from few batches and its inverse explodes in the directions they miss; without a bound an MLP on
MNIST diverges within ten steps at a normal learning rate (measured in the prototype of the design). The other bound,
grafting, concerns one layer at a time: `RootOperator.graft`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["kl_scale"]


def kl_scale(products: Sequence[Tensor], bounds: Sequence[float]) -> list[Tensor]:
    """Factors that keep the predicted KL divergence of a joint step below each layer's bound.

    Args:
        products: for each layer ``η² ⟨∇, (G + λI)⁻¹ ∇⟩``, ``[]``, ≥ 0.
        bounds: for each layer its ``kl_bound``.

    Returns:
        for each layer ``min(1, sqrt(bound / Σ products))``, ``[]``.
    """
    total = torch.stack(list(products)).sum()
    tiny = torch.finfo(total.dtype).tiny
    return [(bound / total.clamp(min=tiny)).sqrt().clamp(max=1.0) for bound in bounds]
