"""The choice over layers: budgets, the best per second, layers without a signal, and what an error says."""

from dataclasses import replace

import pytest

from sngd_tune.errors import ConfigurationError
from sngd_tune.selection.candidates import Candidate, Curve
from sngd_tune.selection.choose import INTERVALS, Budget, LayerOptions, choose, layer_options
from sngd_tune.settings import FisherSettings

LOW = FisherSettings(rank=4)
DENSE = FisherSettings(root="eigh")


def candidate(name: str, settings: FisherSettings, fresh: float, old: float | None = None) -> Candidate:
    by_age = {0: fresh} if old is None else {0: fresh, 40: old}
    return Candidate(name, settings, {1.0: Curve(1.0, by_age)})


def price(settings: FisherSettings) -> tuple[float, int]:
    """Dense: dear in time and memory, and its refreshes, too."""
    return (0.1, 10) if settings.rank else (0.5 + 5 / settings.fisher_interval, 1000)


def layer(name: str, low: float, dense: float, plain: float = 1.0) -> LayerOptions:
    found = [candidate("low", LOW, low), candidate("dense", DENSE, dense)]
    return layer_options(name, plain, found, price)


def names(layers: list[LayerOptions], budget: Budget) -> list[str]:
    return [each.name for each in choose(layers, budget).layers]


def test_with_room_every_layer_gets_its_best() -> None:
    layers = [layer("a", 3, 9), layer("b", 3, 2)]
    assert names(layers, Budget(plain=1, sgd=1, step=9)) == ["dense", "low"]


def test_a_tight_budget_goes_where_it_gains_most() -> None:
    layers = [layer("a", 2, 9), layer("b", 2, 4)]
    assert names(layers, Budget(plain=1, sgd=1, step=1.65)) == ["dense", "low"]
    assert names(layers, Budget(plain=1, sgd=1, step=1.21)) == ["low", "low"]
    assert names(layers, Budget(plain=1, sgd=1, step=9, memory=1500)) == ["dense", "low"]


def test_without_a_budget_the_best_decrease_per_second_counts() -> None:
    cheap, dear = Budget(plain=10, sgd=10), Budget(plain=0.5, sgd=0.5)
    layers = [layer("a", 3, 4)]
    assert names(layers, cheap) == ["dense"]  # half a second of ten is little
    assert names(layers, dear) == ["low"]


def test_a_root_that_ages_fast_is_refreshed_often_where_that_is_cheap() -> None:
    found = [candidate("low", LOW, 9, old=2.0)]
    (fast,) = choose([layer_options("a", 1.0, found, price)], Budget(plain=1, sgd=1)).layers
    assert fast.settings is not None and fast.settings.fisher_interval == INTERVALS[0]
    assert fast.settings.statistics_interval == INTERVALS[0] // 2
    dense = [candidate("dense", DENSE, 9, old=8.9)]
    (slow,) = choose([layer_options("a", 1.0, dense, price)], Budget(plain=1, sgd=1)).layers
    assert slow.settings is not None and slow.settings.fisher_interval == INTERVALS[-1]


def test_a_layer_that_gains_nothing_for_its_price_trains_plainly_and_says_so() -> None:
    (_, second) = choose([layer("a", 9, 9), layer("b", 1.0, 0.9)], Budget(plain=1, sgd=1)).layers
    assert (second.settings, second.name) == (None, "none")
    assert "nothing gains enough" in second.reason


def test_a_layer_without_a_signal_gets_what_the_others_gain_most_from() -> None:
    silent = LayerOptions(
        "b", 0.0, layer("b", 1, 1).names, layer("b", 1, 1).settings, (0.0,) * 11, layer("b", 1, 1).prices
    )
    choice = choose([layer("a", 30, 2), silent], Budget(plain=1, sgd=1, step=9))
    assert choice.layers[1].name == "low"
    assert "noise" in choice.layers[1].reason


def test_the_choice_is_explained_with_the_strongest_other() -> None:
    (found,) = choose([layer("a", 3, 4)], Budget(plain=0.5, sgd=0.5)).layers
    assert "× 3.0 for 20.0 %" in found.reason
    assert "dense has × 4.0" in found.reason
    assert {each.name for each in found.alternatives} == {"low", "dense"}


def test_what_is_not_within_a_budget_is_told_with_the_cheapest_choice() -> None:
    with pytest.raises(
        ConfigurationError, match=r"step_budget=1\.05: .*cheapest is low in a, with a step of 1\.20 × SGD"
    ):
        choose([layer("a", 3, 4)], Budget(plain=1.1, sgd=1, step=1.05))
    with pytest.raises(ConfigurationError, match=r"memory_budget=5: .* 10 bytes"):
        choose([layer("a", 3, 4)], Budget(plain=1, sgd=1, memory=5))


@pytest.mark.parametrize("values", [{"step": 0.99}, {"step": float("nan")}, {"memory": 0}])
def test_budgets_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="must be"):
        replace(Budget(plain=1, sgd=1), **values)


def test_gain_and_bound_are_in_units_of_the_plain_decrease() -> None:
    choice = choose([layer("a", 3, 9), layer("b", 3, 2)], Budget(plain=1, sgd=1, step=9))
    assert choice.progress == pytest.approx((9 + 3) / 2)
    assert choice.bound == pytest.approx(choice.progress)  # so few layers are solved exactly
    assert choice.seconds == pytest.approx(0.1 + 0.5 + 5 / 200)
