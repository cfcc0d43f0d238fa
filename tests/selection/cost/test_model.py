"""The cost model: what is known for certain of its figures, what is measured and what is not, and what stays."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sngd_tune import FisherSettings
from sngd_tune.core.account import matches
from sngd_tune.core.memory import predict
from sngd_tune.core.schedule import refresh_due, staggered, statistics_due
from sngd_tune.errors import ConfigurationError, ReconstructionError, SettingsError
from sngd_tune.selection.cost import REFERENCE, CostModel, LayerCost, PlainStep, statistics_share, step
from sngd_tune.selection.cost.step import time_plain
from sngd_tune.selection.cost.timing import threads_set
from sngd_tune.selection.observation import observe
from tests.core.test_memory import KEPT

intervals = st.integers(1, 60)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Dropout(), nn.Linear(12, 3))


def loss(model, batch):
    return model(batch).square().mean()


@pytest.fixture(scope="module")
def seen():
    """Sites of `network`, and what a batch shows in them."""
    model = network()
    found = matches(model, REFERENCE)
    return found, observe(model, found, lambda: loss(model, torch.randn(16, 24)))[1]


class Counted(CostModel):
    """Prices without measuring: each layer's by its settings."""

    def layer(self, match, seen, settings, base):
        kind = "reference" if settings.granularity == "input" else settings.granularity
        update = {"reference": 1.0, "diagonal": 0.5, "kron": 4.0}[kind]
        return LayerCost(
            update=update, statistics=10.0, refresh=100.0, kind=kind, first=update / 10, bytes=1, peak=1,
            measured=kind != "kron",
        )  # fmt: skip


PLAIN = PlainStep(
    passes=50.0,
    backward=30.0,
    steps={"sgd": 2.0, "adamw": 3.0},
    reference={"sgd": 6.0, "adamw": 9.0},
    observed=15.0,
    shown={"0": 1.0, "4": 3.0},
)


def every(found, **settings):
    return {match.name: FisherSettings(**settings) for match in found}


@pytest.mark.parametrize("base", ["sgd", "adamw"])
@pytest.mark.parametrize("kept", KEPT[::3], ids=lambda kept: "-".join(map(str, kept.values())))
def test_bytes_are_those_that_are_predicted_and_seconds_are_positive(seen, kept, base):
    (match, _), batch = seen
    settings = FisherSettings(**kept)
    cost = CostModel().layer(match, batch["0"], settings, base)
    expected = predict(replace(match, settings=settings), base)
    assert (cost.bytes, cost.peak) == (expected.kept, expected.peak)
    assert cost.update >= 0
    assert min(cost.statistics, cost.refresh) > 0


@given(regular=intervals, refreshes=intervals)
def test_the_share_of_statistics_is_that_of_the_schedule(regular, refreshes):
    settings = FisherSettings(statistics_interval=regular, fisher_interval=refreshes)
    start = max(regular, refreshes)
    steps = range(start, start + math.lcm(regular, refreshes))
    (offset,) = staggered([("layer", settings)])
    taken = sum(statistics_due(step, settings, offset) for step in steps)
    assert taken / len(steps) == pytest.approx(statistics_share(settings))
    refreshed = sum(refresh_due(step, settings, offset) for step in steps)
    cost = LayerCost(update=3.0, statistics=5.0, refresh=7.0, kind="", first=100.0, bytes=0, peak=0)
    assert cost.per_step(settings) == pytest.approx(3 + 5 * taken / len(steps) + 7 * refreshed / len(steps))


def test_a_cached_cost_is_not_measured_again(seen, tmp_path):
    (match, _), batch = seen
    path = tmp_path / "cost.json"
    settings = FisherSettings(rank=2)
    first = CostModel(cache=path)
    cost = first.layer(match, batch["0"], settings, "adamw")
    assert first.measurements > 0
    second = CostModel(cache=path)
    assert second.layer(match, batch["0"], settings, "adamw") == cost
    assert second.measurements == 0
    path.write_text("spoiled")
    third = CostModel(cache=path)
    third.layer(match, batch["0"], settings, "adamw")
    assert third.measurements == first.measurements


def test_what_does_not_matter_to_the_price_is_not_measured_again(seen):
    (match, _), batch = seen
    model = CostModel()

    def measured(settings, base="sgd"):
        before = model.measurements
        model.layer(match, batch["0"], settings, base)
        return model.measurements - before

    cholesky = FisherSettings(root="cholesky")
    assert measured(cholesky) == 5
    alike = replace(cholesky, relative_damping=3.0, fisher_interval=7, statistics_interval=3, warmup_batches=9)
    assert measured(alike) == 0
    assert measured(FisherSettings(root="eigh")) == 2  # the same statistics, and on SGD the same product
    assert measured(replace(cholesky, step_bound="none")) == 1  # the update
    assert measured(replace(cholesky, positions=4)) == 1  # the statistics
    assert measured(cholesky, "adamw") == 4  # all but the statistics
    assert measured(FisherSettings(rank=100)) == measured(FisherSettings(rank=2)) + 1  # of another kind; 25 is all
    assert measured(FisherSettings(rank=99)) == 0


def test_a_layer_that_is_too_long_is_told_from_smaller_ones():
    model = nn.Linear(120, 80)
    found = matches(model, REFERENCE)
    _, seen = observe(model, found, lambda: loss(model, torch.randn(4, 120)))
    settings = FisherSettings(granularity="layer")  # a matrix of 9,680 columns
    cost = CostModel().layer(found[0], seen[""], settings, "sgd")
    assert not cost.measured
    assert cost.bytes > 2 * 9_680**2 * 4
    assert cost.refresh > 1  # 1e12 multiplications
    assert cost.update > 0.003  # 1e8 of them, and as many numbers


def test_a_step_under_the_reference_is_the_one_that_was_timed(seen):
    found, batch = seen
    rare = {"fisher_interval": 10**9, "statistics_interval": 10**9}
    for base in ("sgd", "adamw"):
        step = Counted().step(PLAIN, found, batch, every(found, **rare), base)
        assert step.seconds == pytest.approx(PLAIN.passes + PLAIN.reference[base], abs=1e-6)
        assert (step.sgd, step.plain) == (52, PLAIN.seconds(base))
        assert step.ratio == pytest.approx(step.seconds / 52)
        assert step.measured


def test_a_choice_differs_from_the_reference_by_its_layers(seen):
    found, batch = seen
    costs, rare = Counted(), {"fisher_interval": 10**9, "statistics_interval": 10**9}
    reference = PLAIN.passes + PLAIN.reference["sgd"]

    def seconds(settings):
        return costs.step(PLAIN, found, batch, settings, "sgd").seconds

    diagonal = every(found, granularity="diagonal", **rare)
    assert seconds(diagonal) == pytest.approx(reference - 2 * 0.5 - 0.05, abs=1e-6)
    mixed = {**every(found, **rare), "4": diagonal["4"]}
    assert seconds(mixed) == pytest.approx(reference - 0.5 + 0.05, abs=1e-6)  # of two kinds
    assert seconds({"0": mixed["0"]}) == pytest.approx(reference - 1, abs=1e-6)
    assert seconds({}) == pytest.approx(reference - 2 - 0.1, abs=1e-6)
    assert costs.common(PLAIN, found, batch, "sgd") == pytest.approx(6 - 2 - 2)
    assert not costs.step(PLAIN, found, batch, every(found, granularity="kron"), "sgd").measured


def test_statistics_and_refreshes_are_spread_over_their_intervals(seen):
    found, batch = seen
    costs = Counted()
    # beside 10 of each layer's own a module's statistics take 15 − 10 − 2 on average, and what it takes to show them
    assert costs.showing(PLAIN, found, batch, "sgd") == pytest.approx({"0": 1 + 3, "4": 3 + 3})
    step = costs.step(PLAIN, found, batch, every(found, fisher_interval=20, statistics_interval=10), "sgd")
    expected = PLAIN.passes + 6 + (2 * 10 + 4 + 6) / 10 + 2 * 100 / 20
    assert step.seconds == pytest.approx(expected)
    drawn = every(found, granularity="kron", fisher="sampled", fisher_interval=20, statistics_interval=10)
    own = costs.step(
        PLAIN, found, batch, every(found, granularity="kron", fisher_interval=20, statistics_interval=10), "sgd"
    )
    sampled = costs.step(PLAIN, found, batch, drawn, "sgd")
    assert sampled.seconds - own.seconds == pytest.approx(30 / 2 / 10)


def test_timing_leaves_the_model_and_the_random_numbers_as_they_are():
    model = network().eval()
    loss(model, torch.randn(8, 24)).backward()
    before, gradients = copy.deepcopy(model.state_dict()), [p.grad.clone() for p in model.parameters()]
    batches = [torch.randn(8, 24) for _ in range(2)]
    numbers = torch.get_rng_state()
    plain = time_plain(model, loss, batches, seconds=0.01)
    assert torch.equal(torch.get_rng_state(), numbers)
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert set(plain.shown) == {"0", "4"}
    assert set(plain.steps) == set(plain.reference) == {"sgd", "adamw"}
    assert 0 < plain.backward < plain.passes
    assert plain.seconds("sgd") == plain.passes + plain.steps["sgd"]


def test_raw_features_make_no_step_diverge():
    """Not finite gradients would be warned of, and then be an error."""
    batches = [torch.randn(16, 3) * 1e5]
    assert time_plain(nn.Linear(3, 1), loss, batches, seconds=0.1).passes > 0


def test_seconds_of_a_slow_step_hold_no_difference_of_two(monkeypatch):
    monkeypatch.setattr(step, "_TURN", 0.0)
    assert time_plain(network(), loss, [torch.randn(8, 24)], seconds=0.0).observed == 0


def test_threads_are_those_asked_for_and_given_back(monkeypatch):
    monkeypatch.setattr(step, "_TURN", 0.0)
    threads = []

    def watched(model, batch):
        threads.append(torch.get_num_threads())
        return loss(model, batch)

    with threads_set(2):
        CostModel(threads=1).plain(network(), watched, [torch.randn(8, 24)], seconds=0.0)
        assert torch.get_num_threads() == 2
    assert set(threads) == {1}


def test_what_cannot_be_priced_is_said(seen):
    (match, _), batch = seen
    model = CostModel()
    with pytest.raises(SettingsError, match=r"fisher='exact'.*try 'sampled'"):
        model.layer(match, batch["0"], FisherSettings(granularity="kron", fisher="exact"), "sgd")
    with pytest.raises(SettingsError, match="base='adam': must be one of"):
        model.layer(match, batch["0"], REFERENCE, "adam")
    with pytest.raises(ConfigurationError, match=r"0 is on cpu.*costs on meta"):
        CostModel("meta").layer(match, batch["0"], REFERENCE, "sgd")
    with pytest.raises(ConfigurationError, match=r"batches=\[\]: must be at least one"):
        model.plain(network(), loss, [])
    lstm = nn.LSTM(3, 2)
    found = matches(lstm, REFERENCE)
    _, shown = observe(lstm, found, lambda: lstm(torch.randn(5, 4, 3))[0].square().mean())
    with pytest.raises(ReconstructionError, match="ih_l0: granularity 'kron' needs output gradients"):
        model.layer(found[0], shown["ih_l0"], FisherSettings(granularity="kron"), "sgd")


@pytest.mark.slow
@pytest.mark.parametrize("base", ["sgd", "adamw"])
def test_predicted_steps_are_the_measured_ones_but_for_noise(base):
    """Within a factor that only an error explains; ``sngd-tune bench cost`` tells how close they are."""
    from sngd_tune.bench.cost import CHOICES, measure

    chosen = {name for name, choice in CHOICES.items() if choice.base == base}
    rows = [row for row in measure(["mnist_mlp"], rounds=3) if row["setting"] in chosen]
    assert rows
    for row in rows:
        assert 0.5 < row["predicted_over_measured"] < 2, row
        assert 0.5 < row["predicted_ratio"] / row["ratio_amortized"] < 2, row
