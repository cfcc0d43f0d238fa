"""A selection as flat parameters, which say exactly what it says."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.selection import SelectionRecord
from sngd_tune.records.trial import TrialConfig
from sngd_tune.search.flat import flat, layer_pattern
from sngd_tune.settings import FisherSettings
from tests.search.selections import chosen_by_layer, records, settings_by_layer
from tests.selection.samples import LOW_RANK, choice, plain_choice, renamed, selection


def trial(parameters: dict[str, Any]) -> TrialConfig:
    return TrialConfig.from_flat(parameters, workload="digits_mlp", epochs=1, seed=0)


@given(records())
def test_a_trial_with_these_parameters_has_the_settings_of_the_selection(record: SelectionRecord) -> None:
    found = trial(flat(record))
    assert settings_by_layer(found, record) == chosen_by_layer(record)
    assert dict(record.optimizer) == {name: getattr(found.optimizer, name) for name in record.optimizer}
    assert (found.optimizer.lr_schedule, found.batch_size) == (record.lr_schedule, 50)


def test_what_most_layers_share_is_said_once() -> None:
    """Three of one kind, one that differs in two values, one without a local Fisher layer."""
    odd = dataclasses.replace(LOW_RANK, rank=4, relative_damping=1.0)
    layers = (choice("in", settings=odd), *map(choice, "012"), plain_choice("head"))
    assert flat(selection(layers=layers)) == {
        "optimizer": "sngd",
        "base": "adamw",
        "lr": 0.02,
        "lr_schedule": "warmup_cosine",
        "weight_decay": 0.01,
        "batch_size": 50,
        "granularity": "input",
        "root": "nystrom",
        "rank": 8,
        "root_scale": "unit",
        "relative_damping": 0.1,
        "fisher_interval": 50,
        "statistics_interval": 25,
        "rank@in": 4,
        "relative_damping@in": 1.0,
        "granularity@head": "none",
    }


def test_a_limit_that_some_layers_have_is_never_plain() -> None:
    """No value of another layer's own could take it away again."""
    limited = dataclasses.replace(LOW_RANK, positions=9)
    found = flat(selection(layers=(*(choice(name, settings=limited) for name in "01"), choice("2"))))
    assert {name: value for name, value in found.items() if "positions" in name} == {"positions@0": 9, "positions@1": 9}


def test_arguments_of_the_optimizer_are_parameters() -> None:
    optimizer = {"base": "sgd", "lr": 0.1, "momentum": 0.5, "nesterov": True}
    found = trial(flat(selection(optimizer=optimizer))).optimizer
    assert (found.base, found.momentum, found.momentum_kind) == ("sgd", 0.5, "nesterov")
    found = trial(flat(selection(optimizer={"base": "adamw", "betas": [0.8, 0.95]}))).optimizer
    assert (found.beta1, found.beta2) == (0.8, 0.95)
    with pytest.raises(ConfigurationError, match=r"seed=1: is an argument of SNGD that no trial has.*take it out"):
        flat(selection(optimizer={"seed": 1}))


def test_a_layer_that_is_the_model_itself_needs_no_name() -> None:
    record = selection(layers=(choice(""),), probes=())
    assert trial(flat(record)).fisher == LOW_RANK


@pytest.mark.parametrize(
    ("layer", "layers", "pattern"),
    [
        ("encoder.0", ["encoder.0", "encoder.10"], "encoder.0"),
        ("a*[b", ["a*[b", "aab"], "a[*][[]b"),
        ("two words", ["two words"], "two?words"),
        (120 * "x" + ".y", ["y"], "*" + 97 * "x" + ".y"),
    ],
)
def test_a_pattern_names_one_layer(layer: str, layers: list[str], pattern: str) -> None:
    assert layer_pattern(layer, [layer, *layers]) == pattern


@pytest.mark.parametrize("names", [("a:b", "a;b", "c"), (120 * "x", 130 * "x", "c"), ("", "a", "c")])
def test_names_that_no_pattern_tells_apart_are_refused(names: tuple[str, ...]) -> None:
    odd = FisherSettings(root_scale="unit", rank=3)
    record = selection(layers=(plain_choice("2"), choice("0", settings=odd), choice("4", settings=odd)))
    with pytest.raises(ConfigurationError, match=r"does not name it alone .*; rename the module"):
        flat(renamed(record, names))


def test_a_selection_without_settings_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="digits_mlp: the selection has no local Fisher layer"):
        flat(selection(layers=(plain_choice("0"),)))
