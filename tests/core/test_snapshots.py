"""Diagnosis of several matrices side by side: as of the block-diagonal matrix that they are."""

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sngd_tune.core.nystrom import Eigenpairs
from sngd_tune.core.snapshots import DenseSnapshot, DiagonalSnapshot, KronSnapshot, LowRankSnapshot

D = 4


def semidefinite(generator, *shape):
    factor = torch.randn(*shape, shape[-1], generator=generator, dtype=torch.float64)
    return factor @ factor.mT


def diagonal(lead, generator):
    value = torch.rand(*lead, D, generator=generator, dtype=torch.float64)
    return DiagonalSnapshot(value), torch.diag_embed(value)


def dense(lead, generator):
    value = semidefinite(generator, *lead, D)
    return DenseSnapshot(value), value


def kron(lead, generator):
    A, B = semidefinite(generator, *lead, D), semidefinite(generator, *lead, 3)
    return KronSnapshot(A, B), torch.einsum("...ij,...kl->...ikjl", B, A).flatten(-2).flatten(-3, -2)


def low_rank(lead, generator):
    basis = torch.linalg.qr(torch.randn(*lead, D, 2, generator=generator, dtype=torch.float64)).Q
    values = 1 + torch.rand(*lead, 2, generator=generator, dtype=torch.float64).sort(descending=True).values
    tail = torch.rand(lead, generator=generator, dtype=torch.float64)
    rest = torch.eye(D, dtype=torch.float64) - basis @ basis.mT
    return LowRankSnapshot(Eigenpairs(basis, values, tail)), (basis * values.unsqueeze(-2)) @ basis.mT + tail[
        ..., None, None
    ] * rest


@hypothesis_settings(deadline=None, max_examples=40)
@given(
    make=st.sampled_from([diagonal, dense, kron, low_rank]),
    lead=st.lists(st.integers(1, 3), max_size=2).map(tuple),
    seed=st.integers(0, 1000),
)
def test_matrices_side_by_side_are_one_block_diagonal_matrix(make, lead, seed):
    generator = torch.Generator().manual_seed(seed)
    (snapshot, value), (before, value_before) = make(lead, generator), make(lead, generator)
    G, H = (torch.block_diag(*v.reshape(-1, *v.shape[-2:])) for v in (value, value_before))
    eigenvalues = torch.linalg.eigvalsh(G)
    low, high = snapshot.extremes()
    assert low == pytest.approx(max(float(eigenvalues[0]), 0), abs=1e-10)
    assert high == pytest.approx(float(eigenvalues[-1]))
    assert snapshot.trace() == pytest.approx(float(G.trace()))
    assert snapshot.squared_norm() == pytest.approx(float(G.square().sum()))
    assert snapshot.inner(before) == pytest.approx(float((G * H).sum()))
    assert snapshot.drift(before) == pytest.approx(float((G - H).norm() / H.norm()))
    assert snapshot.effective_rank() == pytest.approx(float(G.trace() ** 2 / G.square().sum()))


@pytest.mark.parametrize("lead", [(), (3,)])
def test_the_padding_of_last_blocks_is_no_eigenvalue(lead):
    blocks = torch.eye(3, dtype=torch.float64).repeat(*lead, 2, 1, 1) * 5
    blocks[..., 1, 0, 0] = 2.0
    blocks[..., 1, 2, 2] = 0.0
    assert DenseSnapshot(blocks, padding=1).extremes() == (2.0, 5.0)
    assert DenseSnapshot(blocks).extremes() == (0.0, 5.0)
