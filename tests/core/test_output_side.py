"""Granularities that see output gradients, and where the gradients come from: against dense references in float64."""

from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from sngd_tune import SNGD, observe_outputs, reconstruct, restore
from sngd_tune.core import dense
from sngd_tune.core.estimates import make_estimate
from sngd_tune.core.inputs import Rows
from sngd_tune.core.layers.base import Shape
from sngd_tune.core.likelihoods import LIKELIHOODS, make_likelihood
from sngd_tune.core.local_fisher import LocalFisher
from sngd_tune.core.roots import DENSE_ROOTS
from tests.core.output_side import (
    GRANULARITIES,
    TOLERANCE,
    assert_statistics,
    chosen,
    dense_gradients,
    dense_inputs,
    kept,
    square_root,
)
from tests.core.problems import batches, network, relative_difference, squared_error
from tests.core.test_theorem import BASES, explicit, fused

SYMMETRIC = ("eigh", "denman_beavers")


# --- the statistics


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_empirical_statistics_are_the_dense_ones(granularity):
    model, (x, y) = network(), batches(1)[0]
    optimizer = SNGD(model, chosen(granularity), base="sgd")
    squared_error(model(x), y).backward()
    examples = iter(y)
    gradients = dense_gradients(network(), x, lambda f: [2 * (f - next(examples)).detach()])
    optimizer.step()
    assert_statistics(optimizer, dense_inputs(network(), x), gradients)


@pytest.mark.parametrize("likelihood", ["softmax", "gaussian", "bernoulli"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_exact_statistics_are_the_dense_ones(granularity, likelihood):
    model, (x, y) = network(), batches(1)[0]
    optimizer = SNGD(model, chosen(granularity, fisher="exact"), base="sgd")
    outputs = model(x)
    optimizer.observe_outputs(outputs, likelihood)
    assert all(parameter.grad is None for parameter in model.parameters())
    squared_error(outputs, y).backward()
    optimizer.step()
    assert_statistics(optimizer, dense_inputs(network(), x), dense_gradients(network(), x, square_root(likelihood)))


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_sampled_statistics_approach_the_exact_ones(likelihood):
    """The mean over draws is off by no more than its own standard error explains."""
    model, (x, _) = network(), batches(1)[0]
    optimizer = SNGD(model, chosen("kron", fisher="sampled", decay=0.0, warmup_batches=10_000), base="sgd")
    fisher, draws = optimizer.layers["2"], []
    for _ in range(400):
        optimizer.observe_outputs(model(x), likelihood)
        optimizer.step()
        draws.append(kept(fisher)[1])
    exact = dense_gradients(network(), x, square_root(likelihood))[1]
    expected = dense.moments(dense_inputs(network(), x)[1], exact, fisher.settings)[1]
    draws = torch.stack(draws)
    standard_error = draws.std(0) / len(draws) ** 0.5
    assert float(standard_error.max() / expected.abs().max()) < 0.05  # the test can tell something
    assert float(((draws.mean(0) - expected).abs() / standard_error).max()) < 4.5


@hypothesis_settings(deadline=None, max_examples=30)
@given(st.sampled_from(["softmax", "gaussian", "bernoulli"]), st.integers(1, 6), st.floats(0.1, 30), st.integers(0, 99))
def test_columns_are_a_square_root_of_the_output_fisher(likelihood, classes, scale, seed):
    outputs = scale * torch.randn(3, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    columns = list(make_likelihood(likelihood).columns(outputs))
    assert len(columns) == classes
    for i, example in enumerate(outputs):
        product = sum(torch.outer(column[i], column[i]) for column in columns)
        torch.testing.assert_close(product, dense.output_fisher(example, likelihood), rtol=1e-12, atol=1e-14)


def test_sampled_vectors_are_gradients_of_the_loss_at_targets_that_can_be():
    f = torch.randn(5, 4, dtype=torch.float64)
    v = make_likelihood("softmax").sample(f, torch.Generator().manual_seed(0))
    target = f.softmax(1) - v
    torch.testing.assert_close(target, one_hot(target.argmax(1), 4).double())
    v = make_likelihood("bernoulli").sample(f, torch.Generator().manual_seed(0))
    yes = f.sigmoid() - v
    torch.testing.assert_close(yes, yes.round().clamp(0, 1))


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_matrices_side_by_side_are_each_their_own(granularity):
    """Leading dimensions (groups, queries and keys): statistics, roots and diagnosis as for each alone."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(2, 3, 11, 4, generator=generator, dtype=torch.float64)
    g = torch.randn(2, 3, 11, 5, generator=generator, dtype=torch.float64)
    x = torch.randn(2, 3, 5, 4, generator=generator, dtype=torch.float64)
    settings = chosen(granularity)

    def refreshed(lead, a, g):
        estimate = make_estimate(Shape(lead, 5, 4), settings)
        state = estimate.init(torch.float64, "cpu", generator)
        estimate.update(state, Rows(a), [g, 2 * g], 0.5)
        root = estimate.refresh(state, 0.1 * estimate.mean_diagonal(state), None)
        return estimate.snapshot(state), estimate.operator({k: t.clone() for k, t in root.tensors().items()})

    snapshot, root = refreshed((2, 3), a, g)
    natural, there = root.precondition(x), root.solve(root.apply(x))
    torch.testing.assert_close(there, x)
    alone = {(i, j): refreshed((), a[i, j], g[i, j]) for i in range(2) for j in range(3)}
    for (i, j), (_, single) in alone.items():
        torch.testing.assert_close(natural[i, j], single.precondition(x[i, j]))
    parts = [part for part, _ in alone.values()]
    assert snapshot.trace() == pytest.approx(sum(part.trace() for part in parts))
    assert snapshot.squared_norm() == pytest.approx(sum(part.squared_norm() for part in parts))
    extremes = [part.extremes() for part in parts]
    assert snapshot.extremes() == pytest.approx((min(low for low, _ in extremes), max(high for _, high in extremes)))
    assert snapshot.drift(snapshot) == pytest.approx(0, abs=1e-6)


@hypothesis_settings(deadline=None, max_examples=40)
@given(
    granularity=st.sampled_from(GRANULARITIES),
    n=st.integers(1, 25),
    d=st.integers(1, 6),
    d_out=st.integers(1, 5),
    targets=st.integers(1, 3),
    largest=st.sampled_from([1, 50, 10**9]),
)
def test_statistics_of_any_shape_in_any_pieces(granularity, n, d, d_out, targets, largest):
    generator = torch.Generator().manual_seed(n)
    a = torch.randn(n, d, generator=generator, dtype=torch.float64)
    g = torch.randn(targets, n, d_out, generator=generator, dtype=torch.float64)
    fisher = LocalFisher(Shape((), d_out, d), chosen(granularity), dtype=torch.float64)
    with (
        mock.patch("sngd_tune.core.estimates.unit._LARGEST", largest),
        mock.patch("sngd_tune.core.estimates.layer._LARGEST", largest),
    ):
        fisher.estimate.update(fisher._state(), Pieces(a), list(g), 0.5)
    for value, reference in zip(kept(fisher), dense.moments(a, g, chosen(granularity)), strict=True):
        torch.testing.assert_close(value, reference)


@hypothesis_settings(deadline=None, max_examples=40)
@given(
    granularity=st.sampled_from(GRANULARITIES),
    root=st.sampled_from(["cholesky", "eigh", "eigenbasis"]),
    size=st.floats(-5, 5),
    loss=st.floats(-5, 5),
    rows=st.integers(1, 30),
)
def test_single_precision_stays_finite_at_any_scale(granularity, root, size, loss, rows):
    """Inputs and gradients from 1e-5 to 1e5, fewer rows than dimensions: roots are finite and undo each other."""
    generator = torch.Generator().manual_seed(rows)
    a = 10**size * (1 + torch.randn(rows, 6, generator=generator))
    g, x = 10**loss * torch.randn(rows, 4, generator=generator), torch.randn(4, 6, generator=generator)
    estimate = make_estimate(Shape((), 4, 6), chosen(granularity, root=root))
    state = estimate.init(torch.float32, "cpu", generator)
    estimate.update(state, Rows(a), [g], 0.9)
    operator = estimate.refresh(state, 1e-2 * estimate.mean_diagonal(state), None)
    assert bool(operator.precondition(x).isfinite().all())
    torch.testing.assert_close(operator.solve(operator.apply(x)), x, rtol=1e-2, atol=1e-2)


class Pieces(Rows):
    """Rows that come a few at a time, as those of a convolution do."""

    def chunks(self):
        yield from self.rows().split(10, dim=-2)


# --- the natural gradient


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("root", DENSE_ROOTS)
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.slow
def test_explicit_form_is_the_fused_form_and_the_dense_reference(granularity, root, base):
    settings = chosen(granularity, root=root)
    model = fused(settings, base)
    assert relative_difference(explicit(settings, base), model) < TOLERANCE
    if base == "adamw" and root not in SYMMETRIC:
        return  # Adam is not invariant under rotations: the reference uses the symmetric root
    expected = network()
    reference = dense.DenseSngd(expected, settings, lr=2e-3, **BASES[base][2])
    for x, y in batches(32):
        reference.step(lambda outputs, y=y: squared_error(outputs, y), x)
    assert relative_difference(expected, network()) > 1e-3  # it went somewhere
    assert relative_difference(model, expected) < TOLERANCE


@pytest.mark.parametrize("bound", ["graft", "kl"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_step_bounds_are_the_same_in_both_forms(granularity, bound):
    settings = chosen(granularity, step_bound=bound, kl_bound=1e-7)
    assert relative_difference(explicit(settings, "momentum"), fused(settings, "momentum")) < TOLERANCE


@pytest.mark.parametrize("kind", ["sampled", "exact"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_drawn_targets_are_the_same_in_both_forms(granularity, kind):
    settings = chosen(granularity, fisher=kind)

    def train(model, optimizer, show):
        for x, y in batches(24):
            optimizer.zero_grad()
            outputs = model(x)
            show(outputs, "gaussian")
            squared_error(outputs, y).backward()
            optimizer.step()
        return model

    model = network()
    optimizer = SNGD(model, settings, lr=2e-3, base="sgd")
    train(model, optimizer, optimizer.observe_outputs)
    rebuilt = reconstruct(network(), settings)
    sgd = torch.optim.SGD(rebuilt.parameters(), lr=2e-3, momentum=0.9)
    train(rebuilt, sgd, lambda outputs, likelihood: observe_outputs(rebuilt, outputs, likelihood))
    assert relative_difference(model, network()) > 1e-3
    assert relative_difference(restore(rebuilt), model) < TOLERANCE


@pytest.mark.parametrize("likelihood", ["softmax", "gaussian", "bernoulli"])
def test_the_layer_of_a_linear_model_takes_the_exact_natural_gradient_step(likelihood):
    x, y = batches(1)[0]
    model = nn.Linear(7, 3, bias=False).double()
    G = dense.network_fisher(model, x, likelihood)
    before = model.weight.detach().clone()
    optimizer = SNGD(model, chosen("layer", fisher="exact", warmup_batches=0), lr=0.1, momentum=0.0)
    outputs = model(x)
    optimizer.observe_outputs(outputs, likelihood)
    squared_error(outputs, y).backward()
    optimizer.step()
    lam = 0.1 * float(G.diagonal().mean())
    expected = dense.solve(G + lam * torch.eye(21, dtype=torch.float64), model.weight.grad)
    torch.testing.assert_close(before - model.weight, 0.1 * expected, rtol=1e-10, atol=1e-12)


def test_each_layers_matrix_is_its_block_of_the_networks():
    model, (x, y) = network(), batches(1)[0]
    optimizer = SNGD(model, chosen("layer", fisher="exact"), base="sgd")
    outputs = model(x)
    optimizer.observe_outputs(outputs, "softmax")
    squared_error(outputs, y).backward()
    optimizer.step()
    G = dense.network_fisher(network(), x, "softmax")
    start = 6 * 7 + 6  # behind weight and bias of the first layer
    block = G[start : start + 30, start : start + 30]
    torch.testing.assert_close(kept(optimizer.layers["2"])[0], block, rtol=1e-10, atol=1e-12)


def test_granularities_are_nested():
    """The diagonal blocks of `layer` are those of `unit`; where gradients are the same for all rows, it is `kron`."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(13, 4, generator=generator, dtype=torch.float64)
    g = torch.randn(13, 5, generator=generator, dtype=torch.float64)

    def average(granularity, g):
        fisher = LocalFisher(Shape((), 5, 4), chosen(granularity), dtype=torch.float64)
        fisher.estimate.update(fisher._state(), Rows(a), [g], 0.9)
        return kept(fisher)

    (layer,), (units,) = average("layer", g), average("unit", g)
    for j in range(5):
        torch.testing.assert_close(layer[4 * j : 4 * j + 4, 4 * j : 4 * j + 4], units[j])
    constant = g[:1].expand(13, 5)
    A, B = average("kron", constant)
    torch.testing.assert_close(torch.kron(B, A), average("layer", constant)[0])


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_scale_of_the_loss_only_scales_the_natural_gradient(granularity):
    """Under a GradScaler the gradients of `empirical` carry its scale c: G is c² as large, damping included."""
    x = torch.randn(5, 4, dtype=torch.float64)
    a, g = torch.randn(13, 4, dtype=torch.float64), torch.randn(13, 5, dtype=torch.float64)

    def natural(scale):
        estimate = make_estimate(Shape((), 5, 4), chosen(granularity))
        state = estimate.init(torch.float64, "cpu", torch.Generator())
        estimate.update(state, Rows(a), [scale * g], 0.9)
        return estimate.refresh(state, 0.1 * estimate.mean_diagonal(state), None).precondition(x)

    torch.testing.assert_close(natural(1024.0) * 1024.0**2, natural(1.0))


def test_kron_splits_its_damping_by_norm():
    estimate = make_estimate(Shape((), 5, 4), chosen("kron"))
    state = estimate.init(torch.float64, "cpu", torch.Generator())
    a, g = 100 * torch.randn(13, 4, dtype=torch.float64), 0.01 * torch.randn(13, 5, dtype=torch.float64)
    estimate.update(state, Rows(a), [g], 0.9)
    root = estimate.refresh(state, 0.3 * estimate.mean_diagonal(state), None)
    x = torch.randn(5, 4, dtype=torch.float64)
    A, B = estimate.snapshot(state).factors
    A = A + 0.3**0.5 * A.diagonal().mean() * torch.eye(4, dtype=torch.float64)
    B = B + 0.3**0.5 * B.diagonal().mean() * torch.eye(5, dtype=torch.float64)
    torch.testing.assert_close(root.precondition(x), torch.linalg.inv(B) @ x @ torch.linalg.inv(A))


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_outputs_without_gradient_get_finite_roots(granularity):
    """A dead unit, and with absolute damping a dead layer."""
    a, g = torch.randn(13, 4, dtype=torch.float64), torch.randn(13, 5, dtype=torch.float64)
    g[:, 2] = 0
    x = torch.ones(5, 4, dtype=torch.float64)
    for gradient, absolute in ((g, 0.0), (0 * g, 1.0)):
        estimate = make_estimate(Shape((), 5, 4), chosen(granularity))
        state = estimate.init(torch.float64, "cpu", torch.Generator())
        estimate.update(state, Rows(a), [gradient], 0.9)
        damping = 0.1 * estimate.mean_diagonal(state) + absolute
        assert damping.shape == estimate.damping_shape
        natural = estimate.refresh(state, damping, None).precondition(x)
        assert bool(natural.isfinite().all())
        if absolute and granularity != "kron":
            torch.testing.assert_close(natural, x)


# --- shared weights


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_shared_weights_are_exact_where_the_setting_fits_the_loss(granularity, sharing):
    """Eschenhagen et al. 2023: `expand` for a loss at each position, `reduce` for one of the mean over positions."""
    torch.manual_seed(0)
    x, y = torch.randn(6, 4, 3, dtype=torch.float64), torch.randint(5, (6, 4))
    model = nn.Linear(3, 5).double()
    optimizer = SNGD(model, chosen(granularity, sharing=sharing), base="sgd")
    if sharing == "expand":
        cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
        a, targets = x.flatten(0, 1), y.flatten()
    else:
        cross_entropy(model(x).mean(1), y[:, 0]).backward()
        a, targets = x.mean(1), y[:, 0]
    optimizer.step()
    g = (model(a).softmax(1) - one_hot(targets, 5)).detach()
    assert_statistics(optimizer, [torch.cat((a, torch.ones(len(a), 1)), 1)], [g[None]])


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
def test_exact_statistics_of_sequences(sharing):
    """Logits ``[n, T, C]``: each position has targets of its own, which act on all positions before."""
    torch.manual_seed(0)
    x = torch.randn(3, 4, 2, dtype=torch.float64)
    model = nn.Linear(2, 3).double()
    optimizer = SNGD(model, chosen("layer", fisher="exact", sharing=sharing), base="sgd")
    s = model(x)
    outputs = s.cumsum(1).sin()
    optimizer.observe_outputs(outputs, "softmax")
    optimizer.step()
    a = torch.cat((x, torch.ones(3, 4, 1)), 2)
    targets = []
    for i in range(3):
        for t in range(4):
            for v in square_root("softmax")(outputs[i, t].detach()):
                g = torch.autograd.grad(outputs[i, t], s, v, retain_graph=True)[0]
                targets.append(g if sharing == "expand" else g.sum(1))
    a = a if sharing == "expand" else a.mean(1)
    scale = 1.0 if sharing == "expand" else 3 / 12  # the mean over 12 terms is a mean over 3 examples
    g = torch.stack([target.flatten(0, -2) for target in targets]) * scale
    assert_statistics(optimizer, [a.flatten(0, -2)], [g])


def test_drawn_positions_keep_inputs_and_gradients_together():
    torch.manual_seed(0)
    x, y = torch.randn(40, 3, dtype=torch.float64), torch.randint(5, (40,))
    model = nn.Linear(3, 5, bias=False).double()
    optimizer = SNGD(model, chosen("layer", positions=1), base="sgd")
    cross_entropy(model(x), y).backward()
    optimizer.step()
    g = (model(x).softmax(1) - one_hot(y, 5)).detach()
    candidates = [dense.layer_fisher(x[i : i + 1], g[None, i : i + 1]) for i in range(40)]
    value = kept(optimizer.layers[""])[0]
    assert min(float((value - candidate).abs().max()) for candidate in candidates) < 1e-12


def test_one_hot_inputs_keep_the_diagonal():
    estimate = make_estimate(Shape((), 5, 9, one_hot=True), chosen("kron"))
    assert type(estimate).__name__ == "DiagonalEstimate"


# --- other layers than linear ones


def convolution():
    return nn.Sequential(nn.Conv2d(4, 6, 2, groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(24, 3))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True, bias=False)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0][:, :2].flatten(1)


LAYERS = {"convolution": (convolution, (5, 4, 3, 3)), "attention": (Attention, (5, 3, 4))}


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("layer", LAYERS)
def test_the_exact_statistics_are_the_sum_over_outputs_of_empirical_ones(layer, granularity, sharing):
    """Gaussian columns are unit vectors: each is the gradient of a loss that is one output."""
    make, shape = LAYERS[layer]
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def average(kind, show):
        torch.manual_seed(0)
        model = make().double()
        optimizer = SNGD(model, chosen(granularity, sharing=sharing, fisher=kind), base="sgd")
        show(optimizer, model(x))
        optimizer.step()
        return [kept(fisher)[-1] for fisher in optimizer.layers.values()]

    exact = average("exact", lambda optimizer, outputs: optimizer.observe_outputs(outputs, "gaussian"))
    width = {"convolution": 3, "attention": 8}[layer]
    each = [average("empirical", lambda _, outputs, c=c: outputs[:, c].mean().backward()) for c in range(width)]
    assert len(exact) == 2
    for value, *parts in zip(exact, *each, strict=True):
        assert value.dim() >= 2 + (granularity == "unit")
        torch.testing.assert_close(value, sum(parts))


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_groups_of_a_convolution_have_the_dense_statistics(granularity):
    model = nn.Conv2d(4, 6, 2, groups=2).double()
    x = torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    target = torch.randn(5, 6, 2, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    optimizer = SNGD(model, chosen(granularity), base="sgd")
    ((model(x) * target).sum() / 5).backward()
    optimizer.step()
    patches = nn.functional.unfold(x, 2).mT  # [n, positions, channels · 4]
    values = kept(next(iter(optimizer.layers.values())))
    for group in range(2):
        a = patches[..., 8 * group : 8 * group + 8].flatten(0, 1)
        a = torch.cat((a, torch.ones(len(a), 1)), 1)
        g = 4 * target[:, 3 * group : 3 * group + 3].flatten(2).mT.flatten(0, 1)  # each of 4 positions an example
        for value, expected in zip(values, dense.moments(a, g[None], chosen(granularity)), strict=True):
            torch.testing.assert_close(value[group], expected)
