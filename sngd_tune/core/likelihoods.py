"""Output distributions of a model, for the true Fisher matrix: expectations over the model's own targets.

Outputs are ``f: [*terms, C]``: one distribution over the last dimension for each index before it, and the loss is
their negative log-likelihoods' mean. The Fisher matrix of the outputs of one term is ``E[v vᵀ]`` with
``v = ∂(−log p(y | f))/∂f`` for ``y`` drawn from ``p(· | f)``: `sample` draws such a ``v``, and `columns` gives a
square root of the matrix, column by column (Kunstner et al. 2019; Dangel et al. 2020).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from sngd_tune.errors import SettingsError

__all__ = [
    "LIKELIHOODS",
    "BernoulliLikelihood",
    "GaussianLikelihood",
    "Likelihood",
    "SoftmaxLikelihood",
    "make_likelihood",
]


class Likelihood(ABC):
    """A distribution of targets, given outputs ``f: [*terms, C]`` in float32 or float64."""

    @abstractmethod
    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """``v = ∂(−log p(y | f))/∂f`` for one target drawn for each term, ``[*terms, C]``.

        Args:
            outputs: ``f``.
            generator: on the CPU, so that every device draws the same.
        """

    @abstractmethod
    def columns(self, outputs: Tensor) -> Iterator[Tensor]:
        """`C` tensors ``S_c: [*terms, C]`` with ``Σ_c S_c S_cᵀ`` the Fisher matrix of each term's outputs."""


class SoftmaxLikelihood(Likelihood):
    """Classes with logits `f`; the loss is `cross_entropy`. Columns are ``√p_c (e_c − p)``."""

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        p = outputs.softmax(-1)
        uniform = torch.rand(outputs.shape[:-1], dtype=torch.float64, generator=generator).to(p)
        # The class in whose share of [0, 1) the number falls; rounding can leave a sum below 1.
        drawn = (p.cumsum(-1) <= uniform.unsqueeze(-1)).sum(-1).clamp_(max=p.shape[-1] - 1)
        return p - one_hot(drawn, p.shape[-1])

    def columns(self, outputs: Tensor) -> Iterator[Tensor]:
        p = outputs.softmax(-1)
        for c in range(p.shape[-1]):
            column = -p
            column[..., c] += 1
            yield column * p[..., c : c + 1].sqrt()


class GaussianLikelihood(Likelihood):
    """Unit variance around `f`; the loss is ``½ ‖y − f‖²`` over the last dimension. Columns are the identity's."""

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randn(outputs.shape, dtype=torch.float64, generator=generator).to(outputs)

    def columns(self, outputs: Tensor) -> Iterator[Tensor]:
        yield from _on_diagonal(torch.ones_like(outputs))


class BernoulliLikelihood(Likelihood):
    """Independent yes or no with logits `f`; the loss is `binary_cross_entropy_with_logits`, summed over the last."""

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        p = outputs.sigmoid()
        uniform = torch.rand(outputs.shape, dtype=torch.float64, generator=generator).to(p)
        return p - (uniform < p).to(p)

    def columns(self, outputs: Tensor) -> Iterator[Tensor]:
        p = outputs.sigmoid()
        yield from _on_diagonal((p * (1 - p)).sqrt())


def _on_diagonal(scale: Tensor) -> Iterator[Tensor]:
    """The columns of ``diag(scale)``."""
    for c in range(scale.shape[-1]):
        column = torch.zeros_like(scale)
        column[..., c] = scale[..., c]
        yield column


LIKELIHOODS: dict[str, type[Likelihood]] = {
    "softmax": SoftmaxLikelihood,
    "gaussian": GaussianLikelihood,
    "bernoulli": BernoulliLikelihood,
}


def make_likelihood(likelihood: str | Likelihood) -> Likelihood:
    """The likelihood of that name, or the one given (SettingsError for an unknown name)."""
    if isinstance(likelihood, Likelihood):
        return likelihood
    if likelihood not in LIKELIHOODS:
        known = ", ".join(LIKELIHOODS)
        raise SettingsError(f"likelihood={likelihood!r}: must be one of {known}, or a Likelihood; try 'softmax'")
    return LIKELIHOODS[likelihood]()
