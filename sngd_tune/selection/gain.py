"""What a local Fisher layer gains: the decrease of the loss that a step can be expected to bring.

In a layer with mean gradient ``∇`` let an example's gradient have covariance ``F = B ⊗ G``, which is the curvature, too
(the Fisher matrix in both roles; Martens 2020). A step ``−η P ∇_batch`` on a batch of ``b`` examples then changes the
loss by ``−η ⟨∇, P∇⟩ + ½ η² (⟨P∇, F P∇⟩ + tr(P F P F) / b)``; at its best ``η`` the decrease is

    progress(P) = ½ ⟨∇, P∇⟩² / (⟨P∇, F P∇⟩ + tr(P F P F) / b).

The second term of the denominator is why more is not always better: it counts each direction that is whitened at full
price, whether there is a gradient in it or only noise (measured: on an MNIST network the best rank is 16, as in
training, and dense roots come after it; on a CNN and a transformer the best relative damping is 1, as in training).

``P`` is made from one sample of batches and judged by others, so that what is fitted to noise counts as such: with
``⟨∇, P∇⟩`` from two independent means, it is an unbiased estimate. Every input-side ``P`` is diagonal in some
orthonormal basis ``V``, where all three terms are forms of its diagonal ``p``; the basis costs ``d³`` once, each
damping and each rank ``d²``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sngd_tune.selection.sample import LayerSample

__all__ = ["Basis", "Judge", "block_basis", "diagonal_basis", "eigenbasis", "output_weights"]


@dataclass(frozen=True)
class Basis:
    """An orthonormal basis ``V`` in which some ``P`` are diagonal, and the fitted ``G`` along it.

    Attributes:
        vectors: ``V: [L, d, d]``; None: the inputs themselves.
        values: ``diag(Vᵀ G V): [L, d]``, ≥ 0; descending where they are eigenvalues of all of ``G``.
        mean: of the diagonal of ``G``, ``[L, 1]``, which the relative damping multiplies.
    """

    vectors: Tensor | None
    values: Tensor
    mean: Tensor

    def weights(self, damping: float, rank: int | None = None) -> Tensor:
        """``p = 1 / (values + damping · mean)``, ``[L, d]``; beyond `rank` their mean stands for each of the values."""
        values = self.values
        if rank is not None and rank < values.shape[-1]:
            tail = values[:, rank:]
            values = torch.cat((values[:, :rank], tail.mean(-1, keepdim=True).expand_as(tail)), dim=-1)
        return 1 / (values + damping * self.mean).clamp(min=torch.finfo(values.dtype).tiny)


def eigenbasis(inputs: Tensor) -> Basis:
    """Of ``G: [L, d, d]``: for ``"input"`` at any rank."""
    values, vectors = torch.linalg.eigh(inputs)
    return Basis(vectors.flip(-1), values.flip(-1).clamp(min=0), _mean(inputs))


def diagonal_basis(inputs: Tensor) -> Basis:
    """For ``"diagonal"``; ``G: [L, d, d]`` or its diagonal ``[L, d]``."""
    values = inputs if inputs.dim() == 2 else inputs.diagonal(dim1=-2, dim2=-1)
    return Basis(None, values, values.mean(-1, keepdim=True))


def block_basis(inputs: Tensor, blocks: Sequence[Tensor]) -> Basis:
    """For ``"block:…"``: the eigenvectors of each diagonal block.

    Args:
        inputs: ``G: [L, d, d]``.
        blocks: numbers of the inputs of each, which together are all.
    """
    vectors, values = torch.zeros_like(inputs), torch.zeros_like(inputs[..., 0])
    for block in blocks:
        found, basis = torch.linalg.eigh(inputs[:, block[:, None], block])
        vectors[:, block[:, None], block] = basis
        values[:, block] = found.clamp(min=0)
    return Basis(vectors, values, _mean(inputs))


def output_weights(outputs: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """``(U, q)``: eigenvectors of ``B: [L, d_out, d_out]``, and ``q = 1 / (values + damping · mean)``."""
    values, vectors = torch.linalg.eigh(outputs)
    return vectors, 1 / (values.clamp(min=0) + damping * _mean(outputs)).clamp(min=torch.finfo(values.dtype).tiny)


class Judge:
    """Judges what was fitted to other batches.

    Args:
        first: and `second`: two samples of the layer, independent of the one that the candidates were fitted to.
        examples: of the batches that training will have; ``b`` above.
    """

    def __init__(self, first: LayerSample, second: LayerSample, examples: float):
        self._parts = first, second
        self._examples = examples

    def progress(self, basis: Basis, weights: Tensor, outputs: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """``progress(P)`` for each of the ``L`` matrices, ≥ 0, in units of the loss; 0 where no gradient is to be seen.

        Args:
            basis: of the input side.
            weights: ``p: [L, d]`` along it.
            outputs: as `output_weights` gives them; None: the output side stays as it is.
        """
        return self.forms(basis, outputs).progress(weights)

    def forms(self, basis: Basis, outputs: tuple[Tensor, Tensor] | None = None) -> "Forms":
        """The three terms as functions of ``p``, for many ``p`` along one basis."""
        gradients = [_rotated(part.gradient, basis.vectors, outputs) for part in self._parts]
        outer = [_projected(part.outputs, outputs[0] if outputs is not None else None) for part in self._parts]
        q = outputs[1] if outputs is not None else torch.ones_like(outer[0][..., 0])
        stepped = [gradient * q.unsqueeze(-1) for gradient in gradients]
        signal = (gradients[0] * stepped[1] + gradients[1] * stepped[0]).sum(-2) / 2
        cross = stepped[0].mT @ ((outer[0] + outer[1]) / 2) @ stepped[1]
        first, second = (_projected(part.inputs, basis.vectors) for part in self._parts)
        noise = _quadratic(outer[0] * outer[1], q) / self._examples
        return Forms(signal, _product(cross, (first + second) / 2), _product(first, second) * _like(noise, first))


@dataclass(frozen=True)
class Forms:
    """The terms of ``progress`` along one basis.

    Attributes:
        signal: ``⟨∇, P∇⟩ = signal · p``, ``[L, d]``.
        curvature: ``⟨P∇, F P∇⟩ = p · curvature · p``, ``[L, d, d]``, or its diagonal ``[L, d]`` where ``G`` is one.
        noise: ``tr(P F P F) / b = p · noise · p``, of the same shape.
    """

    signal: Tensor
    curvature: Tensor
    noise: Tensor

    def progress(self, p: Tensor) -> Tensor:
        """See `Judge.progress`."""
        decrease = (self.signal * p).sum(-1).clamp(min=0)
        price = _quadratic(self.curvature, p).clamp(min=0) + _quadratic(self.noise, p)
        return decrease.square() / (2 * price).clamp(min=torch.finfo(p.dtype).tiny)


def _quadratic(matrix: Tensor, p: Tensor) -> Tensor:
    """``p M p`` for ``M: [L, d, d]``, or for its diagonal ``[L, d]``."""
    if matrix.dim() == 2:
        return (p.square() * matrix).sum(-1)
    return (p * (matrix @ p.unsqueeze(-1)).squeeze(-1)).sum(-1)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Entry by entry; where one of them is a diagonal, the other's is all that counts."""
    if right.dim() == left.dim():
        return left * right
    return left.diagonal(dim1=-2, dim2=-1) * right


def _like(scale: Tensor, matrix: Tensor) -> Tensor:
    return scale.reshape(-1, *[1] * (matrix.dim() - 1))


def _rotated(gradient: Tensor, vectors: Tensor | None, outputs: tuple[Tensor, Tensor] | None) -> Tensor:
    """``Uᵀ ∇ V``."""
    turned = gradient if vectors is None else gradient @ vectors
    return turned if outputs is None else outputs[0].mT @ turned


def _projected(inputs: Tensor, vectors: Tensor | None) -> Tensor:
    """``Vᵀ G V``."""
    return inputs if vectors is None else vectors.mT @ inputs @ vectors


def _mean(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
