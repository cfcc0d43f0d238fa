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
    ("last", "state", "values"),
    [
        (result(4, 0.5, "completed"), TrialState.COMPLETE, [0.5]),
        (result(4, 0.5), TrialState.PRUNED, [0.5]),
        (result(4, 0.5, "stopped_early"), TrialState.PRUNED, [0.5]),
        (result(4, math.nan, "completed"), TrialState.FAIL, None),
        (result(4, -math.inf, "completed"), TrialState.FAIL, None),
        (result(4, None, "completed"), TrialState.FAIL, None),
        (result(4, "0.5", "completed"), TrialState.FAIL, None),
        ({"epoch": 4, "outcome": "completed"}, TrialState.FAIL, None),
        (result(4, math.nan), TrialState.FAIL, None),
        (result(4, 0.5, "diverged"), TrialState.FAIL, None),
        (result(4, 0.5, "out_of_memory"), TrialState.FAIL, None),
        (result(4, 0.5, "error"), TrialState.FAIL, None),
        (result(4, 0.5, "lost"), TrialState.FAIL, None),
        (result(4, 0.5, "interrupted"), TrialState.FAIL, None),
        (None, TrialState.FAIL, None),
    ],
)
def test_optuna_hears_the_truth(last: dict[str, Any] | None, state: TrialState, values: list[float] | None) -> None:
    searcher = StudySearcher(study(LR))
    searcher.suggest("a")
    searcher.on_trial_result("a", result(1, 2.0))
    searcher.on_trial_complete("a", last)
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
    assert not searcher.on_trial_failed("a", Outcome.LOST)
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
    assert configs[6] is None  # one that runs may be lost
    assert [config["parameters"]["lr"] for config in configs[:2]] == [0.5, 0.25]  # type: ignore[index]
    first = dict(configs[0])
    seed = first.pop("seed")
    assert first == {
        "trial": "0000",
        "number": 0,
        "phase": "search",
        "candidate": "",
        "parameters": {"lr": 0.5},
        "study": "small",
        "attempt": 0,
        "resume": False,
        "epochs_known": 0,
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
    assert configs[5] is None


def test_a_resumed_study_repeats_the_interrupted_and_no_finished_trial() -> None:
    finished = [
        past(0, Outcome.COMPLETED, 0.5, values=(1.5,), intermediate={1: 2.0, 4: 1.5}),
        past(1, Outcome.STOPPED_EARLY, 0.25, intermediate={1: 7.0}),
        past(3, Outcome.DIVERGED, 0.9, intermediate={1: math.nan}),
    ]
    interrupted = past(2, Outcome.INTERRUPTED, 0.125, intermediate={1: 3.0}, attempt=1, epochs=3)
    searcher = StudySearcher(study(LR), [interrupted, *finished])
    assert [told(searcher, index) for index in range(3)] == [
        (TrialState.COMPLETE, [1.5]),
        (TrialState.PRUNED, [7.0]),
        (TrialState.FAIL, None),
    ]
    again = searcher.suggest("a")
    assert again == {
        "trial": "0002", "number": 2, "phase": "search", "candidate": "",
        "parameters": {"lr": 0.125}, "seed": 11, "attempt": 2, "resume": True, "epochs_known": 3, "study": "small",
    }  # fmt: skip
    assert searcher.study.trials[3].params == {"lr": 0.125}
    names = [searcher.suggest(name) for name in "bcd"]
    assert [config["trial"] for config in names[:2]] == ["0004", "0005"]  # type: ignore[index]
    assert names[2] is None


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


def test_what_tune_pickles_and_saves_of_it_is_nothing(tmp_path: Any) -> None:
    """Its configuration may hold a password, and Tune writes its pickle to a folder of its own."""
    searcher = StudySearcher(study(LR, "mlflow.tracking_uri='postgresql://ann:s3cret@db/mlflow'"))
    searcher.suggest("a")
    searcher.save_to_dir(str(tmp_path), "session")
    assert list(tmp_path.iterdir()) == []
    assert b"s3cret" not in pickle.dumps(searcher)


def test_making_a_study_leaves_optunas_logging_as_it_was() -> None:
    before = optuna.logging.get_verbosity()
    StudySearcher(study(LR))
    assert optuna.logging.get_verbosity() == before


def test_a_list_is_proposed_in_order() -> None:
    configs = [{"trial": name, "attempt": 0, "resume": False, "epochs_known": 0} for name in ("c0", "c1")]
    searcher = ListSearcher(configs, max_retries=1)
    assert [searcher.suggest(name) for name in "abc"] == [*configs, None]
    searcher.on_trial_complete("a", {"outcome": "completed"})
    searcher.on_trial_complete("b", {"outcome": "completed"})
    assert searcher.suggest("c") == Searcher.FINISHED


def test_a_lost_trial_is_proposed_again_until_its_retries_are_out() -> None:
    searcher = StudySearcher(study(LR, "search.trials=1", "search.max_retries=2"))
    first = searcher.suggest("a")
    searcher.on_trial_result("a", result(1, 3.0))
    for attempt, (before, name) in enumerate(["ab", "bc"], start=1):
        searcher.on_trial_complete(before, None, error=True)
        assert searcher.suggest("waits") is None  # until the class of the failure is known
        assert searcher.on_trial_failed(before, Outcome.LOST)
        assert searcher.suggest(name) == {**first, "attempt": attempt, "resume": True, "epochs_known": 1}  # type: ignore[dict-item]
    searcher.on_trial_result("c", result(2, 2.0))
    assert [trial.state for trial in searcher.study.trials] == [TrialState.RUNNING]
    assert not searcher.on_trial_failed("c", Outcome.LOST)
    assert told(searcher) == (TrialState.FAIL, None)
    assert searcher.study.trials[0].intermediate_values == {1: 3.0, 2: 2.0}
    assert searcher.suggest("d") == Searcher.FINISHED


@pytest.mark.parametrize(
    ("outcome", "again"),
    [(Outcome.PREEMPTED, True), (Outcome.LOST, False), (Outcome.OUT_OF_MEMORY, False), (Outcome.ERROR, False)],
)
def test_the_class_of_a_failure_decides(outcome: Outcome, again: bool) -> None:
    searcher = StudySearcher(study(LR, "search.trials=1", "search.max_retries=0"))
    searcher.suggest("a")
    assert searcher.on_trial_failed("a", outcome) == again
    assert told(searcher)[0] is (TrialState.RUNNING if again else TrialState.FAIL)


def test_a_trial_lost_before_the_study_was_interrupted_is_closed() -> None:
    searcher = StudySearcher(study(LR, "search.trials=1"))
    searcher.suggest("a")
    assert searcher.on_trial_failed("a", Outcome.LOST)
    searcher.close()
    assert told(searcher) == (TrialState.FAIL, None)
