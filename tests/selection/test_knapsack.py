"""The knapsack against brute force."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sngd_tune.selection.knapsack import Option, front

costs = st.integers(0, 20).map(float)
options = st.builds(Option, st.integers(-5, 30).map(float), costs, costs)
layers = st.lists(st.lists(options, min_size=1, max_size=4), min_size=1, max_size=5)


def brute_force(choices: list[list[Option]], seconds: float, room: float) -> float | None:
    every = itertools.product(*choices)
    within = [c for c in every if sum(o.seconds for o in c) <= seconds and sum(o.bytes for o in c) <= room]
    return max((sum(o.value for o in c) for c in within), default=None)


@given(layers, st.integers(0, 60), st.integers(0, 60) | st.just(math.inf))
def test_the_best_within_any_budget_is_that_of_brute_force(
    choices: list[list[Option]], seconds: float, room: float
) -> None:
    found = front(choices)
    best = found.best(seconds, room)
    assert found.exact
    assert (best.value if best else None) == brute_force(choices, seconds, room)
    if best:
        chosen = [options[i] for options, i in zip(choices, best.chosen, strict=True)]
        assert (best.value, best.seconds, best.bytes) == (
            sum(o.value for o in chosen),
            sum(o.seconds for o in chosen),
            sum(o.bytes for o in chosen),
        )


@given(layers, st.integers(0, 60))
def test_the_bound_is_one(choices: list[list[Option]], seconds: float) -> None:
    exact = brute_force(choices, seconds, math.inf)
    bound = front(choices).bound(seconds)
    assert bound == -math.inf if exact is None else bound >= exact - 1e-9


@given(layers)
def test_the_cheapest_takes_each_layers_cheapest_option(choices: list[list[Option]]) -> None:
    assert front(choices).cheapest().seconds == sum(min(o.seconds for o in options) for options in choices)


@given(layers, st.integers(0, 60))
def test_a_thinned_front_stays_between_its_answer_and_the_bound(choices: list[list[Option]], seconds: float) -> None:
    thin = front(choices, most=4)
    best, exact = thin.best(seconds), brute_force(choices, seconds, math.inf)
    assert (best is None) == (exact is None)  # the cheapest always stays
    if best is not None and exact is not None:
        assert best.value <= exact <= thin.bound(seconds) + 1e-9


def test_many_layers_are_thinned_and_stay_close_to_the_bound() -> None:
    choices = [[Option(math.sqrt(j * (i + 3)), 0.3 * j * (1 + math.sin(i) ** 2)) for j in range(6)] for i in range(40)]
    found = front(choices)
    budget = 0.5 * found.points[-1].seconds
    best = found.best(budget)
    assert best is not None and not found.exact
    assert best.value >= 0.98 * found.bound(budget)


def test_by_another_key_the_best_ratio_is_found() -> None:
    choices = [[Option(1.0, 1.0), Option(5.0, 2.0), Option(6.0, 9.0)]]
    best = front(choices).best(key=lambda point: point.value / point.seconds)
    assert best is not None and best.chosen == (1,)


def test_nothing_within_the_budget_is_none() -> None:
    assert front([[Option(1.0, 2.0)]]).best(1.0) is None
    assert front([[Option(1.0, 2.0)]]).cheapest().seconds == pytest.approx(2.0)
