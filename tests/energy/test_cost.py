"""What is known is computed, what is not stays unknown."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sngd_tune.energy.cost import Prices, Usage, break_even, payback, per_month, saved
from sngd_tune.errors import ConfigurationError
from sngd_tune.records.energy import SOURCES, Energy, by_source, total

amounts = st.floats(min_value=0, max_value=1e12)
prices = st.builds(Prices, device_hour=st.none() | st.floats(0, 1e4), kwh=st.none() | st.floats(0, 10))
energies = st.builds(Energy, amounts, st.sampled_from(SOURCES))
usages = st.builds(Usage, seconds=amounts, energy=st.none() | energies)
differences = st.floats(min_value=-1e12, max_value=1e12)


def test_a_bill_by_hand() -> None:
    used = Usage(seconds=7200, energy=Energy(3.6e6, "nvml"))
    assert used.cost(Prices(device_hour=3.0)) == 6.0
    assert used.cost(Prices(kwh=0.25)) == 0.25
    assert used.cost(Prices(device_hour=3.0, kwh=0.25)) == 6.25
    assert used.cost(Prices()) is None


def test_a_price_for_energy_that_is_not_known_makes_no_bill() -> None:
    assert Usage(seconds=7200).cost(Prices(device_hour=3.0, kwh=0.25)) is None


@pytest.mark.parametrize("price", [-1.0, math.nan, math.inf])
def test_what_is_no_price_is_refused(price: float) -> None:
    with pytest.raises(ConfigurationError, match=r"prices\.kwh=.*≥ 0"):
        Prices(kwh=price)


def test_tuning_is_paid_back_by_what_each_training_saves() -> None:
    tuning = Usage(seconds=1000, energy=Energy(900.0, "nvml")), Usage(seconds=100, energy=Energy(100.0, "nvml"))
    training = Usage(seconds=30, energy=Energy(50.0, "nvml")), Usage(seconds=70, energy=Energy(40.0, "nvml"))
    prices = Prices(device_hour=1.0)
    found = payback(saved(*tuning, prices), saved(training[1], training[0], prices))
    assert found.seconds == math.ceil(900 / 40)
    assert found.joules == math.inf  # it is faster and takes more energy
    assert found.cost == found.seconds


@given(extra=differences, saving=differences)
def test_after_a_break_even_the_savings_hold_the_extra_and_one_training_less_does_not(
    extra: float, saving: float
) -> None:
    trainings = break_even(extra, saving)
    assert trainings >= 0
    if saving <= 0:
        assert trainings == math.inf
    elif trainings < 2**52:  # counts are exact
        assert trainings.is_integer()
        assert trainings * saving >= extra * (1 - 1e-12)
        assert trainings == 0 or (trainings - 1) * saving <= extra * (1 + 1e-12)


@given(extra=differences, saving=st.floats(1e-6, 1e12), more=st.floats(0, 1e12))
def test_a_dearer_tuning_is_never_paid_back_sooner_and_a_larger_saving_never_later(
    extra: float, saving: float, more: float
) -> None:
    assert break_even(extra + more, saving) >= break_even(extra, saving)
    assert break_even(extra, saving + more) <= break_even(extra, saving)


@given(one=usages, other=usages, price=prices)
def test_what_one_saves_the_other_wastes(one: Usage, other: Usage, price: Prices) -> None:
    there, back = saved(one, other, price), saved(other, one, price)
    assert there.seconds == -back.seconds
    assert (there.joules is None) == (back.joules is None)
    if there.cost is not None:
        assert back.cost == -there.cost


@given(one=usages, other=usages, price=prices)
def test_a_bill_is_the_sum_of_its_parts_or_unknown(one: Usage, other: Usage, price: Prices) -> None:
    parts, whole = (one.cost(price), other.cost(price)), (one + other).cost(price)
    if whole is not None and None not in parts:
        assert whole == pytest.approx(sum(part for part in parts if part is not None), rel=1e-9)


def test_a_month_is_so_many_trainings() -> None:
    one = saved(Usage(seconds=10.0), Usage(seconds=4.0), Prices())
    assert per_month(one, 5).seconds == 30.0
    assert per_month(one, 5).joules is None


@given(one=energies, other=energies)
def test_energies_of_different_sources_are_neither_added_nor_subtracted(one: Energy, other: Energy) -> None:
    if one.source == other.source:
        assert (one + other - other).source == one.source
        assert total([one, other]) == one + other
        return
    for combine in (Energy.__add__, Energy.__sub__):
        with pytest.raises(ValueError, match="different sources are not added"):
            combine(one, other)
    assert total([one, other]) is None
    assert saved(Usage(seconds=1, energy=one), Usage(seconds=1, energy=other), Prices()).joules is None


@given(parts=st.lists(st.none() | energies, max_size=8))
def test_sums_by_source_leave_nothing_out_and_mix_nothing(parts: list[Energy | None]) -> None:
    sums = {each.source: each.joules for each in by_source(parts)}
    known = [each for each in parts if each is not None]
    assert sums.keys() == {each.source for each in known}
    for source, joules in sums.items():
        assert joules == pytest.approx(sum(each.joules for each in known if each.source == source))
