"""The critical batch size, from trainings that reached a target and trainings that missed it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sngd_tune.scaling.critical_batch import CriticalBatch, fit_critical_batch
from sngd_tune.scaling.fits import NoFit

BATCHES = np.repeat([16, 32, 64, 128, 256, 512], 3)


def steps_of(batches, size, least=500.0, noise=0.0, seed=0):
    return least * (1 + size / batches) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(batches)))


@settings(max_examples=20, deadline=None)
@given(size=st.floats(20, 400), least=st.floats(10, 1e5))
def test_a_known_critical_batch_is_found(size, least):
    found = fit_critical_batch(BATCHES, steps_of(BATCHES, size, least))
    assert found.size == pytest.approx(size, rel=1e-3)
    assert found.least_steps == pytest.approx(least, rel=1e-3)
    examples = found.least_examples
    for batch in (16, 100, 4096):  # the hyperbola of McCandlish et al.
        steps = found.steps(batch)
        assert (steps / found.least_steps - 1) * (batch * steps / examples - 1) == pytest.approx(1)


def test_the_interval_holds_the_size_as_often_as_it_says():
    found = [fit_critical_batch(BATCHES, steps_of(BATCHES, 100, noise=0.2, seed=seed)) for seed in range(40)]
    assert sum(each.low <= 100 <= each.high for each in found) >= 34


def test_a_missed_target_counts_as_more_steps_than_there_were():
    steps = steps_of(BATCHES, 100, noise=0.1)
    missed = np.where(steps > 2200, math.inf, steps)
    assert 0 < np.isinf(missed).sum() < 8
    whole = fit_critical_batch(BATCHES, steps)
    censored = fit_critical_batch(BATCHES, missed, [2200] * len(BATCHES))
    assert censored.missed == np.isinf(missed).sum()
    assert censored.size == pytest.approx(whole.size, rel=0.2)
    assert censored.low < 100 < censored.high


def test_leaving_the_missed_out_would_have_flattered_small_batches():
    steps = steps_of(BATCHES, 100, noise=0.4, seed=3)
    reached = steps <= 2200
    dropped = fit_critical_batch(BATCHES[reached], steps[reached])
    censored = fit_critical_batch(BATCHES, np.where(reached, steps, math.inf), [2200] * len(BATCHES))
    assert dropped.size < censored.size


def test_a_size_beyond_all_batches_is_marked_and_its_interval_open():
    small = fit_critical_batch([16, 32, 64], steps_of(np.array([16, 32, 64]), 1e6), None)
    assert isinstance(small, NoFit)  # three trainings for three numbers
    found = fit_critical_batch(BATCHES, steps_of(BATCHES, 1e6, noise=0.1))
    assert isinstance(found, CriticalBatch)
    assert found.extrapolated
    assert found.high == math.inf
    assert found.to_dict()["high"] is None
    flat = fit_critical_batch(BATCHES, steps_of(BATCHES, 1e-3, noise=0.1))
    assert flat.low == 0


@pytest.mark.parametrize(
    ("batches", "steps", "budgets", "reason"),
    [
        ([16, 16, 32, 32, 32], [9, 9, 5, 5, 5], None, "2 batch sizes"),
        ([16, 32, 64, 128, 256], [9, 5, 3, 2, math.inf], None, "not known"),
        ([16, 32, 64, 128, 256], [9, 5, 3, 0, 2], None, "above 0"),
    ],
)
def test_what_bears_no_fit_is_refused_with_the_reason(batches, steps, budgets, reason):
    found = fit_critical_batch(batches, steps, budgets)
    assert isinstance(found, NoFit)
    assert reason in found.reason
