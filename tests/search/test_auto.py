"""The study around a selection: the selection first, what may be better beside it, and never beyond the budgets."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import optuna
import pytest
from hypothesis import given, settings

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.selection import Alternative, SelectionRecord
from sngd_tune.records.study import SpaceEntry, StudyConfig
from sngd_tune.records.trial import TrialConfig
from sngd_tune.search.auto import auto_study, explain
from sngd_tune.search.load import load_study, parse_study
from sngd_tune.search.space import SearchSpace
from sngd_tune.search.stakes import MOST, stakes
from sngd_tune.search.writing import study_text, write_study
from tests.search.selections import chosen_by_layer, settings_by_layer, weighed
from tests.search.studies import HEAD, study
from tests.selection.samples import LOW_RANK, choice, plain_choice, probe, selection

BASE = study(HEAD + "fixed: {batch_size: 32}\nspace: {lr: {low: 1, high: 2}}\nsearch: {seed: 7, trials: 99}\n")


def other(name: str, gain: float, seconds: float, size: int = 0, damping: float = 0.1) -> Alternative:
    return Alternative(name=name, relative_damping=damping, gain=gain, seconds=seconds, bytes=size)


def searched(**changes: Any) -> Mapping[str, Any]:
    """What is searched of single layers, of a selection of one layer with changes."""
    record = selection(layers=(choice("0", **changes),), probes=(probe("0"),), memory_budget=None)
    space = auto_study(record, BASE, 10).space
    return {name: value if len(value) > 1 else value[0] for name, value in space.items() if "@" in name}


@settings(max_examples=40)
@given(weighed())
def test_the_first_trial_is_the_selection_itself_and_all_others_are_sound(record: SelectionRecord) -> None:
    found = auto_study(record, BASE, 10)
    space = SearchSpace(found)
    first = space.suggest(optuna.trial.FixedTrial(space.labelled(space.start_points()[0])))
    trial = TrialConfig.from_flat(first, workload="digits_mlp", epochs=1, seed=0)
    assert settings_by_layer(trial, record) == chosen_by_layer(record)
    assert (trial.optimizer.lr, trial.optimizer.weight_decay) == (0.02, 0.01)
    for parameters in space.samples(3, seed=0):
        TrialConfig.from_flat(parameters, workload="digits_mlp", epochs=1, seed=0)
    assert parse_study(study_text(found, explain(record)), "study.yaml") == found


@given(weighed())
def test_no_combination_exceeds_the_budgets(record: SelectionRecord) -> None:
    """The dearest option of each layer that is searched, together."""
    offered = {stake.layer: stake.names for stake in stakes(record)}
    seconds, size = record.step.predicted, 0
    for layer in record.layers:
        prices = {each.name: (each.seconds, each.bytes) for each in layer.alternatives}
        prices |= {layer.name: (layer.seconds, layer.bytes)}
        names = offered.get(layer.layer, (layer.name,))
        seconds += max(prices[name][0] for name in names) - layer.seconds
        size += max(prices[name][1] for name in names)
    assert record.step_budget is None or seconds <= record.step_budget * record.step.sgd * (1 + 1e-9)
    assert record.memory_budget is None or size <= record.memory_budget
    assert len(offered) <= MOST


def test_ranges_lie_around_what_was_found() -> None:
    found = auto_study(selection(), BASE, 10)
    assert found.space["lr"] == (SpaceEntry(low=0.005, high=0.08, log=True),)
    assert found.space["weight_decay"] == (SpaceEntry(low=1e-3, high=0.5, log=True),)
    assert found.space["damping_scale"] == (SpaceEntry(low=0.1, high=10, log=True),)
    assert found.space["beta2"] == (SpaceEntry(choices=(0.99, 0.999)),)
    none = auto_study(selection(optimizer={"lr": 0.01, "weight_decay": 0.0, "betas": [0.9, 0.95]}), BASE, 10)
    assert none.space["weight_decay"][0].choices[0] == none.start[0]["weight_decay"] == 0  # type: ignore[index]
    assert none.space["beta2"] == (SpaceEntry(choices=(0.95, 0.99, 0.999)),)
    large = auto_study(selection(optimizer={"lr": 0.01, "weight_decay": 2.0}), BASE, 10)
    assert large.space["weight_decay"] == (SpaceEntry(low=1e-3, high=2.0, log=True),)
    assert "beta2" not in auto_study(selection(optimizer={"base": "sgd", "lr": 0.1}), BASE, 10).space


def test_all_but_the_search_is_the_other_studys() -> None:
    found = auto_study(selection(), BASE, 10)
    assert (found.search.trials, found.search.seed) == (10, 7)
    assert found.fixed["batch_size"] == 32
    left = {"fixed", "space", "start", "search"}
    assert found.model_dump(exclude=left) == BASE.model_dump(exclude=left)
    assert auto_study(selection(), BASE.model_copy(update={"fixed": {}}), 10).fixed["batch_size"] == 50


def test_ranks_that_gain_as_much_are_a_range() -> None:
    ranks = (other("input rank 4", 2.4, 2e-5), other("input rank 32", 2.6, 6e-5), other("input rank 2", 1.4, 1e-5))
    assert searched(alternatives=ranks) == {"rank@0": SpaceEntry(low=4, high=32, log=True)}


def test_kinds_that_gain_as_much_are_chosen_between_each_with_its_own_values() -> None:
    """Of one granularity the chosen rank stands for it, with the other ranks; else the cheapest."""
    kinds = (
        other("diagonal", 2.3, 1e-5, damping=1.0),
        other("block:32", 2.4, 4e-5),
        other("block:8", 2.4, 3e-5),
        other("input rank 8", 2.5, 3e-5),
        other("input rank 16", 2.6, 5e-5),
        other("input", 2.6, 9e-5),
    )
    granularity = {each: {"granularity@0": (each,)} for each in ("input", "diagonal", "block")}
    assert searched(alternatives=kinds) == {
        "granularity@0": SpaceEntry(choices=("input", "diagonal", "block")),
        "block@0": SpaceEntry(choices=(8, 32), when=granularity["block"]),
        "root@0": (
            SpaceEntry(choices=("nystrom",), when=granularity["input"]),
            SpaceEntry(choices=("eigh",), when=granularity["block"]),
        ),
        "rank@0": SpaceEntry(low=8, high=16, log=True, when=granularity["input"]),
        "relative_damping@0": (
            SpaceEntry(choices=(0.1,), when=granularity["input"]),
            SpaceEntry(choices=(1.0,), when=granularity["diagonal"]),
            SpaceEntry(choices=(0.1,), when=granularity["block"]),
        ),
    }


def test_all_of_the_matrix_or_its_low_rank_is_a_choice_of_the_root() -> None:
    dense = (other("input", 2.6, 1e-4),)
    assert searched(alternatives=dense) == {
        "root@0": SpaceEntry(choices=("nystrom", "eigh")),
        "rank@0": SpaceEntry(choices=(8,), when={"root@0": ("nystrom",)}),
    }


def test_a_layer_that_got_nothing_may_stay_without() -> None:
    record = selection(layers=(plain_choice("0", alternatives=(other("input", 2, 0.0),)), choice("2")))
    assert auto_study(record, BASE, 10).space["granularity@0"] == (SpaceEntry(choices=("none", "input")),)


def test_the_layers_with_the_largest_share_are_looked_at() -> None:
    """Three at most; not one that has too little at stake, nor one without an alternative that is close."""
    close, far = (other("input", 2.6, 3e-5),), (other("input rank 8", 2.6, 3e-5), other("input rank 2", 2.1, 3e-5))
    layers = (*(choice(name, alternatives=close) for name in "abcde"), choice("f", alternatives=far))
    shares = zip("abcdef", (0.2, 0.4, 0.3, 0.1, 0.0, 1.0), strict=True)
    record = selection(layers=layers, probes=tuple(probe(name, progress=share) for name, share in shares))
    assert [stake.layer for stake in stakes(record)] == ["b", "c", "a"]
    assert [stake.share for stake in stakes(record)] == pytest.approx([0.2, 0.15, 0.1])
    assert "Searched in b, 20 % of the expected decrease: selected was input rank 8; as good may be input" in explain(
        record
    )
    assert stakes(dataclasses.replace(record, probes=())) == []


def test_what_one_layer_takes_of_the_budget_is_not_there_for_the_next() -> None:
    """Room for a dearer option in one of the two layers: the one with more at stake."""
    layers = tuple(choice(name, alternatives=(other("input", 2.6, 2e-4),)) for name in "ab")
    step = dataclasses.replace(selection().step, sgd=1e-3, predicted=1.5e-3)
    record = selection(
        layers=layers, probes=(probe("a"), probe("b", progress=0.1)), step=step, step_budget=1.75, memory_budget=None
    )
    assert [stake.layer for stake in stakes(record)] == ["b"]
    assert [stake.layer for stake in stakes(dataclasses.replace(record, step_budget=1.85))] == ["b", "a"]
    assert stakes(dataclasses.replace(record, step_budget=1.6)) == []
    kept = sum(layer.bytes for layer in layers)
    assert len(stakes(dataclasses.replace(record, step_budget=None, memory_budget=kept))) == 2  # they take less here


def test_an_unknown_alternative_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="alternative 'unit rank 3': names no granularity that a search knows"):
        searched(alternatives=(other("unit rank 3", 9.0, 0.0),))


@pytest.mark.parametrize("name", ["digits_mlp", "mnist_mlp", "ptb_lstm", "housing_mlp", "mnist_autoencoder"])
def test_committed_studies_are_read_back_as_the_same(name: str) -> None:
    found = load_study(f"search_spaces/{name}.yaml")
    assert parse_study(study_text(found), "study.yaml") == found


def test_comments_are_wrapped_and_printable(tmp_path: Any) -> None:
    write_study(BASE, tmp_path / "study.yaml", ["a\nb \x07 " + "word " * 40])
    text = (tmp_path / "study.yaml").read_text()
    assert text.startswith("# a b   word")
    assert max(map(len, text.splitlines())) <= 120
    assert load_study(tmp_path / "study.yaml") == BASE
    with pytest.raises(ConfigurationError, match=r"cannot be written .*; choose another path"):
        write_study(BASE, tmp_path / "missing" / "study.yaml")


def test_a_study_that_breaks_a_rule_is_refused() -> None:
    broken: StudyConfig = study(
        HEAD + "space: {rank: {low: 2, high: 4}}\nsearch: {sampler: brute_force, scheduler: {name: none}}\n"
    )
    with pytest.raises(ConfigurationError, match=r"search\.sampler: 'brute_force': needs choices or a step for lr"):
        auto_study(selection(layers=(choice("0", settings=LOW_RANK), plain_choice("2"))), broken, 10)
