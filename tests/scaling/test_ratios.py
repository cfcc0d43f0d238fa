"""Does what a method adds grow faster along an axis than a step?"""

import json
import math

import numpy as np
import pytest

from sngd_tune.records.scaling import Measurement
from sngd_tune.scaling.curves import fit_curves
from sngd_tune.scaling.fits import NoFit, PowerLaw
from sngd_tune.scaling.ratios import Amount, ratio_of, ratios_of

WIDTHS = (64, 128, 256, 512, 1024, 2048)
OVERHEAD, PASSES = Amount("overhead_seconds", "sngd"), Amount("forward_backward_seconds", "sngd")
SNGD, SGD = Amount("step_seconds", "sngd"), Amount("step_seconds", "sgd")
METHODS = {
    "sngd": {"optimizer": "sngd", "base": "adamw"},
    "adamw": {"optimizer": "adamw"},
    "sgd": {"optimizer": "sgd"},
}


def at(value, seed, method, **measures):
    return Measurement(axis="width", value=value, method=method, seed=seed, measures=measures)


def steps(ratio, scatter=0.02, seeds=3, values=WIDTHS, generator=None):
    """Steps of sngd over those of sgd, each training with its own scatter."""
    generator = generator or np.random.default_rng(0)
    return [
        at(x, seed, method, step_seconds=1e-6 * x**2 * factor * math.exp(generator.normal(0, scatter)))
        for x in values
        for seed in range(seeds)
        for method, factor in (("sngd", ratio(x)), ("sgd", 1.0))
    ]


def test_a_ratio_is_taken_seed_by_seed_so_that_a_slow_machine_cancels():
    slow = iter([1.0, 3.0, 1.2, 0.7, 2.0] * 4)
    measured = [
        at(x, seed, "sngd", overhead_seconds=k * 1e-5 * x**1.5, forward_backward_seconds=k * 1e-6 * x**2)
        for x in WIDTHS
        for seed in range(2)
        for k in [next(slow)]
    ]
    law = ratio_of(measured, "width", OVERHEAD, PASSES).law
    assert law.exponent == pytest.approx(-0.5)
    assert law.high < -0.49
    apart = {each.measure: each.law for each in fit_curves(measured)}
    assert apart["overhead_seconds"].high - apart["overhead_seconds"].low > 0.1


@pytest.mark.parametrize(
    ("power", "scatter", "verdict"),
    [(0.2, 0.01, "grows"), (-0.2, 0.01, "falls"), (0.0, 0.02, "does not grow"), (0.0, 1.0, "open")],
)
def test_the_verdict_is_by_the_interval_of_the_exponent(power, scatter, verdict):
    ratio = ratio_of(steps(lambda x: x**power, scatter), "width", SNGD, SGD)
    assert ratio.verdict == verdict
    assert ratio.law.low <= power <= ratio.law.high


def test_a_ratio_with_a_hump_follows_no_one_power_and_the_last_decade_decides():
    def hump(x):
        return 1.5 + 1.2 * math.exp(-((math.log2(x) - 7) ** 2))

    ratio = ratio_of(steps(hump, scatter=0.01), "width", SNGD, SGD)
    assert ratio.misfit < 1e-3
    assert (ratio.last.start, ratio.last.stop) == (256, 2048)
    assert ratio.law is ratio.last
    mean, low, high = ratio.at(128)
    assert low < hump(128) < high
    assert mean == pytest.approx(2.7, rel=0.05)


def test_a_power_law_is_rejected_as_seldom_as_the_test_says():
    generator = np.random.default_rng(1)
    found = [ratio_of(steps(lambda x: x**0.1, 0.05, generator=generator), "width", SNGD, SGD) for _ in range(200)]
    rejected = sum(ratio.last is not None for ratio in found) / len(found)
    assert 0.01 < rejected < 0.11
    assert sum(ratio.whole.low <= 0.1 <= ratio.whole.high for ratio in found) > 0.9 * len(found)


def test_with_one_seed_the_misfit_is_unknown_and_the_ratio_at_a_value_is_open():
    ratio = ratio_of(steps(lambda x: 2.0, seeds=1), "width", SNGD, SGD)
    assert (ratio.misfit, ratio.last) == (None, None)
    mean, *ends = ratio.at(64)
    assert (mean, ends) == (pytest.approx(2.0, rel=0.1), [0.0, math.inf])
    assert json.loads(json.dumps(ratio.to_dict(), allow_nan=False))["points"][0]["high"] is None


def test_what_a_step_takes_beyond_one_of_the_base_optimizer_is_its_overhead_over_that_optimizer():
    measured = [
        at(x, seed, method, step_seconds=seconds, overhead_seconds=seconds / 4)
        for x in WIDTHS
        for seed in range(2)
        for method, seconds in (("sngd", 3e-6 * x**2), ("adamw", 2e-6 * x**2), ("sgd", 1e-6 * x**2))
    ]
    found = {(each.over.measure, each.over.beyond, each.under.method): each for each in _all(measured)}
    assert set(found) == {
        (measure, beyond, under)
        for measure, beyond in (("overhead_seconds", None), ("step_seconds", "adamw"), ("step_seconds", None))
        for under in ("adamw", "sgd")
    }
    beyond = found["step_seconds", "adamw", "sgd"]
    assert beyond.values == {x: pytest.approx((1.0, 1.0)) for x in WIDTHS}
    assert beyond.law.exponent == pytest.approx(0, abs=1e-9)


def _all(measured):
    return ratios_of(measured, ("width", "depth"), METHODS)


def test_a_step_that_takes_no_longer_than_its_base_has_no_power_and_says_so():
    ratio = ratio_of(steps(lambda x: 1.0, scatter=0.1), "width", Amount("step_seconds", "sngd", "sgd"), SGD)
    assert isinstance(ratio.law, NoFit)
    assert ratio.verdict == "open"
    assert "it is not above 0 in a training at" in ratio.law.reason
    negative = next(value for value, found in ratio.values.items() if min(found) < 0)
    assert math.isnan(ratio.at(negative)[0])


def test_words_have_ratios_and_no_law():
    ratio = ratio_of(steps(lambda x: 2.0, values=(1, 2)), "width", SNGD, SGD)
    named = [
        Measurement(axis="root", value=f"r{each.value}", method=each.method, seed=each.seed, measures=each.measures)
        for each in steps(lambda x: 2.0, values=(1, 2))
    ]
    words = ratio_of(named, "root", SNGD, SGD)
    assert list(words.values) == ["r1", "r2"]
    assert "no numbers" in words.law.reason
    assert "an exponent needs 3" in ratio.law.reason


def test_what_was_not_measured_of_both_has_no_ratio():
    measured = steps(lambda x: 2.0)
    assert ratio_of(measured, "depth", SNGD, SGD) is None
    assert ratio_of([each for each in measured if each.method == "sngd"], "width", SNGD, SGD) is None
    lonely = [each for each in measured if (each.method, each.seed) != ("sgd", 0)]
    assert isinstance(ratio_of(lonely, "width", SNGD, SGD).law, PowerLaw)
    assert all(len(found) == 2 for found in ratio_of(lonely, "width", SNGD, SGD).values.values())
