import itertools
import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from sngd_tune.records.importance import Importance
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.past import PastTrial
from sngd_tune.records.study import StudyConfig
from sngd_tune.search.importance import MIN_TRIALS, importances
from sngd_tune.search.space import SearchSpace
from tests.search.studies import CONDITIONAL, HEAD, LAYERED, study

FLAT = (
    HEAD
    + """
space:
  lr: {low: 1e-4, high: 1, log: true}
  momentum: {low: 0, high: 0.9}
  batch_size: {low: 16, high: 256, log: true}
  lr_schedule: {choices: [constant, cosine]}
"""
)


def past(config: StudyConfig, loss: Callable[[Mapping[str, Any]], float], trials: int = 40) -> list[PastTrial]:
    """Completed trials drawn at random."""
    return [
        PastTrial(
            trial=f"{n:04d}",
            number=n,
            parameters=parameters,
            seed=0,
            outcome=Outcome.COMPLETED,
            values=(loss(parameters),),
        )
        for n, parameters in enumerate(SearchSpace(config).samples(trials, seed=1))
    ]


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("lr", lambda p: math.log(p["lr"]) ** 2),
        ("momentum", lambda p: p["momentum"]),
        ("batch_size", lambda p: p["batch_size"]),
        ("lr_schedule", lambda p: float(p["lr_schedule"] == "cosine")),
    ],
)
def test_the_parameter_with_all_the_variance_comes_out_on_top(name: str, loss: Callable[..., float]) -> None:
    config = study(FLAT)
    found = importances(config, past(config, loss))
    assert {each.parameter for each in found} == {"lr", "momentum", "batch_size", "lr_schedule"}
    assert found[0].parameter == name
    assert found[0].share > 0.7
    assert {each.trials for each in found} == {40}
    assert sum(each.share for each in found) <= 1 + 1e-9
    assert list(found) == sorted(found, key=lambda each: -each.share)


def test_what_happens_in_the_low_decades_of_a_log_range_counts() -> None:
    """Averaged over values and not over their logarithms, all below 0.003 would have a weight of 0.3 %."""
    config = study(FLAT)
    found = importances(config, past(config, lambda p: 2.0 * (p["lr"] > 3e-3) + (p["lr_schedule"] == "cosine")))
    assert [each.parameter for each in found[:2]] == ["lr", "lr_schedule"]


def test_one_enormous_loss_does_not_decide() -> None:
    config = study(FLAT)
    trials = past(config, lambda p: p["momentum"])
    highest = max(trials, key=lambda trial: trial.parameters["lr"])
    spoiled = [*(trial for trial in trials if trial is not highest), _with_value(highest, 1e12)]
    assert importances(config, spoiled)[0].parameter == "momentum"


def test_a_conditional_parameter_is_judged_where_it_is_active() -> None:
    config = study(CONDITIONAL)

    def loss(parameters: Mapping[str, Any]) -> float:
        return math.log(parameters["lr"]) if parameters["base"] == "adamw" else 0.0

    trials = past(config, loss, trials=60)
    found = {each.parameter: each for each in importances(config, trials)}
    adamw = sum(trial.parameters["base"] == "adamw" for trial in trials)
    assert found["lr[base=adamw]"].trials == adamw
    assert found["base"].trials == 60
    assert found["lr[base=adamw]"].share > 0.7
    assert all(each.trials >= MIN_TRIALS for each in found.values())


def test_single_layers_are_judged_by_their_own_names() -> None:
    config = study(LAYERED)
    found = importances(config, past(config, lambda p: float(p["granularity@0"] == "kron"), trials=60))
    assert found[0].parameter == "granularity@0"
    assert found[0].share > 0.7
    assert {each.name for each in found} <= config.space.keys()


@pytest.mark.parametrize(
    ("label", "name", "condition"),
    [
        ("lr", "lr", ""),
        ("lr[base=sgd]", "lr", "base=sgd"),
        ("root[granularity=block|input,form=fused]", "root", "granularity=block|input,form=fused"),
        ("rank@encoder.*", "rank@encoder.*", ""),
        ("rank@[!02]", "rank@[!02]", ""),
        ("rank@x[02]", "rank@x[02]", ""),
        ("rank@[02][base=sgd]", "rank@[02]", "base=sgd"),
        ("rank@[02][granularity@[02]=input,base=sgd]", "rank@[02]", "granularity@[02]=input,base=sgd"),
        ("lr[granularity@[02]=kron]", "lr", "granularity@[02]=kron"),
    ],
)
def test_a_label_is_a_name_and_its_condition(label: str, name: str, condition: str) -> None:
    importance = Importance(parameter=label, share=0.5, trials=10)
    assert (importance.name, importance.condition) == (name, condition)


@pytest.mark.parametrize(("trials", "known"), [(MIN_TRIALS - 1, False), (MIN_TRIALS, True)])
def test_too_few_trials_say_nothing(trials: int, known: bool) -> None:
    config = study(FLAT)
    assert bool(importances(config, past(config, lambda p: p["lr"], trials))) is known


def test_trials_that_did_not_complete_do_not_count() -> None:
    config = study(FLAT)
    ends = [Outcome.STOPPED_EARLY, Outcome.DIVERGED, Outcome.ERROR]
    broken = [
        PastTrial(
            trial=t.trial, number=t.number, parameters=t.parameters, seed=0, outcome=outcome, intermediate={1: 1.0}
        )
        for t, outcome in zip(past(config, lambda p: 0.0), itertools.cycle(ends), strict=False)
    ]
    assert importances(config, broken) == ()


def test_objectives_all_alike_give_no_importance() -> None:
    config = study(FLAT)
    assert importances(config, past(config, lambda p: 1.0)) == ()


def test_the_first_of_several_objectives_counts() -> None:
    config = study(FLAT, "objectives=[validation_loss, training_seconds]")
    source = random.Random(0)
    trials = [_with_value(t, t.parameters["momentum"], source.random()) for t in past(config, lambda p: 0.0)]
    assert importances(config, trials)[0].parameter == "momentum"


def test_the_same_trials_have_the_same_importances() -> None:
    config = study(FLAT)
    trials = past(config, lambda p: p["momentum"] + p["lr"], trials=15)
    first: tuple[Importance, ...] = importances(config, trials)
    assert first == importances(config, trials)


def _with_value(trial: PastTrial, *values: float) -> PastTrial:
    return PastTrial(
        trial=trial.trial,
        number=trial.number,
        parameters=trial.parameters,
        seed=trial.seed,
        outcome=trial.outcome,
        values=values,
    )
