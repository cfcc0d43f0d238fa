"""Theory's exponents, against those that the cost model goes by, and beside measured ones."""

import pytest

from sngd_tune.scaling.theory import expected_exponent
from sngd_tune.selection.cost.trial import _DENSE, _FLAT, _GROWTH

PARTS = ("statistics", "refresh", "update", "state")


@pytest.mark.parametrize(
    ("granularity", "rank", "growth"),
    [
        ("diagonal", None, _FLAT),
        ("block:64", None, _FLAT),
        ("input", 16, _FLAT),
        ("input", None, _DENSE),
        ("kron", None, _DENSE),
        ("unit", None, _GROWTH["unit"]),
        ("layer", None, _GROWTH["layer"]),
    ],
)
def test_the_exponents_are_those_that_the_cost_model_extrapolates_by(granularity, rank, growth):
    found = [expected_exponent(part, "width", granularity, rank=rank) for part in PARTS]
    assert found == [growth.statistics, growth.refresh, growth.update, growth.state]


def test_intervals_batches_and_ranks_enter_where_they_belong():
    assert expected_exponent("refresh", "fisher_interval") == -1
    assert expected_exponent("statistics", "statistics_interval") == -1
    assert expected_exponent("update", "fisher_interval") == 0
    assert expected_exponent("statistics", "batch_size") == expected_exponent("forward_backward", "batch_size") == 1
    assert expected_exponent("refresh", "batch_size") == 0
    assert expected_exponent("update", "rank", rank=16) == 1
    assert expected_exponent("update", "rank") is None  # a dense root has none
    assert expected_exponent("update", "colour") is None


@pytest.mark.parametrize("granularity", ["diagonal", "block:64", "input", "kron", "unit", "layer"])
def test_ranks_exchange_gradients_and_the_state(granularity):
    state = expected_exponent("state", "width", granularity)
    assert expected_exponent("communication", "width", granularity) == max(2, state)
    assert expected_exponent("communication", "batch_size", granularity) == 0
    assert expected_exponent("communication", "statistics_interval", granularity) is None  # gradients go every step
