import math
import random
import statistics
from collections.abc import Sequence

import pytest

from sngd_tune.energy.cost import Amounts, Prices, Usage
from sngd_tune.records.attempts import Attempts, Lost
from sngd_tune.records.energy import Energy
from sngd_tune.report.decision.savings import Saving, savings
from sngd_tune.report.decision.values import Economy
from tests.report.comparison.cells import FAST, SLOW, method, workload
from tests.report.decision.comparisons import MIXED, decision, powered, told

PRICES = Prices(device_hour=3600.0, kwh=3.6e6)  # so a second costs 1, and a joule 1


def trainings(seconds: Sequence[float], watts: float = 10.0) -> dict[int, Usage | None]:
    """By seed; infinite seconds are a miss."""
    return {
        seed: None if math.isinf(each) else Usage(seconds=each, energy=Energy(watts * each, "nvml"))
        for seed, each in enumerate(seconds)
    }


def found(own: Sequence[float], baseline: Sequence[float], watts: float = 10.0) -> Saving:
    """The candidate at so many watts, the baseline at 10."""
    saving = savings(trainings(own, watts), trainings(baseline), PRICES)
    assert saving is not None
    return saving


def test_a_saving_is_the_median_over_the_pairs_with_the_interval_of_the_sign_test() -> None:
    saving = found([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 5.0, 5.0, 8.0, 10.0])
    assert saving.typical == Amounts(seconds=3.0, joules=30.0, cost=33.0)
    assert saving.interval is not None
    assert saving.interval.low == Amounts(seconds=1.0, joules=10.0, cost=11.0)
    assert saving.interval.high == Amounts(seconds=5.0, joules=50.0, cost=55.0)
    assert saving.interval.coverage == pytest.approx(0.9375)


def test_each_amount_is_told_from_nothing_by_itself() -> None:
    saving = found([1.0, 1.1, 1.2, 0.9, 1.0], [2.0] * 5, watts=20.0)
    assert saving.shown == ("seconds",)  # twice the watts in half the time: as much energy, more or less
    assert found([2.0] * 5, [1.0] * 5).shown == ("seconds", "joules", "cost")  # a loss is shown as well


def test_a_miss_is_an_infinite_loss_and_two_are_none() -> None:
    saving = found([1.0, 1.0, 1.0, 1.0, math.inf], [2.0] * 5)
    assert saving.typical.seconds == 1.0
    assert saving.interval is not None
    assert (saving.interval.low.seconds, saving.interval.high.seconds) == (-math.inf, 1.0)
    assert saving.shown == ()
    both = found([1.0] * 4 + [math.inf], [2.0] * 4 + [math.inf])
    assert both.interval is not None
    assert both.interval.low.seconds == 0.0


def test_four_pairs_have_no_interval_and_none_no_saving() -> None:
    assert found([1.0] * 4, [2.0] * 4).interval is None
    assert savings({1: Usage(seconds=1.0)}, {2: Usage(seconds=1.0)}, PRICES) is None


def test_months_and_paybacks_have_the_ends_computed_alike() -> None:
    saving = found([1.0] * 5, [3.0, 5.0, 3.0, 3.0, 2.0])
    month, interval = saving.each_month(100.0)
    assert interval is not None
    assert (month.seconds, interval.low.seconds, interval.high.seconds) == (200.0, 100.0, 400.0)
    again, interval = saving.pays_back(Amounts(seconds=100.0, joules=None, cost=None))
    assert interval is not None
    assert (again.seconds, interval.low.seconds, interval.high.seconds) == (50.0, 25.0, 100.0)
    unsure, interval = found([1.0] * 5, [3.0, 0.5, 3.0, 3.0, 2.0]).pays_back(month)
    assert interval is not None
    assert unsure.seconds < interval.high.seconds == math.inf


@pytest.mark.parametrize("pairs", [5, 8, 10])
def test_the_interval_covers_the_true_saving(pairs: int) -> None:
    """94 % with five pairs, 95 % with more; seeds differ, and both methods share what makes them do so."""
    source, draws, covered = random.Random(5), 1000, 0

    def pair() -> tuple[float, float]:
        shared = math.exp(source.gauss(0, 0.3))
        return shared * math.exp(source.gauss(0, 0.2)), 1.4 * shared * math.exp(source.gauss(0, 0.2))

    truth = statistics.median(other - own for own, other in (pair() for _ in range(50_000)))
    for _ in range(draws):
        own, other = zip(*(pair() for _ in range(pairs)), strict=True)
        interval = found(own, other).interval
        assert interval is not None
        covered += interval.low.seconds <= truth <= interval.high.seconds
    assert 0.92 < covered / draws < 0.98


def economy(*seconds: Sequence[float], attempts: Attempts | None = None) -> Economy:
    own, other = (powered(method(each), 10.0) for each in seconds)
    if attempts is not None:
        own = type(own)(config=own.config, trials=own.trials, epochs=own.epochs, attempts=attempts)
    found = decision(workload(sngd=own, adamw=other)).evidence[0].economy
    assert found is not None
    return found


def test_what_was_lost_and_trained_again_belongs_to_the_tuning() -> None:
    whole = economy(FAST, SLOW)
    lost = Attempts(begun=10, cut_off=1, lost=(Lost(5.0, Energy(50.0, "nvml")),))
    cut = economy(FAST, SLOW, attempts=lost)
    assert whole.tuning.energy is not None
    assert cut.tuning == Usage(seconds=whole.tuning.seconds + 5.0, energy=whole.tuning.energy + Energy(50.0, "nvml"))
    assert economy(FAST, SLOW, attempts=Attempts(begun=10, cut_off=1, lost=(Lost(5.0, None),))).tuning.energy is None


@pytest.mark.parametrize(
    ("language", "said"),
    [("en", "Time saved on a and b: not told from zero"), ("ja", "a、bの時間の削減量は、信頼区間がゼロを含み")],
)
def test_a_saving_that_is_not_told_from_zero_is_said_in_words(language: str, said: str) -> None:
    unsure = [workload(name, sngd=method(MIXED), adamw=method(SLOW)) for name in ("a", "b")]
    parts = {part.name: part for part in told(decision(*unsure), language).parts}
    (risks,) = parts["risks"].blocks
    assert any(item.startswith(said) for item in risks.items)  # type: ignore[union-attr]
    (savings,) = parts["savings"].blocks
    assert "\n" in savings.cells[0][1]  # type: ignore[union-attr]
