"""Several seeds of each proposal: what Optuna hears, and what a resume runs again."""

import math
from typing import Any

import pytest
from optuna.trial import TrialState

from sngd_tune.records.outcome import Outcome
from sngd_tune.records.past import PastTrial
from sngd_tune.records.proposals import proposals
from sngd_tune.records.ranking import rank
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.search.repeats import RepeatingSearcher, make_searcher
from sngd_tune.search.searcher import StudySearcher
from tests.search.studies import HEAD, study

LR = (
    HEAD
    + "space: {lr: {low: 1e-3, high: 1, log: true}}\n"
    + "start: [{lr: 0.5}]\n"
    + "search: {trials: 2, sampler: random, seeds: 3}\n"
)


def result(epoch: int, loss: Any, outcome: str = "running") -> dict[str, Any]:
    return {"epoch": epoch, "validation_loss": loss, "outcome": outcome}


def past(index: int, outcome: Outcome, number: int = 0, **others: Any) -> PastTrial:
    return PastTrial(
        trial=f"{number:04d}.{index}", number=number, parameters={"lr": 0.5}, seed=index, outcome=outcome, **others
    )


def told(searcher: StudySearcher | RepeatingSearcher) -> list[tuple[TrialState, float | None]]:
    return [(trial.state, trial.value) for trial in searcher.study.trials]


def test_a_proposal_is_trained_on_each_seed_before_the_next_one() -> None:
    searcher = make_searcher(study(LR))
    configs: list[Any] = [searcher.suggest(str(index)) for index in range(7)]
    assert [config["trial"] for config in configs[:6]] == ["0000.0", "0000.1", "0000.2", "0001.0", "0001.1", "0001.2"]
    assert [config["number"] for config in configs[:6]] == [0, 0, 0, 1, 1, 1]
    assert configs[6] is None
    assert len({config["parameters"]["lr"] for config in configs[:3]}) == 1
    seeds = [config["seed"] for config in configs[:6]]
    assert seeds[:3] == seeds[3:] and len(set(seeds)) == 3
    plain: Any = make_searcher(study(LR, "search.seeds=1")).suggest("a")
    assert (plain["trial"], plain["seed"]) == ("0000", seeds[0])


@pytest.mark.parametrize(
    ("ends", "state", "value"),
    [
        ([(1.0, "completed"), (2.0, "completed"), (6.0, "completed")], TrialState.COMPLETE, 3.0),
        ([(1.0, "completed"), (2.0, "completed"), (6.0, "running")], TrialState.PRUNED, 3.0),
        ([(1.0, "completed"), (2.0, "running"), (6.0, "diverged")], TrialState.FAIL, None),
        ([(1.0, "completed"), (2.0, "completed"), (math.nan, "completed")], TrialState.FAIL, None),
    ],
)
def test_optuna_hears_once_when_all_are_in(ends: list[Any], state: TrialState, value: float | None) -> None:
    searcher = make_searcher(study(LR))
    for index in range(3):
        searcher.suggest(str(index))
    for index, (loss, outcome) in enumerate(ends):
        assert told(searcher) == [(TrialState.RUNNING, None)]
        searcher.on_trial_complete(str(index), result(4, loss, outcome))
    assert told(searcher) == [(state, value)]


def test_a_lost_training_runs_again_by_itself_and_one_that_is_given_up_fails_the_proposal() -> None:
    searcher = make_searcher(study(LR))
    for index in range(3):
        searcher.suggest(str(index))
    assert searcher.on_trial_failed("1", Outcome.LOST)
    again: Any = searcher.suggest("1 again")
    assert (again["trial"], again["attempt"], again["resume"]) == ("0000.1", 1, True)
    for name in ("0", "2"):
        searcher.on_trial_complete(name, result(4, 1.0, "completed"))
    assert not searcher.on_trial_failed("1 again", Outcome.OUT_OF_MEMORY)
    assert told(searcher) == [(TrialState.FAIL, None)]


def test_intermediate_values_are_means_over_all_seeds() -> None:
    searcher = make_searcher(study(LR))
    for index in range(3):
        searcher.suggest(str(index))
    for epoch, index, loss in [(1, 0, 1.0), (1, 1, 2.0), (2, 0, 0.5), (1, 2, 6.0), (2, 1, 1.0)]:
        searcher.on_trial_result(str(index), result(epoch, loss))
    assert searcher.study.trials[0].intermediate_values == {1: 3.0}


def test_a_resume_runs_what_had_not_ended_and_counts_what_had() -> None:
    ended = past(0, Outcome.COMPLETED, values=(1.0,), intermediate={4: 1.0})
    interrupted = past(1, Outcome.INTERRUPTED, attempt=1, epochs=2, intermediate={1: 5.0, 2: 4.0})
    searcher = make_searcher(study(LR), [ended, interrupted])
    configs: list[Any] = [searcher.suggest(str(index)) for index in range(3)]
    progress = [(each["trial"], each["attempt"], each["resume"], each["epochs_known"]) for each in configs]
    assert progress == [("0000.1", 2, True, 2), ("0000.2", 0, False, 0), ("0001.0", 0, False, 0)]
    for name, loss in (("0", 2.0), ("1", 6.0)):
        searcher.on_trial_complete(name, result(4, loss, "completed"))
    assert told(searcher)[0] == (TrialState.COMPLETE, 3.0)
    assert searcher.study.trials[0].intermediate_values == {4: 3.0}


def test_a_resume_gives_optuna_the_proposals_that_had_ended() -> None:
    whole = [past(index, Outcome.COMPLETED, values=(loss,)) for index, loss in enumerate((1.0, 2.0, 6.0))]
    stopped = [
        past(index, outcome, 1, values=values, intermediate={1: 4.0 + index, 2: 1.0} if index else {1: 4.0})
        for index, (outcome, values) in enumerate([(Outcome.STOPPED_EARLY, None), *[(Outcome.COMPLETED, (1.0,))] * 2])
    ]
    searcher = make_searcher(study(LR), [*whole, *stopped])
    assert told(searcher) == [(TrialState.COMPLETE, 3.0), (TrialState.PRUNED, 5.0)]
    assert searcher.suggest("a") == "FINISHED"


def record(trial: str, loss: float | None, outcome: Outcome = Outcome.COMPLETED, **others: Any) -> TrialRecord:
    number = int(trial.partition(".")[0])
    objectives = {"validation_loss": loss}
    return TrialRecord(
        study="s", workload="w", trial=trial, number=number, objectives=objectives, outcome=outcome, **others
    )


def test_the_mean_over_the_seeds_ranks_and_only_where_all_completed() -> None:
    records = [
        record("0000.0", 1.0), record("0000.1", 3.0),
        record("0001.0", 0.5), record("0001.1", 9.0),
        record("0002.0", 0.1), record("0002.1", 0.1, Outcome.STOPPED_EARLY),
        record("0003.0", 0.2), record("0003.1", math.nan),
        record("0004.0", 0.3),
    ]  # fmt: skip
    ranked = rank(records, "validation_loss")
    assert [(each.trial, each.objectives["validation_loss"]) for each in ranked] == [("0000", 2.0), ("0001", 4.75)]
    assert [each.outcome for each in proposals(records)][2:] == [
        Outcome.STOPPED_EARLY,
        Outcome.COMPLETED,  # but without a finite mean
        Outcome.RUNNING,
    ]


def test_a_proposal_takes_the_time_of_all_its_trainings() -> None:
    first = record("0000.0", 1.0, started=10.0, updated=20.0, ended=20.0, training_seconds=9.0, epochs=3)
    second = record("0000.1", 1.0, started=12.0, updated=30.0, ended=30.0, training_seconds=15.0, epochs=4)
    (found,) = proposals([second, first])
    assert (found.started, found.ended, found.training_seconds, found.epochs) == (10.0, 30.0, 24.0, 4)


def test_single_trials_are_their_own_proposals() -> None:
    records = [record("0001", 1.0), record("0000", None, Outcome.ERROR)]
    assert proposals(records) == records[::-1]
