"""The sketch's eigenpairs where they are exact, on known spectra, over refreshes, and on degenerate input."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sngd_tune.core import dense
from sngd_tune.core.nystrom import Eigenpairs, decompose, nystrom
from sngd_tune.errors import RootError
from tests.core.spectra import KINDS, eigenvalues, orthogonal, with_eigenvalues


def trace(G):
    return G.diagonal(dim1=-2, dim2=-1).sum(-1)


def sketched(G, columns, rank, retained_trace=None, seed=1):
    basis = orthogonal(G.shape[-1], columns, seed).to(G).expand(*G.shape[:-1], columns)
    return decompose(G @ basis, basis, trace(G), rank, retained_trace)


def view(pairs):
    """``U diag(values) Uᵀ + tail (I − U Uᵀ)``."""
    U, d = pairs.basis, pairs.basis.shape[-2]
    rest = torch.eye(d, dtype=U.dtype) - U @ U.mT
    return (U * pairs.values.unsqueeze(-2)) @ U.mT + pairs.tail[..., None, None] * rest


def captured(decomposition):
    return float(decomposition.pairs.values.sum())


def amplification(G, basis, dtype):
    """Of rounding, by the pseudo-inverse of ``Ωᵀ G Ω``: its condition number, with what counts as 0 left out."""
    values = torch.linalg.eigvalsh(basis.mT @ G @ basis)
    counted = values[values > values[-1] * torch.finfo(dtype).eps]
    return float(counted[-1] / counted[0]) if len(counted) else 1.0


class TestExact:
    @pytest.mark.parametrize("lead", [(), (3,), (2, 2)], ids=str)
    @pytest.mark.parametrize("rank", [1, 5, 12])
    def test_a_sketch_as_wide_as_the_matrix(self, lead, rank):
        """The leading eigenpairs, and the mean of the others for the rest."""
        G = with_eigenvalues(eigenvalues("geometric", 12, 1e4).expand(*lead, 12))
        pairs = sketched(G, 12, rank).pairs
        expected = torch.stack([dense.low_rank(each, rank) for each in G.view(-1, 12, 12)]).view(G.shape)
        torch.testing.assert_close(view(pairs), expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(pairs.squared_norm(), expected.square().sum((-2, -1)))

    def test_a_rank_that_the_sketch_covers(self):
        values = torch.tensor([8.0, 4.0, 2.0, 1.0] + 26 * [0.0], dtype=torch.float64)
        G = with_eigenvalues(values)
        pairs = sketched(G, 6, 4).pairs
        torch.testing.assert_close(pairs.values, values[:4])
        torch.testing.assert_close(view(pairs), G, rtol=1e-10, atol=1e-10)
        assert pairs.tail < 1e-12

    def test_its_root_is_the_root_of_the_view(self):
        G, lam = with_eigenvalues(eigenvalues("geometric", 12, 1e4)), torch.tensor(0.01, dtype=torch.float64)
        root = nystrom(sketched(G, 12, 5).pairs, lam).apply(torch.eye(12, dtype=G.dtype))
        torch.testing.assert_close(root, dense.symmetric_root(dense.low_rank(G, 5), 0.01), rtol=1e-9, atol=1e-9)

    def test_the_next_sketch_is_the_view_of_the_next_basis(self):
        """Of all pairs that the rank allows, also of those that `retained_trace` leaves to the rest."""
        G = with_eigenvalues(eigenvalues("geometric", 12, 1e4))
        all_pairs, some = sketched(G, 9, 5), sketched(G, 9, 5, retained_trace=0.5)
        torch.testing.assert_close(all_pairs.next_sketch(), view(all_pairs.pairs) @ all_pairs.range)
        torch.testing.assert_close(some.next_sketch(), all_pairs.next_sketch())

    def test_where_every_pair_is_kept_float32_loses_nothing_to_the_rest(self):
        """A rest of 0 would be ``λ^-½`` in every direction, taken off again: a relative error of 1e-3 here."""
        G, lam = torch.eye(20), torch.tensor(1e-6)
        preconditioned = nystrom(sketched(G, 20, 20).pairs, lam).precondition(torch.eye(20))
        torch.testing.assert_close(preconditioned, torch.eye(20), rtol=1e-5, atol=1e-5)


class TestBounds:
    @hypothesis_settings(deadline=None, max_examples=60)
    @given(
        d=st.integers(1, 40),
        share=st.floats(0, 1),
        extra=st.integers(0, 8),
        kind=st.sampled_from(KINDS),
        exponent=st.floats(0, 10),
        scale=st.sampled_from([1e-12, 1.0, 1e8]),
        dtype=st.sampled_from([torch.float32, torch.float64]),
        seed=st.integers(0, 99),
    )
    def test_eigenvalues_come_from_below_and_the_trace_stays(self, d, share, extra, kind, exponent, scale, dtype, seed):
        """Nyström approximations are ⪯ G (Tropp et al. 2017), so none of their eigenvalues exceeds G's."""
        rank = max(1, round(share * d))
        values = scale * eigenvalues(kind, d, 10**exponent)
        G, columns = with_eigenvalues(values, seed), min(d, rank + extra)
        pairs = sketched(G.to(dtype), columns, rank, seed=seed + 1).pairs
        rounding = 100 * d * torch.finfo(dtype).eps * scale * amplification(G, orthogonal(d, columns, seed + 1), dtype)
        found = pairs.values.double()
        assert (found <= values[:rank] + rounding).all()
        assert (found.diff() <= 0).all()
        assert (found >= 0).all()
        orthonormal = pairs.basis.double().mT @ pairs.basis.double()
        torch.testing.assert_close(orthonormal, torch.eye(rank).double(), rtol=0, atol=100 * torch.finfo(dtype).eps)
        if rank < d:
            torch.testing.assert_close(found.sum() + (d - rank) * pairs.tail, values.sum(), rtol=0, atol=d * rounding)


class TestRetainedTrace:
    #: Shares of the trace: 1/2, 1/4, 1/8, and two of 1/16.
    VALUES = torch.tensor([8.0, 4.0, 2.0, 1.0, 1.0], dtype=torch.float64)

    @pytest.mark.parametrize(
        ("share", "expected"),
        [(0.01, 1), (0.49, 1), (0.51, 2), (0.74, 2), (0.76, 3), (0.87, 3), (0.88, 4), (0.93, 4), (0.95, 5), (1.0, 5)],
    )
    def test_as_many_pairs_as_reach_the_share(self, share, expected):
        G = with_eigenvalues(self.VALUES)
        pairs = sketched(G, 5, 5, retained_trace=share).pairs
        kept = pairs.basis.norm(dim=-2) > 0.5
        assert kept.tolist() == [i < expected for i in range(5)]
        torch.testing.assert_close(pairs.values[:expected], self.VALUES[:expected])
        torch.testing.assert_close(view(pairs), dense.low_rank(G, expected))

    def test_the_rest_of_the_pairs_counts_to_the_tail(self):
        pairs = sketched(with_eigenvalues(self.VALUES), 5, 5, retained_trace=0.7).pairs
        torch.testing.assert_close(pairs.tail, self.VALUES[2:].mean())
        assert torch.equal(pairs.values[2:], pairs.tail.expand(3))
        assert pairs.basis[:, 2:].abs().max() == 0

    def test_each_matrix_keeps_its_own_number(self):
        values = torch.stack([self.VALUES, torch.ones(5, dtype=torch.float64)])
        pairs = sketched(with_eigenvalues(values), 5, 5, retained_trace=0.7).pairs
        assert (pairs.basis.norm(dim=-2) > 0.5).sum(-1).tolist() == [2, 4]

    def test_no_more_than_the_rank(self):
        pairs = sketched(with_eigenvalues(self.VALUES), 5, 2, retained_trace=1.0).pairs
        torch.testing.assert_close(pairs.values, self.VALUES[:2])


class TestRefreshes:
    def refreshed(self, G, rank, columns, count):
        """What each refresh finds, each with the basis that the one before has left."""
        decompositions = [sketched(G, columns, rank)]
        for _ in range(count - 1):
            basis = decompositions[-1].range
            decompositions.append(decompose(G @ basis, basis, trace(G), rank))
        return decompositions

    def test_subspace_iteration_tightens_the_approximation(self):
        """A sketch narrower than the spectrum needs: each refresh brings it closer to the best of its rank."""
        G = with_eigenvalues(eigenvalues("geometric", 80, 1e3))
        found = [captured(each) for each in self.refreshed(G, 6, 10, 4)]
        best = float(eigenvalues("geometric", 80, 1e3)[:6].sum())
        assert found == sorted(found)
        assert best * 0.98 < found[-1] <= best * (1 + 1e-12)

    def test_the_pairs_become_those_of_eigh(self):
        """At the ratio of the eigenvalues beyond the sketch, to the power of two a refresh: here 1/4 squared."""
        values = 2.0 ** -torch.arange(30, dtype=torch.float64)
        G = with_eigenvalues(values)
        pairs = self.refreshed(G, 3, 5, 8)[-1].pairs
        V = torch.linalg.eigh(G).eigenvectors.flip(-1)[:, :3]
        torch.testing.assert_close(pairs.values, values[:3])
        torch.testing.assert_close((pairs.basis.mT @ V).abs(), torch.eye(3, dtype=G.dtype), rtol=1e-6, atol=1e-6)

    def test_the_basis_follows_a_matrix_that_turns(self):
        values = eigenvalues("geometric", 40, 1e6)
        basis = self.refreshed(with_eigenvalues(values, 0), 4, 12, 3)[-1].range
        G = with_eigenvalues(values, 1)
        for _ in range(3):
            decomposition = decompose(G @ basis, basis, trace(G), 4)
            basis = decomposition.range
        assert captured(decomposition) > 0.999 * float(values[:4].sum())


class TestDegenerate:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("columns", [4, 9])
    def test_nothing_but_zeros_has_the_damping_alone(self, dtype, columns):
        decomposition = sketched(torch.zeros(9, 9, dtype=dtype), columns, 4)
        assert decomposition.pairs.values.abs().max() == 0
        assert decomposition.pairs.tail == 0
        assert decomposition.next_sketch().abs().max() == 0
        x = torch.randn(2, 9, dtype=dtype)
        natural = nystrom(decomposition.pairs, torch.tensor(0.25, dtype=dtype)).precondition(x)
        torch.testing.assert_close(natural, 4 * x)

    def test_what_wakes_up_after_a_refresh_without_a_signal_is_found(self):
        """No axes take the place of the basis: the inputs that stay dead would be all that the sketch looks at."""
        nothing = sketched(torch.zeros(20, 20, dtype=torch.float64), 4, 2)
        G = torch.zeros(20, 20, dtype=torch.float64)
        G[10:, 10:] = with_eigenvalues(torch.tensor([3.0, 2.0] + 8 * [0.0], dtype=torch.float64))
        pairs = decompose(G @ nothing.range, nothing.range, trace(G), 2).pairs
        torch.testing.assert_close(view(pairs), G)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_fewer_eigenvalues_than_pairs(self, dtype):
        values = torch.tensor([3.0, 2.0] + 13 * [0.0], dtype=torch.float64)
        G = with_eigenvalues(values)
        decomposition = sketched(G.to(dtype), 10, 6)
        pairs, rounding = decomposition.pairs, 100 * torch.finfo(dtype).eps
        torch.testing.assert_close(pairs.values.double(), values[:6], rtol=0, atol=rounding)
        torch.testing.assert_close(view(pairs).double(), G, rtol=0, atol=rounding)
        Q = decomposition.range
        torch.testing.assert_close(Q.mT @ Q, torch.eye(10, dtype=dtype), rtol=0, atol=rounding)

    def test_beside_others_a_dead_matrix_is_as_if_alone(self):
        living = with_eigenvalues(eigenvalues("geometric", 8, 100))
        together = sketched(torch.stack([living, torch.zeros_like(living)]), 8, 3).pairs
        alone = sketched(living, 8, 3).pairs
        torch.testing.assert_close(together.values[0], alone.values)
        assert together.values[1].abs().max() == 0
        assert view(together)[1].abs().max() == 0

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_sketch_that_is_not_finite_is_named(self, value):
        G = torch.eye(5)
        G[0, 0] = value
        message = r"nystrom: no .* a sketch of shape \(5, 3\) in torch.float32; raise relative_damping"
        with pytest.raises(RootError, match=message):
            sketched(G, 3, 2)

    @pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
    def test_a_damping_that_leaves_it_singular_is_named(self, value):
        pairs = Eigenpairs(torch.eye(3)[:, :1], torch.ones(1), torch.zeros(()))
        message = rf"nystrom: eigenvalues .* λ={value:.3g} in torch.float32; raise relative_damping"
        with pytest.raises(RootError, match=message):
            nystrom(pairs, torch.tensor(value))
