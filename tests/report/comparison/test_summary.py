import dataclasses
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sngd_tune.records.outcome import Outcome
from sngd_tune.report.comparison.stability import Count
from sngd_tune.report.comparison.summary import ComparisonReport, MethodResults, WorkloadResults, summarize_comparison
from sngd_tune.report.comparison.values import WorkloadSummary
from tests.report.comparison.cells import (
    FAST,
    MISSING,
    SEEDS,
    SLOW,
    confirmation,
    curve,
    empty,
    failing,
    method,
    trial,
    workload,
)


def _report(*results: WorkloadResults) -> ComparisonReport:
    return summarize_comparison("trial of methods", "sngd", results)


def _only(results: WorkloadResults) -> WorkloadSummary:
    return _report(results).workloads[0]


def _changed(results: MethodResults, **changes: object) -> MethodResults:
    return dataclasses.replace(results, **changes)


def test_a_candidate_that_is_faster_than_all_has_won() -> None:
    found = _only(workload(adamw=method(SLOW), sngd=method(FAST), sgd=method(MISSING)))
    assert [each.method for each in found.methods] == ["sngd", "adamw", "sgd"]
    assert (found.result, found.best_baseline, found.notes) == ("won", "adamw", ())
    own, adamw, sgd = found.methods
    assert (own.seconds_ratio, own.differences) == (None, ())
    assert adamw.seconds_ratio is not None
    assert (adamw.seconds_ratio.verdict, adamw.seconds_ratio.median) == ("faster", pytest.approx(0.5))
    assert sgd.seconds_ratio is not None
    assert sgd.seconds_ratio.high == 0.0
    assert found.sentence == (
        "digits: sngd won: faster to the target than every other method that has a winner; "
        "than adamw (0.50 times its seconds, 94 % interval 0.43 to 0.55, 5 seeds), the best of them."
    )


def test_slower_than_one_is_lost_however_many_are_beaten() -> None:
    found = _only(workload(sngd=method(SLOW), adamw=method(FAST), sgd=method(MISSING)))
    assert found.result == "lost"
    assert found.sentence.startswith("digits: sngd lost: slower to the target than adamw (2.00 times its seconds")
    assert "sgd (" not in found.sentence


def test_figures_of_a_method() -> None:
    own = _only(workload(sngd=method((1.0, 3.0, 2.0, math.inf, math.inf)), adamw=method(SLOW))).methods[0]
    assert own.seconds is not None
    assert own.steps is not None
    assert own.seconds.reached == Count(count=3, of=5)
    assert (own.seconds.median, own.seconds.low, own.seconds.high) == (3.0, 1.0, math.inf)
    assert (own.steps.median, own.steps.low) == (60.0, 60.0)  # the third evaluation of 20 steps
    assert (own.trials, own.planned, own.device_seconds) == (4, 4, 40.0)
    assert own.outcomes == {Outcome.COMPLETED: 4}
    assert own.best is not None
    assert (own.best.trial, own.best.parameters["lr"]) == ("0000", pytest.approx(0.1))
    assert own.test["test_accuracy"].mean == pytest.approx(0.908)
    assert own.test["test_accuracy"].deviation == pytest.approx(0.0083666, rel=1e-4)


def test_progress_counts_every_trial_that_ended_and_only_good_ones_lead() -> None:
    results = method(FAST)
    search = [
        trial(0, 0.5, ended=3.0),
        trial(1, 0.4, ended=1.0, training_seconds=2.0),
        trial(2, math.nan, ended=2.0, outcome=Outcome.DIVERGED, training_seconds=1.0),
        trial(3, 0.1, ended=4.0, outcome=Outcome.STOPPED_EARLY),
        trial(4, 0.3, ended=5.0),
        trial(5, None, ended=None, outcome=Outcome.RUNNING),
    ]
    confirmed = [each for each in results.trials if each.phase == "confirm"]
    own = _only(workload(sngd=_changed(results, trials=[*search, *confirmed]))).methods[0]
    assert [(each.trials, each.device_seconds, each.best) for each in own.progress] == [
        (1, 2.0, 0.4),
        (2, 3.0, 0.4),
        (3, 13.0, 0.4),
        (4, 23.0, 0.4),
        (5, 33.0, 0.3),
    ]
    assert own.status == "incomplete"


def test_time_is_of_the_fastest_settings_and_the_test_metric_of_the_best() -> None:
    results = method(FAST)
    epochs = dict(results.epochs) | {"0001": curve(0.5)}  # the second trial reached the target first
    pending = _changed(results, epochs=epochs)
    own = _only(workload(sngd=pending, adamw=method(SLOW))).methods[0]
    assert (own.timed, own.runs, own.status) == ("fastest", (), "incomplete")
    assert own.lacks == ("settings for time trained again on 0 of 5 seeds",)
    quick = [confirmation("fastest", seed, accuracy=0.5) for seed in SEEDS]
    epochs |= {each.trial: curve(0.6) for each in quick}
    own = _only(workload(sngd=_changed(pending, trials=[*results.trials, *quick], epochs=epochs))).methods[0]
    assert own.seconds is not None
    assert (own.seconds.median, own.status) == (pytest.approx(0.6), "complete")
    assert own.fastest is not None
    assert (own.fastest.trial, own.fastest.seconds) == ("0001", pytest.approx(0.5))
    assert own.test["test_accuracy"].mean == pytest.approx(0.908)


def test_a_failed_training_is_a_miss_and_has_no_test_metric() -> None:
    results = method(FAST)
    failed = [
        dataclasses.replace(each, outcome=Outcome.ERROR, test_accuracy=0.99) if each.seed == SEEDS[0] else each
        for each in results.trials
    ]
    own = _only(workload(sngd=_changed(results, trials=failed), adamw=method(SLOW))).methods[0]
    assert own.seconds is not None
    assert own.seconds.reached == Count(count=4, of=5)
    assert own.test["test_accuracy"].n == 4
    assert own.status == "complete"
    assert len(own.failures) == 1


def test_a_worse_test_metric_is_said_before_a_win() -> None:
    good, bad = (0.95, 0.96, 0.95, 0.96, 0.95), (0.80, 0.81, 0.80, 0.82, 0.81)
    report = _report(workload(sngd=method(FAST, bad), adamw=method(SLOW, good)))
    sentence = report.workloads[0].sentence
    assert report.workloads[0].result == "won"
    assert sentence.index("worse in test accuracy than adamw") < sentence.index("won: faster")
    assert report.sentence.index("worse in the test metric") < report.sentence.index("won on")


def test_the_whole_says_losses_first_and_counts() -> None:
    won, lost = (
        workload("easy", sngd=method(FAST), adamw=method(SLOW)),
        workload("hard", sngd=method(SLOW), adamw=method(FAST)),
    )
    report = _report(won, lost)
    assert report.result == "neither"
    assert report.sentence.startswith("sngd lost on 1 of 2 workloads (hard); won on 1 of 2 workloads (easy)")
    scores = {each.method: each.score for each in report.profile}
    assert scores == pytest.approx({"sngd": 0.8167, "adamw": 0.8167}, abs=1e-4)  # 2.1 times the best on one of two
    assert _report(won).result == "won"
    assert _report(won, lost, lost).result == "lost"


def test_nobody_reached() -> None:
    found = _only(workload(sngd=method(MISSING), adamw=method(MISSING)))
    assert (found.result, found.best_baseline) == ("neither", None)
    assert "did not reach the target, and no other method did" in found.sentence
    once = (1.0, *(math.inf for _ in range(4)))
    seldom = _only(workload(sngd=method(MISSING), adamw=method(once)))
    assert (seldom.result, seldom.best_baseline) == ("neither", None)
    assert "did not reach the target, and adamw did on a minority of the seeds" in seldom.sentence


def test_equal_methods_are_no_difference() -> None:
    found = _only(workload(sngd=method(FAST), adamw=method(FAST)))
    assert found.result == "neither"
    assert "no difference is shown in time to the target from adamw (1.00 times" in found.sentence
    assert [each.verdict for each in found.methods[1].differences] == ["no difference", "no difference"]


def test_one_seed_is_too_few_and_one_method_has_no_other() -> None:
    found = _only(workload(sngd=method((1.0,)), adamw=method((2.0,))))
    assert (found.result, found.methods[1].differences[0].verdict) == ("neither", "too few runs")
    assert "too few runs" in found.sentence
    alone = _only(workload(sngd=method(FAST)))
    assert (alone.result, alone.best_baseline) == ("neither", None)
    assert "no other method" in alone.sentence


def test_a_search_that_failed_whole_has_lost_to_one_that_reached() -> None:
    lost = _only(workload(sngd=failing(), adamw=method(FAST)))
    assert (lost.result, lost.methods[0].status) == ("lost", "complete")
    assert lost.sentence.startswith("digits: sngd lost, as none of its trials")
    assert "sngd: no trial of its search completed" in lost.notes[0]
    won = _only(workload(sngd=method(FAST), adamw=method(SLOW), sgd=failing()))
    assert won.result == "won"
    nobody = _only(workload(sngd=failing(), adamw=failing()))
    assert (nobody.result, nobody.best_baseline) == ("neither", None)


def test_missing_cells_are_reported_and_decide_nothing() -> None:
    found = _only(workload(sngd=method(FAST), adamw=method(SLOW), sgd=empty()))
    assert (found.result, found.methods[2].status) == ("neither", "missing")
    assert "sgd: not begun" in found.notes
    assert "neither won nor lost so far: sgd not complete" in found.sentence
    begun = _only(workload(sngd=empty(), adamw=method(SLOW)))
    assert (begun.result, begun.methods[0].status) == ("neither", "missing")
    elsewhere = _only(workload(adamw=method(SLOW)))
    assert elsewhere.sentence == "digits: the candidate does not run here."


def test_confirmations_that_are_missing_are_counted_against_the_plan() -> None:
    three = method(dict(zip(SEEDS[:3], FAST, strict=False)))
    found = _only(workload(sngd=three, adamw=method(SLOW)))
    assert found.methods[0].status == "incomplete"
    assert "sngd: best settings trained again on 3 of 5 seeds" in found.notes
    assert any("seeds of the re-trainings differ (sngd 3, adamw 5)" in note for note in found.notes)
    assert found.methods[1].seconds_ratio is not None
    assert found.methods[1].seconds_ratio.n == 3
    both = _only(workload(seeds=5, sngd=three, adamw=three))
    assert [each.status for each in both.methods] == ["incomplete", "incomplete"]
    assert [each.status for each in _only(workload(sngd=three, adamw=three)).methods] == ["complete", "complete"]


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"search": {"trials": 8}}, "trials of the search differ: sngd 4, adamw 8"),
        ({"seconds": 20.0}, "seconds of a training differ: sngd 10.0, adamw 20.0"),
        ({"epochs": 3}, "epochs of a training differ: sngd 8, adamw 3"),
        ({"epoch_examples": 100}, "examples between evaluations differ: sngd None, adamw 100"),
        ({"search": {"trials": 4, "sampler": "random"}}, "samplers differ: sngd tpe, adamw random"),
    ],
)
def test_unequal_budgets_are_noted(changes: dict[str, object], note: str) -> None:
    found = _only(workload(sngd=method(FAST), adamw=method(SLOW, **changes)))
    assert note in found.notes


def test_a_training_beyond_its_limit_and_another_limit_are_noted() -> None:
    results = method(SLOW)
    long = [dataclasses.replace(each, training_seconds=15.0) for each in results.trials]
    found = _only(workload(sngd=method(FAST), adamw=_changed(results, trials=long)))
    assert "a training of adamw took 15 s of the 10 s it was given" in found.notes
    other = dataclasses.replace(workload(sngd=method(FAST)), seconds=30.0)
    assert "each training was given 10 s, not 30 s" in _only(other).notes


def test_a_workload_without_accuracy_is_judged_by_its_loss() -> None:
    def plain(results: MethodResults) -> MethodResults:
        return _changed(results, trials=[dataclasses.replace(each, test_accuracy=None) for each in results.trials])

    found = _only(workload(sngd=plain(method(FAST)), adamw=plain(method(SLOW))))
    assert list(found.methods[0].test) == ["test_loss"]
    assert [each.metric for each in found.methods[1].differences] == ["test_loss"]


def test_json_has_null_and_missed_for_what_was_not_reached() -> None:
    report = _report(
        workload(sngd=method(FAST), adamw=method(MISSING)), workload("other", sngd=failing(), adamw=empty())
    )
    values = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert values["schema"] == 1
    own, adamw = values["workloads"][0]["methods"]
    assert (adamw["seconds"]["median"], adamw["seconds"]["missed"]) == (None, ["median", "low", "high"])
    assert "missed" not in own["seconds"]
    assert adamw["runs"][0] == {
        "seed": 1000,
        "outcome": "completed",
        "seconds": None,
        "steps": None,
        "missed": ["seconds", "steps"],
    }
    assert values["workloads"][0]["target"]["direction"] == "minimize"
    assert values["workloads"][1]["methods"][0]["best"] is None
    assert values["profile"][0]["factors"] == {"digits": 1.0, "other": None}
    assert values["profile"][0]["missed"] == ["other"]


def test_scalars_are_finite_and_named_by_workload_and_method() -> None:
    scalars = _report(workload(sngd=method(FAST), adamw=method(MISSING))).scalars()
    assert all(math.isfinite(value) for value in scalars.values())
    assert scalars["digits/sngd/seconds_to_target"] == 1.0
    assert scalars["digits/adamw/candidate_seconds_ratio"] == 0.0
    assert scalars["digits/adamw/share_reached"] == 0.0
    assert "digits/adamw/seconds_to_target" not in scalars
    assert scalars["sngd/profile_score"] == 1.0


def test_nothing_at_all() -> None:
    report = _report()
    assert (report.result, report.sentence) == ("neither", "sngd was not compared on any workload.")
    assert report.to_dict()["workloads"] == []


_CELLS = st.one_of(
    st.lists(st.one_of(st.floats(0.1, 10), st.just(math.inf)), min_size=1, max_size=5).map(method),
    st.builds(failing),
    st.builds(empty),
)


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(["sngd", "adamw", "sgd", "muon"]), _CELLS, min_size=1))
def test_any_mixture_of_cells_has_a_report(cells: dict[str, MethodResults]) -> None:
    report = _report(workload(**cells))
    json.dumps(report.to_dict(), allow_nan=False)
    found = report.workloads[0]
    assert {each.method for each in found.methods} == set(cells)
    verdicts = [each.seconds_ratio.verdict for each in found.methods if each.seconds_ratio]
    assert found.result != "won" or ("faster" in verdicts and "slower" not in verdicts)
    assert "slower" not in verdicts or found.result == "lost"
    assert found.sentence.endswith(".")
