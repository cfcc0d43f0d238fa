import math
import pickle
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from sngd_tune.records.outcome import Outcome
from sngd_tune.records.past import PastTrial
from sngd_tune.search.searcher import ListSearcher, StudySearcher
from tests.search.studies import CONDITIONAL, HEAD, study

LR = (
    HEAD
    + "space: {lr: {low: 1e-3, high: 1, log: true}}\n"
    + "start: [{lr: 0.5}, {lr: 0.25}]\n"
    + "search: {trials: 6, sampler: random}\n"
)
PAIR = "objectives=[validation_loss, training_seconds]"


def result(epoch: int, loss: Any, outcome: str = "running", **others: Any) -> dict[str, Any]:
    return {"epoch": epoch, "validation_loss": loss, "outcome": outcome, **others}


def told(searcher: StudySearcher, index: int = 0) -> tuple[TrialState, list[float] | None]:
    trial = searcher.study.trials[index]
    return trial.state, trial.values


def past(number: int, outcome: Outcome, lr: float, **others: Any) -> PastTrial:
    return PastTrial(trial=f"{number:04d}", number=number, parameters={"lr": lr}, seed=11, outcome=outcome, **others)


@pytest.mark.parametrize(
    ("last", "error", "state", "values"),
    [
        (result(4, 0.5, "completed"), False, TrialState.COMPLETE, [0.5]),
        (result(4, 0.5), False, TrialState.PRUNED, [0.5]),
        (result(4, 0.5, "stopped_early"), False, TrialState.PRUNED, [0.5]),
        (result(4, math.nan, "completed"), False, TrialState.FAIL, None),
        (result(4, -math.inf, "completed"), False, TrialState.FAIL, None),
        (result(4, None, "completed"), False, TrialState.FAIL, None),
        (result(4, "0.5", "completed"), False, TrialState.FAIL, None),
        ({"epoch": 4, "outcome": "completed"}, False, TrialState.FAIL, None),
        (result(4, math.nan), False, TrialState.FAIL, None),
        (result(4, 0.5, "diverged"), False, TrialState.FAIL, None),
        (result(4, 0.5, "out_of_memory"), False, TrialState.FAIL, None),
        (result(4, 0.5, "error"), False, TrialState.FAIL, None),
        (result(4, 0.5, "lost"), False, TrialState.FAIL, None),
        (result(4, 0.5, "interrupted"), False, TrialState.FAIL, None),
        (result(4, 0.5, "completed"), True, TrialState.FAIL, None),
        (None, True, TrialState.FAIL, None),
        (None, False, TrialState.FAIL, None),
    ],
)
def test_optuna_hears_the_truth(
    last: dict[str, Any] | None, error: bool, state: TrialState, values: list[float] | None
) -> None:
    searcher = StudySearcher(study(LR))
    searcher.suggest("a")
    searcher.on_trial_result("a", result(1, 2.0))
    searcher.on_trial_complete("a", last, error)
    assert told(searcher) == (state, values)


def test_intermediate_values_are_kept_once_and_finite_only() -> None:
    searcher = StudySearcher(study(LR))
    searcher.suggest("a")
    for epoch, loss in [(1, 3.0), (2, math.nan), (2, 2.0), (1, 9.0), (2, 9.0)]:  # the last two: a retry from epoch 0
        searcher.on_trial_result("a", result(epoch, loss))
    searcher.on_trial_complete("a", result(3, 1.0, "completed"))
    assert searcher.study.trials[0].intermediate_values == {1: 3.0, 2: 2.0, 3: 1.0}


def test_what_it_does_not_know_or_was_told_before_changes_nothing() -> None:
    searcher = StudySearcher(study(LR))
    searcher.suggest("a")
    searcher.on_trial_complete("a", result(4, 1.0, "completed"))
    searcher.on_trial_complete("a", None, error=True)
    searcher.on_trial_result("a", result(5, 0.1))
    searcher.on_trial_complete("stranger", result(4, 1.0, "completed"))
    assert told(searcher) == (TrialState.COMPLETE, [1.0])
    assert len(searcher.study.trials) == 1


def test_two_objectives_have_their_directions() -> None:
    searcher = StudySearcher(study(LR, "objectives=[validation_accuracy, training_seconds]"))
    outcomes = [{"outcome": "completed"}, {"outcome": "completed"}, {"outcome": "running"}, {"outcome": "completed"}]
    for name, (accuracy, seconds), outcome in zip(
        "abcd", [(0.9, 5.0), (0.8, 9.0), (0.7, 1.0), (0.95, None)], outcomes, strict=True
    ):
        searcher.suggest(name)
        searcher.on_trial_result(name, {"epoch": 1, "validation_accuracy": accuracy, "training_seconds": seconds})
        searcher.on_trial_complete(
            name, {"epoch": 4, "validation_accuracy": accuracy, "training_seconds": seconds, **outcome}
        )
    assert [trial.state for trial in searcher.study.trials] == [
        TrialState.COMPLETE,
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
    ]
    assert [trial.values for trial in searcher.study.best_trials] == [[0.9, 5.0]]


def test_configs_begin_with_the_starting_points_and_end_with_the_budget() -> None:
    searcher = StudySearcher(study(LR))
    configs = [searcher.suggest(str(index)) for index in range(7)]
    assert configs[6] == Searcher.FINISHED
    assert [config["parameters"]["lr"] for config in configs[:2]] == [0.5, 0.25]  # type: ignore[index]
    first = dict(configs[0])
    seed = first.pop("seed")
    assert first == {
        "trial": "0000",
        "number": 0,
        "phase": "search",
        "candidate": "",
        "parameters": {"lr": 0.5},
        "resume_from": None,
    }
    assert isinstance(seed, int)
    assert {config["seed"] for config in configs[:6]} == {seed}  # type: ignore[index]
    assert configs[5]["trial"] == "0005"  # type: ignore[index]


def test_a_resumed_study_makes_up_for_proposals_that_never_started() -> None:
    """Tune starts pending trials in any order: number 1, a starting point, may wait when number 2 is interrupted."""
    run = [past(0, Outcome.COMPLETED, 0.5, values=(1.5,)), past(2, Outcome.INTERRUPTED, 0.125)]
    searcher = StudySearcher(study(LR), run)
    configs = [searcher.suggest(name) for name in "abcdef"]
    assert [config["number"] for config in configs[:5]] == [2, 1, 3, 4, 5]  # type: ignore[index]
    assert configs[1]["parameters"] == {"lr": 0.25}  # type: ignore[index]
    assert configs[5] == Searcher.FINISHED


def test_a_resumed_study_repeats_the_interrupted_and_no_finished_trial() -> None:
    finished = [
        past(0, Outcome.COMPLETED, 0.5, values=(1.5,), intermediate={1: 2.0, 4: 1.5}),
        past(1, Outcome.STOPPED_EARLY, 0.25, intermediate={1: 7.0}),
        past(3, Outcome.DIVERGED, 0.9, intermediate={1: math.nan}),
    ]
    interrupted = past(2, Outcome.INTERRUPTED, 0.125, intermediate={1: 3.0}, checkpoint="/kept")
    searcher = StudySearcher(study(LR), [interrupted, *finished])
    assert [told(searcher, index) for index in range(3)] == [
        (TrialState.COMPLETE, [1.5]),
        (TrialState.PRUNED, [7.0]),
        (TrialState.FAIL, None),
    ]
    again = searcher.suggest("a")
    assert again == {
        "trial": "0002", "number": 2, "phase": "search", "candidate": "",
        "parameters": {"lr": 0.125}, "seed": 11, "resume_from": "/kept",
    }  # fmt: skip
    assert searcher.study.trials[3].params == {"lr": 0.125}
    names = [searcher.suggest(name) for name in "bcd"]
    assert [config["trial"] for config in names[:2]] == ["0004", "0005"]  # type: ignore[index]
    assert names[2] == Searcher.FINISHED


def test_a_past_trial_of_a_conditional_space_finds_its_alternatives() -> None:
    parameters = {"optimizer": "sngd", "base": "adamw", "lr": 1e-3, "granularity": "block", "block": 16, "root": "eigh"}
    trial = PastTrial(trial="0000", number=0, parameters=parameters, seed=0, outcome=Outcome.COMPLETED, values=(1.0,))
    searcher = StudySearcher(study(CONDITIONAL), [trial])
    assert searcher.study.trials[0].params["lr[base=adamw]"] == 1e-3


@pytest.mark.parametrize("overrides", [(), (PAIR,)])
def test_close_leaves_no_trial_running(overrides: tuple[str, ...]) -> None:
    searcher = StudySearcher(study(LR, *overrides))
    for name in "abc":
        searcher.suggest(name)
    searcher.close()
    searcher.close()
    assert {trial.state for trial in searcher.study.trials} == {TrialState.FAIL}


def test_can_be_pickled_and_saves_nothing(tmp_path: Any) -> None:
    searcher = StudySearcher(study(LR))
    searcher.suggest("a")
    searcher.save_to_dir(str(tmp_path), "session")
    assert list(tmp_path.iterdir()) == []
    copy = pickle.loads(pickle.dumps(searcher))
    copy.on_trial_complete("a", result(4, 1.0, "completed"))
    assert (told(copy)[0], told(searcher)[0]) == (TrialState.COMPLETE, TrialState.RUNNING)


def test_making_a_study_leaves_optunas_logging_as_it_was() -> None:
    before = optuna.logging.get_verbosity()
    StudySearcher(study(LR))
    assert optuna.logging.get_verbosity() == before


def test_a_list_is_proposed_in_order() -> None:
    searcher = ListSearcher([{"trial": "c0"}, {"trial": "c1"}])
    assert [searcher.suggest(name) for name in "abc"] == [{"trial": "c0"}, {"trial": "c1"}, Searcher.FINISHED]
    searcher.on_trial_complete("a", None, error=True)
