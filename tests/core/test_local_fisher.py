"""Running estimates, schedule and diagnosis of one layer."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sngd_tune.core import dense
from sngd_tune.core.inputs import Rows
from sngd_tune.core.layers.base import Seen, Shape
from sngd_tune.core.local_fisher import LocalFisher
from sngd_tune.core.schedule import Offset, refresh_due, statistics_due
from sngd_tune.core.stopwatch import Stopwatch
from sngd_tune.settings import FisherSettings
from tests.core.problems import SETTINGS, settings

D = 7


def seen(x):
    return Seen(Rows.of(x, bias=False), None, lambda gradient: gradient)


def observed(chosen, count=5, d=D, seed=0):
    """The layer after `count` steps of a batch each, the last not closed yet; all before it belong to the warm-up."""
    fisher = LocalFisher(Shape((), 3, d), replace(chosen, warmup_batches=count - 1), dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    data = [torch.randn(11, d, generator=generator, dtype=torch.float64) + 0.5 for _ in range(count)]
    for a in data[:-1]:
        fisher.observe(seen(a))
        fisher.advance()
    fisher.observe(seen(data[-1]))
    return fisher, data


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.95])
def test_the_average_is_corrected_for_its_start(decay):
    fisher, data = observed(settings("input-eigh", decay=decay))
    weights = [(1 - decay) * decay ** (4 - t) for t in range(5)]
    expected = sum(w * dense.fisher(a) for w, a in zip(weights, data, strict=True)) / sum(weights)
    torch.testing.assert_close(fisher.snapshot().value, expected)


def test_leading_dimensions_count_as_examples():
    flat, batched = (LocalFisher(Shape((), 3, D), settings("input-eigh"), dtype=torch.float64) for _ in range(2))
    a = torch.randn(4, 3, D, dtype=torch.float64)
    flat.observe(seen(a.view(12, D)))
    batched.observe(seen(a))
    torch.testing.assert_close(flat.snapshot().value, batched.snapshot().value)


@pytest.mark.parametrize("name", SETTINGS)
def test_several_passes_of_a_step_are_one_batch(name):
    """From the very first step on, whatever their sizes, and after a resume."""
    joint, split, resumed = (LocalFisher(Shape((), 3, D), settings(name), dtype=torch.float64) for _ in range(3))
    generator = torch.Generator().manual_seed(0)
    for step in range(4):
        a = torch.randn(12, D, generator=generator, dtype=torch.float64)
        layer = split if step < 2 else resumed
        joint.observe(seen(a))
        for part in a.split([2, 7, 3]):
            layer.observe(seen(part))
        joint.advance()
        layer.advance()
        if step == 1:
            resumed.load_state_dict(split.state_dict())
    left, right = joint.state_dict(), resumed.state_dict()
    assert joint.refreshes == resumed.refreshes == 2
    for key in [key for key in left if key.startswith("state_")]:
        torch.testing.assert_close(right[key], left[key], rtol=1e-11, atol=1e-11)


def test_passes_that_come_to_be_several_count_once_they_do():
    """There is no state from before that step; its first pass stands for it, and from the next step on all count."""
    fisher, data = observed(settings("input-eigh", decay=0.5), count=3)
    fisher.observe(seen(data[0]))
    three = (dense.fisher(data[0]) + 2 * dense.fisher(data[1]) + 4 * dense.fisher(data[2])) / 7
    torch.testing.assert_close(fisher.snapshot().value, three)
    fisher.advance()
    fisher.observe(seen(data[0]))
    fisher.observe(seen(data[1]))
    both = (dense.fisher(data[0]) + dense.fisher(data[1])) / 2
    torch.testing.assert_close(fisher.snapshot().value, (7 * three + 8 * both) / 15)


def test_an_empty_batch_changes_nothing():
    fisher, _ = observed(settings("input-eigh"))
    before = fisher.snapshot().value
    fisher.observe(seen(torch.empty(0, D, dtype=torch.float64)))
    assert torch.equal(fisher.snapshot().value, before)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_layer_applies_the_transposed_root_and_starts_as_the_identity(name):
    fisher, _ = observed(settings(name, warmup_batches=0))
    a = torch.randn(2, 3, D, dtype=torch.float64)
    torch.testing.assert_close(fisher(a), a)
    fisher.advance()
    assert fisher.refreshes == 1
    R = fisher.root.apply(torch.eye(D, dtype=torch.float64))
    torch.testing.assert_close(fisher(a), a @ R)


@pytest.mark.parametrize("name", SETTINGS)
def test_diagnosis_agrees_with_dense_algebra(name):
    chosen = settings(name)
    fisher, data = observed(chosen)
    weights = torch.tensor([chosen.decay ** (4 - t) for t in range(5)], dtype=torch.float64)
    G = dense.restrict(
        torch.einsum("t,tij->ij", weights / weights.sum(), torch.stack([dense.fisher(a) for a in data])), chosen
    )
    if name == "input-nystrom-2":
        G = dense.low_rank(G, 2)
    snapshot, values = fisher.snapshot(), torch.linalg.eigvalsh(G)
    assert snapshot.condition_number(0.3) == pytest.approx(float((values[-1] + 0.3) / (values[0] + 0.3)), rel=0.05)
    assert snapshot.effective_rank() == pytest.approx(float(values.sum() ** 2 / values.square().sum()), rel=0.05)


@pytest.mark.parametrize("name", SETTINGS)
def test_drift_is_zero_for_itself_and_relative_to_the_one_before(name):
    fisher, _ = observed(settings(name))
    before = fisher.snapshot()
    assert before.drift(before) == pytest.approx(0, abs=1e-6)
    doubled, _ = observed(settings(name, decay=0.0), count=1)
    small = doubled.snapshot()
    doubled.advance()
    doubled.observe(seen(observed(settings(name), count=1)[1][0] * 2**0.5))
    assert doubled.snapshot().drift(small) == pytest.approx(1.0, rel=1e-6)


def test_state_survives_a_change_of_precision():
    fisher, _ = observed(settings("input-cholesky", warmup_batches=0))
    fisher.advance()
    a = torch.randn(2, D)
    torch.testing.assert_close(
        fisher.float()(a),
        (a.double() @ fisher.double().root.apply(torch.eye(D).double())).float(),
        rtol=1e-4,
        atol=1e-4,
    )


@hypothesis_settings(deadline=None, max_examples=60)
@given(interval=st.integers(1, 70), statistics=st.integers(1, 70), schedule=st.sampled_from(["thinning", "fixed"]))
def test_schedule(interval, statistics, schedule):
    offset = Offset()
    chosen = FisherSettings(
        fisher_interval=interval, statistics_interval=statistics, refresh_schedule=schedule, warmup_batches=4
    )
    steps = range(-4, 200)
    refreshes = [step for step in steps if refresh_due(step, chosen, offset)]
    assert refreshes[0] == 0
    assert set(range(0, 200, interval)) <= set(refreshes)
    assert max(later - earlier for earlier, later in pairwise(refreshes)) <= interval
    if schedule == "fixed":
        assert refreshes == list(range(0, 200, interval))
    assert all(statistics_due(step, chosen, offset) for step in [*range(-4, 0), *refreshes, *range(0, 200, statistics)])


def test_stopwatch_takes_inner_parts_out_of_outer_ones(monkeypatch):
    now = iter([0.0, 1.0, 4.0, 10.0])
    monkeypatch.setattr("sngd_tune.core.stopwatch.time.perf_counter", lambda: next(now))
    watch = Stopwatch("cpu")
    with watch("outer"), watch("inner"):
        pass
    assert dict(watch.seconds) == {"inner": 3.0, "outer": 7.0}
