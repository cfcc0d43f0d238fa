import json
import math
from pathlib import Path

import pytest

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.report.summary import StudyReport, study_report, summarize
from tests.report.synthetic import record, write_study


def _report(*records: TrialRecord, objectives: tuple[str, ...] = ("validation_loss",)) -> StudyReport:
    return summarize("synthetic", "digits_mlp", objectives, records)


def _completed(number: int, **objectives: float | None) -> TrialRecord:
    return record(number, outcome=Outcome.COMPLETED, objectives=objectives)


def test_a_whole_study(tmp_path: Path) -> None:
    report = study_report(write_study(tmp_path / "study").directory)
    assert sum(report.outcomes.values()) == report.budget.trials == 30
    assert report.budget.confirmations == 10
    losses = [each.objectives["validation_loss"] for each in report.ranking]
    assert losses == sorted(losses)
    assert report.best is report.ranking[0]
    assert report.pareto == ()
    assert [each.candidate for each in report.confirmations] == ["best", "default"]
    assert [(each.metric, each.verdict) for each in report.differences] == [
        ("test_accuracy", "better"),
        ("test_loss", "better"),
    ]
    assert {failure.reason for failure in report.failures} == {"validation loss became NaN in epoch 2"}


def test_a_broken_trial_never_ranks() -> None:
    good = _completed(5, validation_loss=0.5)
    broken = [_completed(n, validation_loss=value) for n, value in enumerate((math.nan, math.inf, -math.inf, None))]
    stopped = record(6, outcome=Outcome.STOPPED_EARLY, objectives={"validation_loss": 0.1})
    diverged = record(7, outcome=Outcome.DIVERGED, objectives={"validation_loss": 0.1})
    confirmed = record(8, outcome=Outcome.COMPLETED, objectives={"validation_loss": 0.1}, phase="confirm")
    assert _report(*broken, stopped, diverged, confirmed, good).ranking == (good,)


def test_the_direction_is_that_of_the_metric() -> None:
    low, high = (_completed(n, validation_accuracy=value) for n, value in enumerate((0.5, 0.9)))
    assert _report(low, high, objectives=("validation_accuracy",)).best is high


def test_the_front_holds_what_nothing_beats_in_everything() -> None:
    points = [(0.1, 9.0), (0.2, 5.0), (0.3, 5.0), (0.4, 1.0), (0.5, 2.0), (0.05, math.nan)]
    trials = [_completed(n, validation_loss=a, training_seconds=b) for n, (a, b) in enumerate(points)]
    report = _report(*trials, objectives=("validation_loss", "training_seconds"))
    assert [each.number for each in report.pareto] == [0, 1, 3]


def test_equal_trials_are_both_on_the_front() -> None:
    trials = [_completed(n, validation_loss=0.1, training_seconds=1.0) for n in range(2)]
    assert len(_report(*trials, objectives=("validation_loss", "training_seconds")).pareto) == 2


def test_the_budget_counts_overlapping_trials_once_in_wall_clock() -> None:
    spans = ((0.0, 10.0), (5.0, 12.0), (20.0, 21.0))
    trials = [
        record(n, outcome=Outcome.COMPLETED, started=start, ended=end, training_seconds=4.0, attempt=n)
        for n, (start, end) in enumerate(spans)
    ]
    budget = _report(*trials).budget
    assert (budget.wall_seconds, budget.device_seconds, budget.retries) == (13.0, 12.0, 3)


def test_an_empty_study_has_a_report() -> None:
    report = _report()
    assert report.best is None
    assert report.to_dict()["best"] == []


def test_failed_confirmations_are_counted() -> None:
    good = record(0, phase="confirm", candidate="best", outcome=Outcome.COMPLETED, test_loss=0.1, seed=1)
    bad = record(1, phase="confirm", candidate="best", outcome=Outcome.DIVERGED, test_loss=math.nan, seed=2)
    (confirmation,) = _report(good, bad).confirmations
    assert (confirmation.runs, confirmation.failed) == (1, 1)
    assert confirmation.metrics["test_loss"].n == 1
    assert "test_accuracy" not in confirmation.metrics


def test_the_dictionary_is_strict_json(tmp_path: Path) -> None:
    report = study_report(write_study(tmp_path / "study").directory)
    values = json.loads(json.dumps(report.to_dict(limit=3), allow_nan=False))
    assert values["schema"] == 1
    assert values["objectives"] == [{"metric": "validation_loss", "direction": "minimize"}]
    assert len(values["best"]) == 3
    assert values["best"][0]["parameters"]["momentum"] == 0.9
    assert values["confirmations"][0]["metrics"]["test_accuracy"]["n"] == 5
    assert values["differences"][0]["verdict"] == "better"


def test_a_ranked_trial_with_another_objective_missing_is_still_json() -> None:
    trial = _completed(0, validation_loss=0.1, training_seconds=math.inf)
    values = _report(trial, objectives=("validation_loss", "training_seconds")).to_dict()
    assert values["best"][0]["objectives"] == {"validation_loss": 0.1, "training_seconds": None}


def test_no_study_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no study there"):
        study_report(tmp_path)
