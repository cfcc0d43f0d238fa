"""One conformance suite for every operator: what it does to rows against the matrix that it stands for.

An operator acts on ``x: [*lead, n, d]``. The matrix is written out over ``x`` as one row, ``[*lead, n·d, n·d]``, from
the same random numbers but by another way, and in float64.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor

import sngd_tune.core
from sngd_tune.core.estimates.base import Estimate
from sngd_tune.core.estimates.dense import BlockEstimate
from sngd_tune.core.estimates.kernel_blocks import PositionBlockEstimate
from sngd_tune.core.estimates.kron import KronEstimate
from sngd_tune.core.estimates.layer import LayerEstimate
from sngd_tune.core.estimates.unit import UnitEstimate
from sngd_tune.core.layers.base import Shape
from sngd_tune.core.operators import (
    BlockOperator,
    DiagonalOperator,
    EigenbasisOperator,
    KronOperator,
    LayerOperator,
    LowRankOperator,
    MatrixOperator,
    RootOperator,
    SymmetricOperator,
    TriangularOperator,
    UnitOperator,
    split_blocks,
)
from sngd_tune.core.permuted import PermutedOperator
from tests.core.spectra import orthogonal

#: With what a multiple ``c R`` makes of them.
METHODS = {
    "apply": lambda c: c,
    "apply_transpose": lambda c: c,
    "solve": lambda c: 1 / c,
    "solve_transpose": lambda c: 1 / c,
    "precondition": lambda c: c**2,
}
N, D = 3, 7
LEADS = [(), (2,), (2, 3)]

Lead = tuple[int, ...]


def positive(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5


def matrix(lead: Lead, d: int, seed: int = 0) -> Tensor:
    """Singular values from 0.5 to 1.5."""
    left, right = orthogonal(d, seed=seed, lead=lead), orthogonal(d, seed=seed + 1, lead=lead)
    return (left * positive(*lead, 1, d, seed=seed)) @ right


def on_rows(R: Tensor, n: int = N) -> Tensor:
    """``x ↦ x R`` over ``x`` as one row."""
    return torch.block_diag(*[R] * n) if R.dim() == 2 else torch.stack([on_rows(each, n) for each in R])


def per_matrix(function: Callable[..., Tensor], *tensors: Tensor, dims: int = 2) -> Tensor:
    """`function` of the last `dims` dimensions, stacked over those before."""
    if tensors[0].dim() == dims:
        return function(*tensors)
    return torch.stack([per_matrix(function, *each, dims=dims) for each in zip(*tensors, strict=True)])


@dataclass(frozen=True)
class Case:
    """An operator, its matrix, and how its tensors become the operator again."""

    operator: RootOperator
    matrix: Tensor
    again: Callable[[dict[str, Tensor]], RootOperator]


def plain(operator: RootOperator, R: Tensor) -> Case:
    return Case(operator, on_rows(R), lambda tensors: type(operator)(**tensors))


def estimated(operator: RootOperator, whole: Tensor, estimate: Estimate) -> Case:
    return Case(operator, whole, estimate.operator)


def diagonal(lead: Lead) -> Case:
    scale = positive(*lead, D)
    return plain(DiagonalOperator(scale), torch.diag_embed(scale))


def low_rank(lead: Lead, zero_columns: int = 0) -> Case:
    U, scale, rest = orthogonal(D, 3, lead=lead), positive(*lead, 3), positive(*lead, seed=1)
    U[..., 3 - zero_columns :] = 0
    identity = rest[..., None, None] * torch.eye(D, dtype=U.dtype)
    return plain(LowRankOperator(U, scale, rest), identity + U @ torch.diag_embed(scale - rest[..., None]) @ U.mT)


def any_matrix(lead: Lead) -> Case:
    R = matrix(lead, D)
    return plain(MatrixOperator(R, torch.linalg.inv(R)), R)


def symmetric(lead: Lead) -> Case:
    Q = orthogonal(D, lead=lead)
    R = (Q * positive(*lead, 1, D)) @ Q.mT
    R = (R + R.mT) / 2
    return plain(SymmetricOperator(R, torch.linalg.inv(R)), R)


def triangular(lead: Lead) -> Case:
    U = torch.linalg.cholesky(matrix(lead, D) @ matrix(lead, D).mT).mT
    return plain(TriangularOperator(U), torch.linalg.inv(U))


def eigenbasis(lead: Lead) -> Case:
    V, scale = orthogonal(D, lead=lead), positive(*lead, D)
    return plain(EigenbasisOperator(V, scale), V @ torch.diag_embed(scale))


def blocks(lead: Lead) -> Case:
    """Blocks of 3, 3 and 1: the last is padded by 2 rows that no entry of x meets."""
    U = torch.linalg.cholesky(matrix((*lead, 3), 3) @ matrix((*lead, 3), 3).mT).mT
    U[..., 2, :, :] = torch.eye(3, dtype=U.dtype)
    U[..., 2, 0, 0] = 2
    R = per_matrix(lambda each: torch.block_diag(*torch.linalg.inv(each))[:D, :D], U, dims=3)
    operator = BlockOperator(TriangularOperator(U), D, 3)
    return estimated(operator, on_rows(R), BlockEstimate(Shape(lead, N, D), "cholesky", 3))


def kernel_positions(lead: Lead) -> Case:
    """3 channels at 2 positions, and a bias: blocks of columns (0, 2, 4), (1, 3, 5) and (6)."""
    inner = blocks(lead)
    order = torch.tensor([0, 2, 4, 1, 3, 5, 6])
    P = torch.eye(D, dtype=torch.float64)[order]
    R = P.mT @ inner.matrix[..., :D, :D] @ P
    operator = PermutedOperator(inner.operator, 2)
    return estimated(operator, on_rows(R), PositionBlockEstimate(Shape(lead, N, D, positions=2), "cholesky"))


def units(lead: Lead) -> Case:
    R = matrix((*lead, N), D)
    whole = per_matrix(lambda each: torch.block_diag(*each), R, dims=3)
    operator = UnitOperator(MatrixOperator(R, torch.linalg.inv(R)))
    return estimated(operator, whole, UnitEstimate(Shape(lead, N, D), "newton_schulz"))


def layer(lead: Lead) -> Case:
    R = matrix(lead, N * D)
    operator = LayerOperator(MatrixOperator(R, torch.linalg.inv(R)))
    return estimated(operator, R, LayerEstimate(Shape(lead, N, D), "newton_schulz"))


def kron(lead: Lead) -> Case:
    """``(Sᵀ x R)_ij = Σ S_ki x_kl R_lj``: the entry of ``kron(S, R)`` at ``(k, l), (i, j)``."""
    S, R = matrix(lead, N, seed=7), matrix(lead, D)
    operator = KronOperator(MatrixOperator(R, torch.linalg.inv(R)), MatrixOperator(S, torch.linalg.inv(S)))
    return estimated(operator, per_matrix(torch.kron, S, R), KronEstimate(Shape(lead, N, D), "newton_schulz"))


CASES = {
    "diagonal": diagonal,
    "low rank": low_rank,
    "low rank, zero columns": lambda lead: low_rank(lead, zero_columns=2),
    "matrix": any_matrix,
    "symmetric": symmetric,
    "triangular": triangular,
    "eigenbasis": eigenbasis,
    "block": blocks,
    "block:position": kernel_positions,
    "unit": units,
    "layer": layer,
    "kron": kron,
}


@pytest.fixture(params=LEADS, ids=str)
def lead(request) -> Lead:
    return request.param


@pytest.fixture(params=CASES)
def case(request, lead) -> Case:
    return CASES[request.param](lead)


@pytest.fixture
def x(lead) -> Tensor:
    return torch.randn(*lead, N, D, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def times(x: Tensor, M: Tensor) -> Tensor:
    """``x`` as one row times ``M``."""
    return (x.flatten(-2).unsqueeze(-2) @ M).view(x.shape)


class TestConformance:
    """What every operator must do; a new one joins by its line in CASES."""

    def test_apply_is_its_matrix(self, case, x):
        torch.testing.assert_close(case.operator.apply(x), times(x, case.matrix))

    def test_apply_transpose_is_the_transpose(self, case, x):
        torch.testing.assert_close(case.operator.apply_transpose(x), times(x, case.matrix.mT))

    def test_solve_is_the_inverse(self, case, x):
        torch.testing.assert_close(case.operator.solve(x), times(x, torch.linalg.inv(case.matrix)))

    def test_solve_transpose_is_the_inverse_of_the_transpose(self, case, x):
        torch.testing.assert_close(case.operator.solve_transpose(x), times(x, torch.linalg.inv(case.matrix).mT))

    def test_solve_undoes_apply_and_apply_undoes_solve(self, case, x):
        operator = case.operator
        for there, back in (
            (operator.apply, operator.solve),
            (operator.solve, operator.apply),
            (operator.apply_transpose, operator.solve_transpose),
            (operator.solve_transpose, operator.apply_transpose),
        ):
            torch.testing.assert_close(back(there(x)), x, rtol=1e-12, atol=1e-12)

    def test_precondition_is_apply_and_its_transpose(self, case, x):
        operator = case.operator
        torch.testing.assert_close(operator.precondition(x), operator.apply_transpose(operator.apply(x)))

    def test_scaled_is_a_multiple_of_the_same_kind_for_each_matrix(self, case, lead, x):
        c = positive(*lead, N) if isinstance(case.operator, UnitOperator) else positive(*lead)
        scaled, each = case.operator.scaled(c), c[(...,) + (None,) * (x.dim() - c.dim())]
        assert type(scaled) is type(case.operator)
        for method, factor in METHODS.items():
            torch.testing.assert_close(getattr(scaled, method)(x), getattr(case.operator, method)(x) * factor(each))
        again = case.again({name: tensor.clone() for name, tensor in scaled.tensors().items()})
        torch.testing.assert_close(again.scaled(1 / c).apply(x), case.operator.apply(x))

    def test_its_tensors_make_it_again(self, case, x):
        again = case.again({name: tensor.clone() for name, tensor in case.operator.tensors().items()})
        assert type(again) is type(case.operator)
        for method in METHODS:
            assert torch.equal(getattr(again, method)(x), getattr(case.operator, method)(x))

    def test_shape_and_precision_stay(self, case, x):
        narrow = case.again({name: tensor.float() for name, tensor in case.operator.tensors().items()})
        for method in METHODS:
            result = getattr(narrow, method)(x.float())
            assert result.shape == x.shape
            assert result.dtype == torch.float32

    def test_nothing_is_changed(self, case, x):
        kept = x.clone(), {name: tensor.clone() for name, tensor in case.operator.tensors().items()}
        for method in METHODS:
            getattr(case.operator, method)(x)
        assert torch.equal(x, kept[0])
        for name, tensor in case.operator.tensors().items():
            assert torch.equal(tensor, kept[1][name])

    def test_what_may_be_spent_gives_the_same_bits(self, case, x):
        kept = {name: tensor.clone() for name, tensor in case.operator.tensors().items()}
        for method in ("apply", "apply_transpose"):
            assert torch.equal(getattr(case.operator, f"{method}_")(x.clone()), getattr(case.operator, method)(x))
        for name, tensor in case.operator.tensors().items():
            assert torch.equal(tensor, kept[name])


def concrete(base: type) -> set[type]:
    """The operators below `base` that can be made."""
    below = {deeper for child in base.__subclasses__() for deeper in concrete(child)}
    return below if inspect.isabstract(base) else below | {base}


def test_every_operator_has_its_case():
    for module in pkgutil.walk_packages(sngd_tune.core.__path__, "sngd_tune.core."):
        importlib.import_module(module.name)
    ours = {operator for operator in concrete(RootOperator) if operator.__module__.startswith("sngd_tune.")}
    assert ours == {type(make(()).operator) for make in CASES.values()}


@pytest.mark.parametrize("form", [MatrixOperator, SymmetricOperator, TriangularOperator, EigenbasisOperator])
def test_identity_of_a_whole_matrix(form, lead, x):
    is_identity(form.identity((*lead, D, D), torch.float64, "cpu"), x)


def test_identity_of_a_diagonal_and_of_a_low_rank(lead, x):
    is_identity(DiagonalOperator.identity(D, torch.float64, "cpu", lead), x)
    is_identity(LowRankOperator.identity(D, 3, torch.float64, "cpu", lead), x)


@pytest.mark.parametrize("of", [LayerEstimate, UnitEstimate, KronEstimate, BlockEstimate.even, PositionBlockEstimate])
def test_identity_of_what_is_put_together(of, lead, x):
    shape = Shape(lead, N, D, positions=2)
    more = (3,) if of == BlockEstimate.even else ()
    is_identity(of(shape, "cholesky", *more).identity(torch.float64, "cpu"), x)


def is_identity(operator: RootOperator, x: Tensor) -> None:
    for method in METHODS:
        assert torch.equal(getattr(operator, method)(x), x)


@hypothesis_settings(deadline=None, max_examples=40)
@given(d=st.integers(1, 40), block=st.integers(1, 40), n=st.integers(1, 5), lead=st.sampled_from(LEADS))
def test_blocks_hold_every_entry_once(d, block, n, lead):
    x = torch.arange(1.0, torch.Size((*lead, n, d)).numel() + 1).view(*lead, n, d)
    pieces = split_blocks(x, block)
    assert pieces.shape == (*lead, -(-d // block), n, block)
    assert pieces.count_nonzero() == x.numel()
    identity = DiagonalOperator(torch.ones(block))
    assert torch.equal(BlockOperator(identity, d, block).apply(x), x)
