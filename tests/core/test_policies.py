"""Refresh schedules, damping policies and step bounds: one conformance suite over all of their combinations, and what
each of them promises on its own."""

import copy
import io
import math
from collections import Counter
from itertools import pairwise, product

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from sngd_tune import SNGD, reconstruct, restore
from sngd_tune.core import dense
from sngd_tune.core.bounds import BOUNDS
from sngd_tune.core.damping import LevenbergMarquardt, Reduction
from sngd_tune.core.inputs import Rows
from sngd_tune.core.layers.base import Seen, Shape
from sngd_tune.core.local_fisher import LocalFisher
from sngd_tune.core.schedule import SCHEDULES, refresh_due, staggered, statistics_due
from sngd_tune.errors import SettingsError
from sngd_tune.settings import DAMPING_POLICIES, REFRESH_SCHEDULES, STEP_BOUNDS, FisherSettings
from tests.core.problems import SETTINGS, batches, network, relative_difference, settings, squared_error

BASES = {"sgd": {"momentum": 0.9}, "adamw": {"base": "adamw"}}
COMBINATIONS = list(product(REFRESH_SCHEDULES, DAMPING_POLICIES, STEP_BOUNDS))


def chosen(schedule, damping, bound, name="input-nystrom-2", **changes):
    values = {"refresh_schedule": schedule, "damping_policy": damping, "step_bound": bound, "kl_bound": 1e-6}
    return settings(name, drift_threshold=0.05, **{**values, **changes})


def closure_of(model, optimizer, x, y):
    def closure():
        optimizer.zero_grad()
        loss = squared_error(model(x), y)
        loss.backward()
        return loss

    return closure


def train(model, optimizer, data):
    """With a closure, which every policy takes (the explicit form sees its batch before the step)."""
    for x, y in data:
        closure = closure_of(model, optimizer, x, y)
        if isinstance(optimizer, SNGD):
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()


def test_tables_hold_what_the_settings_name():
    assert set(SCHEDULES) == set(REFRESH_SCHEDULES)
    assert set(BOUNDS) == set(STEP_BOUNDS)
    for field in ("refresh_schedule", "damping_policy", "step_bound"):
        with pytest.raises(SettingsError, match=f"{field}='sometimes': must be one of .*; try"):
            FisherSettings(**{field: "sometimes"})


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(("schedule", "damping", "bound"), COMBINATIONS)
def test_resume_is_the_uninterrupted_run_bit_for_bit(schedule, damping, bound, base):
    data, values = batches(28), chosen(schedule, damping, bound)
    model = network()
    optimizer = SNGD(model, values, lr=1e-2, **BASES[base])
    train(model, optimizer, data[:14])
    buffer = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict()], buffer)
    train(model, optimizer, data[14:])
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    resumed = network(seed=9)
    again = SNGD(resumed, values, lr=0.5, seed=77, **BASES[base])
    resumed.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    train(resumed, again, data[14:])
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), resumed.parameters(), strict=True))
    assert [f.refreshes for f in again.layers.values()] == [f.refreshes for f in optimizer.layers.values()]
    if damping == "levenberg_marquardt":
        assert optimizer.layers["0"].damping_factor == again.layers["0"].damping_factor != 1


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(("schedule", "bound"), list(product(REFRESH_SCHEDULES, STEP_BOUNDS)))
def test_both_forms_agree(schedule, bound, base):
    data, values = batches(32), chosen(schedule, "fixed", bound, "input-cholesky")
    model, rebuilt = network(), reconstruct(network(), values)
    train(model, SNGD(model, values, lr=2e-3, weight_decay=0.0, **BASES[base]), data)
    make = {"sgd": lambda p: torch.optim.SGD(p, lr=2e-3, momentum=0.9)}
    make["adamw"] = lambda p: torch.optim.AdamW(p, lr=2e-3, weight_decay=0.0)
    train(rebuilt, make[base](rebuilt.parameters()), data)
    assert relative_difference(model, network()) > 1e-4
    assert relative_difference(restore(rebuilt), model) < 1e-10


@pytest.mark.parametrize("granularity", ["unit", "kron", "layer"])
@pytest.mark.parametrize("schedule", ["thinning", "drift"])
def test_policies_serve_the_output_side_too(granularity, schedule):
    """Drift, staggering and Levenberg-Marquardt where ``G`` is made of output gradients."""
    changes = {"granularity": granularity, "root": "cholesky", "refresh_schedule": schedule, "drift_threshold": 0.3}
    data, values = batches(24), settings("input-cholesky", **changes)
    model, rebuilt = network(), reconstruct(network(), values)
    fused = SNGD(model, values, lr=2e-3, momentum=0.9)
    train(model, fused, data)
    train(rebuilt, torch.optim.SGD(rebuilt.parameters(), lr=2e-3, momentum=0.9), data)
    assert relative_difference(restore(rebuilt), model) < 1e-10
    assert all(fisher.drift() >= 0 for fisher in fused.layers.values())
    model = network()
    adaptive = SNGD(model, settings("input-cholesky", **changes, damping_policy="levenberg_marquardt"), lr=2e-3)
    train(model, adaptive, data)
    assert adaptive.layers["0"].damping_factor != 1
    assert all(p.isfinite().all() for p in model.parameters())


def test_explicit_form_refuses_what_needs_the_loss_after_a_step():
    with pytest.raises(SettingsError, match=r"0: damping_policy='levenberg_marquardt': must be 'fixed'.*try SNGD"):
        reconstruct(network(), settings("input-eigh", damping_policy="levenberg_marquardt"))


def test_nesterov_is_torchs():
    data, values = batches(32), settings("input-eigh", step_bound="graft")
    model, rebuilt = network(), reconstruct(network(), values)
    train(model, SNGD(model, values, lr=2e-3, momentum=0.9, nesterov=True), data)
    train(rebuilt, torch.optim.SGD(rebuilt.parameters(), lr=2e-3, momentum=0.9, nesterov=True), data)
    assert relative_difference(restore(rebuilt), model) < 1e-10
    heavy = network()
    train(heavy, SNGD(heavy, values, lr=2e-3, momentum=0.9), data)
    assert relative_difference(heavy, model) > 1e-4


def test_the_trust_region_is_one_for_all_parameter_groups():
    data, values = batches(20), settings("input-eigh", step_bound="kl", kl_bound=1e-7)
    model, rebuilt = network(), reconstruct(network(), values)
    fused = SNGD(model, values, lr=2e-3, momentum=0.9)
    [group] = fused.param_groups
    first, rest = group["params"][:2], group["params"][2:]
    fused.param_groups[:] = [{**group, "params": first, "lr": 8e-3}, {**group, "params": rest}]
    W = list(rebuilt.parameters())
    explicit = torch.optim.SGD([{"params": W[:1], "lr": 8e-3}, {"params": W[1:]}], lr=2e-3, momentum=0.9)
    train(model, fused, data)
    train(rebuilt, explicit, data)
    assert relative_difference(restore(rebuilt), model) < 1e-10


# --- staggering -------------------------------------------------------------------------------------------------------

INTERVALS = st.integers(1, 60)


@hypothesis_settings(deadline=None, max_examples=150)
@given(interval=INTERVALS, statistics=INTERVALS, sites=st.integers(1, 40), schedule=st.sampled_from(REFRESH_SCHEDULES))
def test_each_layer_once_an_interval_and_no_step_with_more_than_its_share(interval, statistics, sites, schedule):
    values = FisherSettings(fisher_interval=interval, statistics_interval=statistics, refresh_schedule=schedule)
    offsets = staggered([(i, values) for i in range(sites)])
    later = range(interval, 4 * interval)  # after the dense start
    refreshes = [[step for step in later if refresh_due(step, values, offset)] for offset in offsets]
    assert all(len(steps) == 3 and {b - a for a, b in pairwise(steps)} == {interval} for steps in refreshes)
    assert max(Counter(step for steps in refreshes for step in steps).values()) <= math.ceil(sites / interval)
    for offset in offsets:
        early = [step for step in range(4 * interval) if refresh_due(step, values, offset)]
        assert early[0] == 0
        assert max((b - a for a, b in pairwise(early)), default=0) <= interval
        assert all(statistics_due(step, values, offset) for step in early)
        if schedule != "fixed":
            assert {2**k - 1 for k in range(7) if 2**k - 1 < interval} <= set(early)


@hypothesis_settings(deadline=None, max_examples=150)
@given(interval=INTERVALS, statistics=INTERVALS, sites=st.integers(1, 40))
def test_regular_statistics_are_spread_and_serve_the_refreshes(interval, statistics, sites):
    values = FisherSettings(fisher_interval=interval, statistics_interval=statistics, refresh_schedule="fixed")
    offsets = staggered([(i, values) for i in range(sites)])
    assert max(Counter(offset.statistics for offset in offsets).values()) <= math.ceil(sites / statistics)
    divisor = math.gcd(interval, statistics)
    for offset in offsets:
        assert 0 <= offset.refresh < interval
        assert 0 <= offset.statistics < statistics
        assert (offset.refresh - offset.statistics) % divisor == 0
        if interval % statistics == 0:  # then no refresh needs statistics of its own
            regular = [s for s in range(interval, 4 * interval) if s % statistics == offset.statistics]
            assert [s for s in range(interval, 4 * interval) if statistics_due(s, values, offset)] == regular


def test_sites_of_one_module_share_their_statistics_and_so_do_drawn_targets():
    values = FisherSettings(fisher_interval=40, statistics_interval=10)
    offsets = staggered([("attention", values), ("attention", values), ("head", values), ("tail", values)])
    assert offsets[0].statistics == offsets[1].statistics
    assert len({offset.statistics for offset in offsets}) == 3
    assert len({offset.refresh for offset in offsets}) == 4
    drawn = FisherSettings(granularity="unit", fisher="sampled", fisher_interval=40, statistics_interval=10)
    offsets = staggered([(i, drawn) for i in range(4)])
    assert {offset.statistics for offset in offsets} == {0}
    assert len({offset.refresh for offset in offsets}) == 4


def test_groups_of_other_intervals_are_spread_on_their_own():
    often, seldom = FisherSettings(fisher_interval=4), FisherSettings(fisher_interval=40)
    mixed = staggered([(i, (often, seldom)[i % 2]) for i in range(8)])
    assert mixed[0::2] == staggered([(i, often) for i in range(4)])
    assert mixed[1::2] == staggered([(i, seldom) for i in range(4)])


def test_layers_of_a_model_refresh_at_different_steps_in_both_forms():
    values, data = settings("input-eigh", fisher_interval=6, statistics_interval=3, warmup_batches=0), batches(18)
    model, rebuilt = network(), reconstruct(network(), values)
    fused, explicit = SNGD(model, values, lr=1e-3, base="sgd"), torch.optim.SGD(rebuilt.parameters(), lr=1e-3)
    forms = [
        (model, fused, list(fused.layers.values())),
        (rebuilt, explicit, [rebuilt[i].fishers[0] for i in (0, 2, 4)]),
    ]
    histories = []
    for net, optimizer, fishers in forms:
        counts = [tuple(f.refreshes for f in fishers)]
        for batch in data:
            train(net, optimizer, [batch])
            counts.append(tuple(f.refreshes for f in fishers))
        histories.append([[b > a for a, b in zip(*pair, strict=True)] for pair in pairwise(counts)])
    assert histories[0] == histories[1]
    assert histories[0][0] == [True] * 3
    assert all(sum(step) <= 1 for step in histories[0][6:])
    assert [sum(step[i] for step in histories[0][6:]) for i in range(3)] == [2, 2, 2]


# --- drift ------------------------------------------------------------------------------------------------------------


def local_fisher(name="input-eigh", d=20, **changes):
    values = {"fisher_interval": 1, "statistics_interval": 1, "warmup_batches": 0, "decay": 0.0}
    return LocalFisher(Shape((), 3, d), settings(name, **{**values, **changes}), dtype=torch.float64)


def step_with(fisher, a):
    fisher.observe(Seen(Rows.of(a, bias=False), None, lambda gradient: gradient))
    before = fisher.refreshes
    fisher.advance()
    return fisher.refreshes > before


@pytest.mark.parametrize("name", SETTINGS)
def test_drift_refreshes_when_g_has_moved_and_only_then(name):
    fisher = local_fisher(name, refresh_schedule="drift", drift_threshold=0.2)
    # Two directions that stand out: what a sketch of rank 2 cannot know of G counts as movement after its refresh.
    scale = torch.tensor([3.0, 2.0] + [0.1] * 18, dtype=torch.float64)
    a = scale * torch.randn(50, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert step_with(fisher, a)
    assert fisher.drift() == pytest.approx(0, abs=1e-7)
    assert not any(step_with(fisher, a) for _ in range(5))
    assert not step_with(fisher, a * 1.05**0.5)
    assert fisher.drift() == pytest.approx(0.05, rel=0.05 if name == "input-nystrom-2" else 1e-6)
    assert step_with(fisher, a * 2**0.5)
    assert not step_with(fisher, a * 2**0.5)
    assert step_with(fisher, a.roll(1, dims=1))  # turned, with the same trace
    assert fisher.refreshes == 3


@hypothesis_settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), d=st.integers(1, 60), amount=st.floats(0.01, 1.0))
def test_drift_estimates_the_frobenius_norm(seed, d, amount):
    """Eight probes: within a factor of two, and exact up to eight inputs or where G only scales."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(40, d, generator=generator, dtype=torch.float64) for _ in range(2))
    fisher = local_fisher(d=d)
    step_with(fisher, a)
    scaled = copy.deepcopy(fisher)
    mixed = torch.cat((a, amount * b))
    fisher.observe(Seen(Rows.of(mixed, bias=False), None, lambda gradient: gradient))
    G, H = dense.fisher(a), dense.fisher(mixed)
    exact = float((H - G).norm() / G.norm())
    assert fisher.drift() == pytest.approx(exact, rel=1e-6 if d <= 8 else 1.0)
    assert fisher.drift() > 0.4 * exact
    scaled.observe(Seen(Rows.of(a * (1 + amount), bias=False), None, lambda gradient: gradient))
    assert scaled.drift() == pytest.approx((1 + amount) ** 2 - 1, rel=1e-6)


def test_drift_counts_a_damping_that_has_moved():
    fisher = local_fisher(refresh_schedule="drift", drift_threshold=0.2)
    a = torch.ones(4, 20, dtype=torch.float64)
    assert step_with(fisher, a)
    fisher.damping_factor = 1.1
    assert not step_with(fisher, a)
    fisher.damping_factor = 1.3
    assert step_with(fisher, a)


# --- damping ----------------------------------------------------------------------------------------------------------


def test_constant_and_trace_relative_damping():
    a = 3 * torch.ones(4, 20, dtype=torch.float64)  # mean(diag G) = 9
    for relative, absolute, expected in ((0.0, 0.5, 0.5), (0.1, 0.0, 0.9), (0.1, 0.5, 1.4)):
        fisher = local_fisher(relative_damping=relative, absolute_damping=absolute)
        step_with(fisher, a)
        assert float(fisher.damping) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("predicted", "actual", "direction"),
    [
        (1.0, 0.1, 1),  # over-optimistic
        (1.0, -5.0, 1),
        (1.0, math.nan, 1),
        (1.0, 0.5, 0),
        (1.0, 0.9, -1),
        (1.0, 3.0, -1),  # under-optimistic
        (-1.0, 0.5, -1),
        (-1.0, -0.5, 1),
    ],
)
def test_levenberg_marquardt_rule(predicted, actual, direction):
    factor = LevenbergMarquardt().adapt(2.0, Reduction(predicted, actual))
    assert factor == pytest.approx(2.0 * (19 / 20) ** (-5 * direction))


@hypothesis_settings(deadline=None, max_examples=60)
@given(factor=st.floats(1e-4, 1e4), predicted=st.floats(), actual=st.floats())
def test_the_factor_stays_in_its_bounds(factor, predicted, actual):
    assert 1e-4 <= LevenbergMarquardt().adapt(factor, Reduction(predicted, actual)) <= 1e4


def adapted(scale, count=26, **changes):
    """SNGD on a loss whose curvature is `scale` times what G says it is."""
    model = nn.Linear(7, 1, bias=False).double()
    nn.init.ones_(model.weight)
    values = settings(
        "input-cholesky", damping_policy="levenberg_marquardt", step_bound="none", warmup_batches=0, **changes
    )
    optimizer = SNGD(model, values, lr=1.0, momentum=0.0)
    x = batches(1)[0][0]

    def closure():
        optimizer.zero_grad()
        loss = scale * model(x).square().mean() / 2
        loss.backward()
        return loss

    for _ in range(count):
        optimizer.step(closure)
    return optimizer


def test_levenberg_marquardt_lowers_on_a_true_model_and_raises_on_an_optimistic_one():
    assert adapted(1.0).layers[""].damping_factor == pytest.approx((19 / 20) ** 30)
    assert adapted(4.0).layers[""].damping_factor > 1


def test_the_factor_reaches_the_damping_at_the_next_refresh():
    optimizer = adapted(1.0, count=7, fisher_interval=6)  # steps 0 and 5 have been measured, step 6 refreshed
    fisher = optimizer.layers[""]
    assert fisher.damping_factor == pytest.approx((19 / 20) ** 10)
    assert float(fisher.damping) == pytest.approx(0.1 * fisher.mean_diagonal() * fisher.damping_factor)


def test_predicted_reduction_is_the_quadratic_models():
    """Against the dense algebra; on a quadratic loss with small damping it is the actual one as well."""
    model = nn.Sequential(nn.Linear(7, 3), nn.LayerNorm(3)).double()
    values = settings("input-eigh", damping_policy="levenberg_marquardt", warmup_batches=0, step_bound="graft")
    optimizer = SNGD(model, values, lr=0.01, momentum=0.0)
    x, y = batches(1)[0]
    closure_of(model, optimizer, x, y)()
    gradients = [p.grad.clone() for p in model.parameters()]
    before = [p.detach().clone() for p in model.parameters()]
    loss = optimizer.step(closure_of(model, optimizer, x, y)).item()
    moved = [p.detach() - old for p, old in zip(model.parameters(), before, strict=True)]
    change = torch.cat((moved[0], moved[1][:, None]), 1)
    G = dense.fisher(torch.cat((x, torch.ones(len(x), 1)), 1))
    metric = G + dense.damping(G, values) * torch.eye(8)
    slope = sum(float((g * m).sum()) for g, m in zip(gradients, moved, strict=True))
    curvature = float(torch.einsum("ij,jk,ik->", change, metric, change)) + sum(
        float(m.square().sum()) for m in moved[2:]
    )
    found = optimizer.diagnostics().reduction
    assert found.predicted == pytest.approx(-slope - curvature / 2, rel=1e-10)
    assert found.actual == pytest.approx(loss - squared_error(model(x), y).item(), rel=1e-12)


def test_the_extra_evaluation_enters_no_statistics():
    values = settings("input-eigh", damping_policy="levenberg_marquardt", statistics_interval=1, warmup_batches=0)
    calls = Counter()
    model = network()
    optimizer = SNGD(model, values, lr=1e-3, base="sgd")
    fisher = optimizer.layers["0"]
    update = fisher.estimate.update

    def counted(*args):
        calls["batches"] += 1
        update(*args)

    fisher.estimate.update = counted
    model.register_forward_hook(lambda *_: calls.update(["forwards"]))
    train(model, optimizer, batches(10))
    assert calls == {"batches": 10, "forwards": 12}  # steps 0 and 5 are measured


def test_a_step_without_a_closure_is_refused_before_anything_moves():
    model = network()
    optimizer = SNGD(model, settings("input-eigh", damping_policy="levenberg_marquardt", warmup_batches=0), base="sgd")
    squared_error(model(batches(1)[0][0]), batches(1)[0][1]).backward()
    with pytest.raises(SettingsError, match=r"levenberg_marquardt'.*needs a closure.*try optimizer.step\(closure\)"):
        optimizer.step()
    assert relative_difference(model, network()) == 0
    assert optimizer.layers["0"].step == 0
    assert optimizer.needs_closure
    assert not SNGD(network(), base="sgd").needs_closure
