"""One suite for every sampler."""

import json
import os
import subprocess
import sys

import optuna
import pytest

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.past import PastTrial
from sngd_tune.records.study import SAMPLERS as NAMES
from sngd_tune.records.trial import TrialConfig
from sngd_tune.search.samplers import SAMPLERS, make_sampler
from sngd_tune.search.searcher import StudySearcher
from tests.search.studies import CONDITIONAL, FINITE, study

TRIALS = 16
#: These keep their distribution or generation with the trials of one process.
GENERATIONAL = ("cmaes", "nsgaii", "nsgaiii")


def proposals(sampler: str, past: tuple[PastTrial, ...] = (), trials: int = TRIALS) -> list[dict[str, object]]:
    """Proposals of one study, each trial completed with a loss that its parameters decide."""
    text = FINITE if sampler == "brute_force" else CONDITIONAL
    searcher = StudySearcher(study(text, f"search.sampler={sampler}", f"search.trials={trials}", "search.seed=3"), past)
    found = []
    while isinstance(config := searcher.suggest(f"t{len(found)}"), dict):
        result = {"epoch": 4, "outcome": "completed", "validation_loss": loss(config["parameters"])}
        searcher.on_trial_complete(f"t{len(found)}", result)
        found.append(config["parameters"])
    return found


def loss(parameters: dict[str, object]) -> float:
    return float(parameters.get("lr", 0.0)) + float(parameters.get("momentum", 1.0)) + (parameters["base"] == "sgd")  # type: ignore[arg-type]


def history(parameters: list[dict[str, object]]) -> tuple[PastTrial, ...]:
    return tuple(
        PastTrial(
            trial=f"{number:04d}", number=number, parameters=values, seed=0, outcome=Outcome.COMPLETED,
            values=(loss(values),), intermediate={4: loss(values)},
        )
        for number, values in enumerate(parameters)
    )  # fmt: skip


def test_the_names_of_the_schema_are_those_of_the_registry() -> None:
    assert tuple(SAMPLERS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_proposes_valid_and_different_points_of_a_conditional_space(name: str) -> None:
    found = proposals(name)
    for parameters in found:
        TrialConfig.from_flat(parameters, workload="digits_mlp", epochs=4, seed=0)
    assert len({json.dumps(parameters, sort_keys=True) for parameters in found}) == len(found)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_history_and_seed_give_the_same_proposals(name: str) -> None:
    assert proposals(name) == proposals(name)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in GENERATIONAL])
def test_a_resumed_study_proposes_what_the_uninterrupted_one_would(name: str) -> None:
    whole = proposals(name)
    kept = min(12, len(whole) - 1)
    assert proposals(name, history(whole[:kept])) == whole[kept:]


@pytest.mark.parametrize("name", GENERATIONAL)
def test_a_resumed_generation_is_reproducible(name: str) -> None:
    past = history(proposals(name, trials=8))
    assert proposals(name, past) == proposals(name, past)


@pytest.mark.slow
def test_another_process_proposes_the_same() -> None:
    code = (
        "import json; from tests.search.test_samplers import NAMES, proposals; "
        "print(json.dumps({name: proposals(name, trials=12) for name in NAMES}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert json.loads(done.stdout) == {name: proposals(name, trials=12) for name in NAMES}


def test_brute_force_ends_when_every_point_was_tried() -> None:
    found = proposals("brute_force", trials=100)
    assert len(found) == 4  # adamw, and sgd with three momenta
    assert proposals("brute_force", history(found), trials=100) == []


@pytest.mark.parametrize("name", [name for name in NAMES if name != "cmaes"])
def test_takes_two_objectives(name: str) -> None:
    config = study(
        FINITE, f"search.sampler={name}", "search.trials=4", "objectives=[validation_loss, training_seconds]"
    )
    searcher = StudySearcher(config)
    for number in range(4):
        searcher.suggest(str(number))
        searcher.on_trial_complete(
            str(number), {"outcome": "completed", "validation_loss": 1.0 / (number + 1), "training_seconds": number}
        )
    assert len(searcher.study.best_trials) >= 1


@pytest.mark.parametrize(
    ("name", "objectives", "message"), [("tep", 1, "did you mean 'tpe'"), ("cmaes", 2, "knows one objective")]
)
def test_bad_names_and_counts_are_refused(name: str, objectives: int, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make_sampler(name, seed=0, trial_number=0, n_objectives=objectives)


def test_trials_get_samplers_of_their_own() -> None:
    first, second = (make_sampler("random", seed=0, trial_number=number) for number in (0, 1))
    values = [optuna.create_study(sampler=sampler).ask().suggest_float("x", 0, 1) for sampler in (first, second)]
    assert values[0] != values[1]
