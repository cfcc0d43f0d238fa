"""One conformance suite for every root and its operator, against dense references and over awkward spectra."""

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sngd_tune.core import dense
from sngd_tune.core.nystrom import decompose, nystrom
from sngd_tune.core.operators import BlockOperator, DiagonalOperator, split_blocks
from sngd_tune.core.roots import DENSE_ROOTS
from sngd_tune.errors import RootError


def spectrum(d, condition, seed=0, dtype=torch.float64, rank=None):
    """A random symmetric matrix with eigenvalues from 1 down to 1/condition, `rank` of them not 0."""
    generator = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q
    values = torch.logspace(0, -torch.log10(torch.tensor(float(condition))).item(), d, dtype=torch.float64)
    if rank is not None:
        values[rank:] = 0
    return ((Q * values) @ Q.T).to(dtype)


def nystrom_root(G, damping, rank=None):
    d = G.shape[-1]
    basis = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(3), dtype=torch.float64)).Q.to(G)
    return nystrom(decompose(G @ basis, basis, G.trace(), rank or d).pairs, damping)


def block_root(G, damping):
    """One block that holds all of G: the block operator's own bookkeeping, with an exact answer."""
    return BlockOperator(DENSE_ROOTS["eigh"](G[None], damping), d=G.shape[-1], block=G.shape[-1])


ROOTS = {**DENSE_ROOTS, "nystrom": nystrom_root, "block": block_root}


@pytest.fixture(params=ROOTS, scope="module")
def root(request):
    return ROOTS[request.param]


class TestConformance:
    """What every root must do; a new one joins by its line in ROOTS."""

    def operator(self, root, d=9, damping=0.03):
        G = spectrum(d, 1e3)
        return root(G, torch.tensor(damping, dtype=G.dtype)), dense.inverse(G, damping)

    def rows(self, d=9):
        return torch.randn(4, d, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def test_it_is_a_root_of_the_damped_inverse(self, root):
        operator, inverse = self.operator(root)
        R = operator.apply(torch.eye(9, dtype=torch.float64))
        torch.testing.assert_close(R @ R.T, inverse, rtol=1e-10, atol=1e-10)

    def test_precondition_is_the_damped_inverse(self, root):
        operator, inverse = self.operator(root)
        torch.testing.assert_close(operator.precondition(self.rows()), self.rows() @ inverse, rtol=1e-10, atol=1e-10)

    def test_solve_undoes_apply(self, root):
        operator, _ = self.operator(root)
        x = self.rows()
        torch.testing.assert_close(operator.solve(operator.apply(x)), x, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(operator.solve_transpose(operator.apply_transpose(x)), x, rtol=1e-10, atol=1e-12)

    def test_apply_and_apply_transpose_are_transposes(self, root):
        operator, _ = self.operator(root)
        eye = torch.eye(9, dtype=torch.float64)
        torch.testing.assert_close(operator.apply(eye).T, operator.apply_transpose(eye))

    def test_graft_has_the_direction_of_the_natural_gradient_and_the_norm_of_the_gradient(self, root):
        operator, inverse = self.operator(root)
        x, natural = self.rows(), self.rows() @ inverse
        torch.testing.assert_close(operator.graft(x), natural * x.norm() / natural.norm(), rtol=1e-10, atol=1e-12)

    def test_grafting_nothing_gives_nothing(self, root):
        operator, _ = self.operator(root)
        assert operator.graft(torch.zeros(2, 9, dtype=torch.float64)).abs().max() == 0

    def test_inputs_are_left_alone(self, root):
        G, damping, x = spectrum(9, 1e3), torch.tensor(0.1, dtype=torch.float64), self.rows()
        kept = G.clone(), x.clone()
        operator = root(G, damping)
        operator.graft(x), operator.precondition(x), operator.apply(x), operator.solve(x)
        assert torch.equal(G, kept[0])
        assert torch.equal(x, kept[1])

    @pytest.mark.parametrize("rank", [None, 3])
    @pytest.mark.parametrize("condition", [1e2, 1e10])
    def test_float32_stays_finite_and_accurate(self, root, condition, rank):
        G = spectrum(60, condition, rank=rank)
        damping = 1e-4 * float(G.diagonal().mean())
        operator = root(G.float(), torch.tensor(damping))
        x = torch.randn(5, 60, generator=torch.Generator().manual_seed(2))
        result = operator.precondition(x)
        expected = x.double() @ dense.inverse(G, damping)
        assert result.isfinite().all()
        assert (result - expected).norm() / expected.norm() < 0.05

    @hypothesis_settings(deadline=None, max_examples=25)
    @given(d=st.integers(1, 24), exponent=st.floats(0, 10), damping=st.floats(1e-6, 10), seed=st.integers(0, 99))
    def test_residual_over_spectra(self, root, d, exponent, damping, seed):
        G = spectrum(d, 10**exponent, seed)
        operator = root(G, torch.tensor(damping, dtype=G.dtype))
        A = G + damping * torch.eye(d, dtype=G.dtype)
        residual = operator.precondition(A) - torch.eye(d, dtype=G.dtype)
        assert residual.abs().max() < 1e-7


class TestBatches:
    """Leading batch dimensions: each matrix as if it were alone."""

    @pytest.mark.parametrize("name", DENSE_ROOTS)
    def test_stacked_matrices(self, name):
        G = torch.stack([spectrum(6, 10.0**i, seed=i) for i in range(4)]).view(2, 2, 6, 6)
        x = torch.randn(2, 2, 3, 6, dtype=torch.float64)
        damping = torch.tensor(0.05, dtype=torch.float64)
        together = DENSE_ROOTS[name](G, damping).precondition(x)
        for i in range(2):
            for j in range(2):
                alone = DENSE_ROOTS[name](G[i, j], damping).precondition(x[i, j])
                torch.testing.assert_close(together[i, j], alone, rtol=1e-9, atol=1e-9)

    @hypothesis_settings(deadline=None, max_examples=40)
    @given(d=st.integers(1, 40), block=st.integers(1, 40), n=st.integers(1, 5))
    def test_blocks_hold_every_entry_once(self, d, block, n):
        x = torch.arange(1.0, n * d + 1).view(n, d)
        blocks = split_blocks(x, block)
        assert blocks.shape == (-(-d // block), n, block)
        identity = DiagonalOperator(torch.ones(block))
        assert torch.equal(BlockOperator(identity, d, block).apply(x), x)


class TestFailures:
    def test_cholesky_names_the_damping_and_the_remedy(self):
        G = torch.diag(torch.tensor([1.0, -1.0]))
        with pytest.raises(RootError, match=r"cholesky.*λ=0\.1.*raise relative_damping"):
            DENSE_ROOTS["cholesky"](G, torch.tensor(0.1))

    def test_denman_beavers_names_the_damping_and_the_remedy(self):
        G = torch.diag(torch.tensor([1.0, -1.0]))
        with pytest.raises(RootError, match=r"denman_beavers.*λ=0\.1.*raise relative_damping"):
            DENSE_ROOTS["denman_beavers"](G, torch.tensor(0.1))

    def test_eigenvalues_that_rounding_made_negative_count_as_zero(self):
        G = torch.diag(torch.tensor([1.0, -1e-9]))
        assert DENSE_ROOTS["eigh"](G, torch.tensor(1e-3)).apply(torch.eye(2)).isfinite().all()


class TestLowRank:
    def test_a_matrix_of_low_rank_is_recovered_exactly(self):
        G, damping = spectrum(30, 1e3, rank=4), 0.01
        operator = nystrom_root(G, torch.tensor(damping, dtype=G.dtype), rank=4)
        x = torch.randn(3, 30, dtype=torch.float64)
        torch.testing.assert_close(operator.precondition(x), x @ dense.inverse(G, damping), rtol=1e-8, atol=1e-8)

    @pytest.mark.parametrize("rank", [1, 5, 12])
    def test_the_tail_is_replaced_by_its_mean(self, rank):
        G, damping = spectrum(12, 1e4), 0.01
        operator = nystrom_root(G, torch.tensor(damping, dtype=G.dtype), rank=rank)
        x = torch.randn(3, 12, dtype=torch.float64)
        expected = x @ dense.inverse(dense.low_rank(G, rank), damping)
        torch.testing.assert_close(operator.precondition(x), expected, rtol=1e-8, atol=1e-8)

    def test_subspace_iteration_tightens_the_approximation(self):
        """A sketch narrower than the spectrum needs: each refresh must bring it closer to the best of its rank."""
        G, rank, columns = spectrum(80, 1e3), 6, 10
        basis = torch.linalg.qr(
            torch.randn(80, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        ).Q
        captured = []
        for _ in range(4):
            decomposition = decompose(G @ basis, basis, G.trace(), rank)
            captured.append(float(decomposition.pairs.values.sum()))
            basis = decomposition.range
        best = float(torch.linalg.eigvalsh(G)[-rank:].sum())
        assert captured == sorted(captured)
        assert best * 0.98 < captured[-1] <= best * (1 + 1e-12)
