"""The expected decrease against its definition with dense Kronecker products, and against what theory says of it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sngd_tune.selection.gain import (
    Basis,
    Judge,
    block_basis,
    diagonal_basis,
    eigenbasis,
    output_weights,
)
from sngd_tune.selection.sample import LayerSample

seeds = st.integers(0, 10_000)


def spd(generator: torch.Generator, d: int) -> Tensor:
    root = torch.randn(1, d, d + 2, dtype=torch.float64, generator=generator)
    return root @ root.mT / d


def sample(seed: int, d: int = 5, d_out: int = 3, **known: Tensor) -> LayerSample:
    generator = torch.Generator().manual_seed(seed)
    gradient = torch.randn(1, d_out, d, dtype=torch.float64, generator=generator)
    moments = {"inputs": spd(generator, d), "gradient": gradient, "outputs": spd(generator, d_out), **known}
    return LayerSample(**moments, batches=4, examples=8.0, batch_noise=0.0)


def by_definition(seen: LayerSample, P: Tensor, Q: Tensor, examples: float) -> float:
    """With ``F = B ⊗ G`` and the preconditioner ``Q ⊗ P`` written out; rows of ∇ one after another."""
    fisher = torch.kron(seen.outputs[0].contiguous(), seen.inputs[0].contiguous())
    preconditioner = torch.kron(Q.contiguous(), P.contiguous())
    gradient = seen.gradient[0].flatten()
    step = preconditioner @ gradient
    both = preconditioner @ fisher
    price = step @ fisher @ step + torch.trace(both @ both) / examples
    return float((gradient @ step) ** 2 / (2 * price))


@given(seeds, st.floats(1e-3, 10), st.sampled_from([1.0, 32.0]))
def test_it_is_its_definition(seed: int, damping: float, examples: float) -> None:
    seen = sample(seed)
    judge, G, eye = Judge(seen, seen, examples), seen.inputs[0], torch.eye(3, dtype=torch.float64)
    shift = damping * G.diagonal().mean() * torch.eye(5, dtype=torch.float64)
    dense = eigenbasis(seen.inputs)
    diagonal = diagonal_basis(seen.inputs)
    cases: list[tuple[Basis, Tensor]] = [
        (dense, torch.linalg.inv(G + shift)),
        (diagonal, torch.linalg.inv(torch.diag(G.diagonal()) + shift)),
    ]
    for basis, P in cases:
        found = judge.progress(basis, basis.weights(damping))
        assert float(found) == pytest.approx(by_definition(seen, P, eye, examples), rel=1e-6)
    outputs = output_weights(seen.outputs, damping)
    Q = torch.linalg.inv(seen.outputs[0] + damping * seen.outputs[0].diagonal().mean() * eye)
    both = judge.progress(dense, dense.weights(damping), outputs)
    assert float(both) == pytest.approx(by_definition(seen, cases[0][1], Q, examples), rel=1e-6)


@given(seeds, st.floats(1e-3, 10))
def test_blocks_are_inverses_of_the_diagonal_blocks(seed: int, damping: float) -> None:
    seen = sample(seed)
    basis = block_basis(seen.inputs, torch.arange(5).split(2))
    G = torch.block_diag(*(seen.inputs[0][i : i + 2, i : i + 2] for i in (0, 2, 4)))
    P = torch.linalg.inv(G + damping * G.diagonal().mean() * torch.eye(5, dtype=torch.float64))
    found = Judge(seen, seen, 8.0).progress(basis, basis.weights(damping))
    assert float(found) == pytest.approx(by_definition(seen, P, torch.eye(3, dtype=torch.float64), 8.0), rel=1e-6)


@given(seeds, st.integers(1, 4), st.floats(1e-3, 10))
def test_beyond_the_rank_the_mean_of_the_rest_stands(seed: int, rank: int, damping: float) -> None:
    basis = eigenbasis(sample(seed).inputs)
    kept = 1 / basis.weights(damping, rank) - damping * basis.mean
    assert torch.allclose(kept[:, :rank], basis.values[:, :rank])
    assert torch.allclose(kept[:, rank:], basis.values[:, rank:].mean().expand_as(kept[:, rank:]))
    assert torch.equal(basis.weights(damping, 99), basis.weights(damping))


@given(seeds)
def test_without_noise_nothing_beats_the_inverse_of_the_curvature(seed: int) -> None:
    seen = sample(seed)
    judge, dense = Judge(seen, seen, 1e12), eigenbasis(seen.inputs)
    outputs = output_weights(seen.outputs, 0.0)
    best = float(judge.progress(dense, dense.weights(0.0), outputs))
    fisher = torch.kron(seen.outputs[0].contiguous(), seen.inputs[0].contiguous())
    gradient = seen.gradient[0].flatten()
    assert best == pytest.approx(float(gradient @ torch.linalg.solve(fisher, gradient) / 2), rel=1e-4)
    for other in (diagonal_basis(seen.inputs), block_basis(seen.inputs, torch.arange(5).split(2)), dense):
        for damping in (0.01, 1.0):
            assert float(judge.progress(other, other.weights(damping))) <= best * (1 + 1e-6)


def test_in_the_noise_whitening_what_holds_no_gradient_costs_progress() -> None:
    """One direction has all the gradient and the largest eigenvalue; the others are noise alone."""
    inputs = torch.diag(torch.tensor([10.0, 1.0, 0.1, 0.01], dtype=torch.float64))[None]
    gradient = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]], dtype=torch.float64)
    seen = sample(0, inputs=inputs, gradient=gradient, outputs=torch.ones(1, 1, 1, dtype=torch.float64))
    basis, judge = eigenbasis(inputs), Judge(seen, seen, 1.0)
    by_damping = [float(judge.progress(basis, basis.weights(damping))) for damping in (1e-3, 1e-1, 10.0)]
    assert by_damping == sorted(by_damping)
    assert float(judge.progress(basis, torch.ones_like(basis.values))) > 2 * by_damping[0]


def test_gradients_of_two_samples_that_have_nothing_in_common_are_no_signal() -> None:
    first = sample(1, gradient=torch.eye(3, 5, dtype=torch.float64)[None])
    second = sample(1, gradient=-torch.eye(3, 5, dtype=torch.float64)[None])
    basis = eigenbasis(first.inputs)
    assert float(Judge(first, second, 8.0).progress(basis, basis.weights(0.1))) == 0.0


@given(seeds, st.floats(1e-2, 1.0))
def test_one_hot_inputs_are_the_diagonal_of_the_same(seed: int, damping: float) -> None:
    seen = sample(seed)
    G = torch.diag_embed(seen.inputs.diagonal(dim1=-2, dim2=-1))
    dense = LayerSample(G, seen.gradient, seen.outputs, 4, 8.0, 0.0)
    flat = LayerSample(G.diagonal(dim1=-2, dim2=-1), seen.gradient, seen.outputs, 4, 8.0, 0.0)
    results = []
    for each in (dense, flat):
        basis = diagonal_basis(each.inputs)
        results.append(float(Judge(each, each, 8.0).progress(basis, basis.weights(damping))))
    assert flat.one_hot and not dense.one_hot
    assert results[0] == pytest.approx(results[1], rel=1e-9)
