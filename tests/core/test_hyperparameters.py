"""Every argument of `SNGD` is checked when it is made, and the message names value, rule and remedy."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sngd_tune import SNGD
from sngd_tune.core.hyperparameters import check_hyperparameters
from sngd_tune.errors import SettingsError
from tests.core.problems import network

GOOD = {
    "lr": 0.1,
    "momentum": 0.9,
    "nesterov": True,
    "betas": (0.9, 0.999),
    "eps": 1e-8,
    "weight_decay": 0.0,
    "seed": 0,
    "max_skipped": 10,
}
BAD = {
    "lr": [0, -1, math.nan, math.inf, "0.1", True],
    "momentum": [1, -0.1, math.nan, "0.9"],
    "nesterov": [1, "yes"],
    "betas": [0.9, (0.9,), (0.9, 0.99, 0.999), (1.0, 0.9), (0.9, math.nan)],
    "eps": [0, -1e-8, math.nan, math.inf],
    "weight_decay": [-1e-4, math.nan, math.inf],
    "seed": [-1, 1.0, None],
    "max_skipped": [0, 2.5, True],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_bad_value_is_refused_with_rule_and_remedy(name, value):
    with pytest.raises(SettingsError, match=rf"^{name}.*=.*: must be .*; try "):
        SNGD(network(), **{name: value})


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(SettingsError, match=r"nesterov=True: must have momentum > 0, not 0\.0; try momentum=0.9"):
        SNGD(network(), momentum=0.0, nesterov=True)


@hypothesis_settings(deadline=None, max_examples=100)
@given(name=st.sampled_from(["lr", "momentum", "eps", "weight_decay"]), value=st.floats())
def test_what_passes_is_in_range(name, value):
    inside = {
        "lr": 0 < value < math.inf,
        "momentum": 0 <= value < 1,
        "eps": 0 < value < math.inf,
        "weight_decay": 0 <= value < math.inf,
    }
    given_values = {**GOOD, "nesterov": False, name: value}
    if inside[name]:
        check_hyperparameters(given_values)
    else:
        with pytest.raises(SettingsError, match=f"^{name}="):
            check_hyperparameters(given_values)


@pytest.mark.parametrize(
    ("arguments", "base"),
    [({}, "adamw"), ({"eps": 1e-6}, "adamw"), ({"momentum": 0.5}, "sgd"), ({"nesterov": True}, "sgd")],
)
def test_what_is_given_chooses_the_base(arguments, base):
    group = SNGD(network(), **arguments).param_groups[0]
    assert ("momentum" in group) == (base == "sgd")
    assert group["lr"] == {"adamw": 1e-3, "sgd": 0.1}[base]
    assert arguments.items() <= group.items()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"base": "adamw", "momentum": 0.9}, "momentum=0.9: must be left out beside betas and eps; try base='sgd'"),
        ({"base": "sgd", "eps": 1e-8}, "eps=1e-08: must be left out beside momentum and nesterov; try base='adamw'"),
        ({"momentum": 0.9, "eps": 1e-8}, "momentum=0.9: must be left out beside betas and eps; try base='sgd'"),
    ],
)
def test_what_a_base_has_not_is_refused(arguments, message):
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}$"):
        SNGD(network(), **arguments)


def test_a_learning_rate_for_another_base_is_noticed():
    with pytest.warns(UserWarning, match="^lr=0.1: large for base='adamw', which is used as none is named"):
        SNGD(network(), lr=0.1)
    SNGD(network(), lr=0.1, base="adamw")
    SNGD(network(), lr=0.1, momentum=0.9)
