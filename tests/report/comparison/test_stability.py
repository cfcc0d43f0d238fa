import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sngd_tune.records.outcome import Outcome
from sngd_tune.report.comparison.runs import MethodResults
from sngd_tune.report.comparison.stability import Count, loss_spikes, stability
from tests.report.comparison.cells import FAST, MISSING, TARGET, empty, epoch, failing, method, trial


def _spikes(*losses: float) -> int:
    return loss_spikes([epoch(n, 1.0, training_loss=loss) for n, loss in enumerate(losses, start=1)])


@pytest.mark.parametrize(
    ("losses", "spikes"),
    [
        ((), 0),
        ((1.0,), 0),
        ((2.0, 1.0, 1.09), 0),  # a tenth of the gain of 1 is allowed
        ((2.0, 1.0, 1.11), 1),
        ((2.0, 1.0, 1.5, 1.4, 1.3), 1),  # one, as long as it lasts
        ((2.0, 1.0, 1.5, 0.9, 1.5), 2),
        ((1.0, 2.0, 3.0), 0),  # nothing was gained
        ((2.0, 1.0, math.nan, math.inf), 1),
        ((math.nan, 2.0, 1.0, 1.05), 1),
        ((math.nan, 2.0, 1.0, 1.5), 2),
    ],
)
def test_spikes(losses: tuple[float, ...], spikes: int) -> None:
    assert _spikes(*losses) == spikes


@given(st.lists(st.floats(0.01, 100), max_size=30), st.floats(0.001, 1000))
def test_spikes_know_no_unit_and_no_descent_has_any(losses: list[float], unit: float) -> None:
    assert _spikes(*sorted(losses, reverse=True)) == 0
    # a power of two scales without rounding
    scale = 2.0 ** round(math.log2(unit))
    assert _spikes(*(scale * loss for loss in losses)) == _spikes(*losses)


def test_counts_and_spreads_of_a_method() -> None:
    times = (1.0, math.e, math.inf)
    found = stability(method(times, accuracy=(0.90, 0.91, 0.92)), TARGET)
    assert found.seeds_reached == Count(count=2, of=3)
    assert found.settings_reached == Count(count=4, of=4)
    assert found.failed == Count(count=0, of=7)
    assert found.spikes == Count(count=0, of=3)
    assert (found.metric, found.metric_deviation) == ("test_accuracy", pytest.approx(0.01))
    assert found.log_time_deviation == pytest.approx(math.sqrt(0.5))


def test_a_stopped_setting_has_reached_only_what_it_reached() -> None:
    results = method(FAST)
    stopped = trial(9, 0.9, outcome=Outcome.STOPPED_EARLY)
    results = MethodResults(config=results.config, trials=[*results.trials, stopped], epochs=results.epochs)
    assert stability(results, TARGET).settings_reached == Count(count=4, of=5)


def test_what_runs_does_not_count() -> None:
    results = method(FAST)
    running = trial(9, None, outcome=Outcome.RUNNING)
    results = MethodResults(config=results.config, trials=[*results.trials, running], epochs=results.epochs)
    assert stability(results, TARGET).failed == Count(count=0, of=9)


def test_failures_are_counted_by_kind() -> None:
    found = stability(failing(), TARGET)
    assert (found.failed, found.diverged) == (Count(count=4, of=4), Count(count=1, of=4))
    assert found.settings_reached == Count(count=0, of=4)
    assert (found.metric, found.metric_deviation, found.log_time_deviation) == (None, None, None)


def test_nothing_has_no_share() -> None:
    found = stability(empty(), TARGET)
    assert found.failed.share is None
    assert found.seeds_reached.share is None


def test_one_seed_and_no_reach_have_no_spread() -> None:
    assert stability(method((1.0,)), TARGET).metric_deviation is None
    assert stability(method(MISSING), TARGET).log_time_deviation is None


def test_a_workload_without_accuracy_is_spread_by_its_loss() -> None:
    results = method(FAST)
    plain = [dataclasses.replace(each, test_accuracy=None) for each in results.trials]
    found = stability(MethodResults(config=results.config, trials=plain, epochs=results.epochs), TARGET)
    assert found.metric == "test_loss"
