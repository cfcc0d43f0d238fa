"""Which candidate a curve takes where a parameter is tuned anew along an axis."""

import dataclasses
import json
import statistics
from typing import Any

import numpy as np
import pytest

from sngd_tune.records.choice import Choice
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.target import Target
from sngd_tune.report.page import render
from sngd_tune.report.scaling.page import scaling_page
from sngd_tune.report.scaling.summary import summarize_scaling
from sngd_tune.report.scaling.values import ScalingReport
from sngd_tune.report.scaling.words import sentences
from sngd_tune.scaling.choice import choose
from sngd_tune.scaling.measures import Training, measurements
from tests.scaling.scaled import config, points, training

TARGET = Target(metric="validation_loss", value=0.2, provenance="a test")
SGD = {"sgd": {"optimizer": "sgd", "lr": 0.1}}
LR = {"lr": {"factors": [0.5, 1, 2], "axes": ["batch_size"]}}
CHANGES: dict[str, Any] = {"methods": SGD, "axes": {"batch_size": [50, 100]}, "tune": LR, "seeds": 3}
BASE = ("lr=0.05.sgd", "base.sgd", "lr=0.2.sgd")
MOVED = ("batch_size=100,lr=0.05.sgd", "batch_size=100.sgd", "batch_size=100,lr=0.2.sgd")


def trained(name: str, seed: int, reached: int | None, loss: float | None = None, **changes: Any) -> Training:
    """A training that reaches the target in an epoch of four, 20 steps each (None: it misses), and ends at a loss."""
    made = training(points(**CHANGES)[name], seed, 0.001, **changes)
    losses = [0.1 if reached is not None and n >= reached else 0.5 for n in range(1, 5)]
    epochs = [
        dataclasses.replace(epoch, validation_loss=value)
        for epoch, value in zip(made.epochs, [*losses[:3], losses[3] if loss is None else loss], strict=True)
    ]
    return Training(made.point, made.record, epochs)


def study(reached: dict[str, tuple[int | None, ...]]) -> list[Training]:
    """Epochs of the target by candidate, one a seed."""
    return [trained(name, seed, epoch) for name, found in reached.items() for seed, epoch in enumerate(found)]


def chosen(made: list[Training], target: Target | None = TARGET, **changes: Any) -> dict[Any, Choice]:
    every = {**CHANGES, **changes}
    found = choose(config(**every), points(**every).values(), made, target)
    return {(each.axis, each.value): each for each in found}


def report_of(made: list[Training], **changes: Any) -> ScalingReport:
    every = {**CHANGES, **changes}
    return summarize_scaling(config(**every), TARGET, list(points(**every).values()), {"base": made})


def test_the_best_reached_the_target_on_most_seeds_then_in_the_fewest_steps() -> None:
    fast_but_unsure = dict(zip(BASE, [(1, None, 1), (3, 3, 3), (2, 4, 2)], strict=True))
    choice = chosen(study(fast_but_unsure))["batch_size", 50]
    assert (choice.taken, choice.factors, choice.edges) == ("lr=0.2.sgd", {"lr": 2.0}, ("lr",))


def test_equal_steps_and_a_study_without_a_target_are_told_apart_by_the_loss() -> None:
    made = [
        trained(name, seed, 3, loss) for name, loss in zip(BASE, (0.15, 0.12, 0.14), strict=True) for seed in range(3)
    ]
    for target in (TARGET, None):
        choice = chosen(made, target)["batch_size", 50]
        assert (choice.taken, choice.edges, choice.agreed) == ("base.sgd", (), 3)


def test_what_failed_has_missed_the_target() -> None:
    made = [trained(name, seed, 3) for name in BASE[:2] for seed in range(3)]
    made += [trained(BASE[2], seed, 1, outcome=Outcome.DIVERGED) for seed in range(3)]
    assert chosen(made)["batch_size", 50].taken != BASE[2]


def test_a_seed_measures_the_candidate_that_the_other_seeds_chose() -> None:
    # Seed 0 alone likes the small rate: by the median of all the large one is best, and seed 0 measures it.
    epochs = dict(zip(BASE, [(2, 4, 4), (4, 4, 4), (3, 2, 2)], strict=True))
    made = study(epochs) + study(dict(zip(MOVED, [(2, 2, 2), (3, 3, 3), (4, 4, 4)], strict=True)))
    choices = chosen(made)
    assert choices["batch_size", 50].by_seed == dict.fromkeys(range(3), "lr=0.2.sgd")
    found = measurements(made, ("batch_size",), TARGET, choices=choices.values())
    steps = {value: [each.measures["steps_to_target"] for each in found if each.value == value] for value in (50, 100)}
    assert steps == {50: [60, 40, 40], 100: [40, 40, 40]}


def test_where_seeds_disagree_several_candidates_stand_at_one_value() -> None:
    choice = chosen(study(dict(zip(BASE, [(1, 4, 4), (4, 4, 1), (4, 1, 4)], strict=True))))["batch_size", 50]
    assert len(set(choice.by_seed.values())) > 1
    assert choice.agreed < 3


def test_a_choice_waits_until_a_seed_has_ended_with_all_candidates_and_nothing_is_measured_before() -> None:
    made = study({"base.sgd": (1, 1, 1), "lr=0.05.sgd": (1, 1, 1)})
    choices = chosen(made)
    assert {each.taken for each in choices.values()} == {None}
    assert measurements(made, ("batch_size",), TARGET, choices=choices.values()) == []
    made += study({"lr=0.2.sgd": (2,)})
    assert set(chosen(made)["batch_size", 50].by_seed) == {0}


def test_along_an_axis_where_nothing_is_tuned_the_base_has_the_files_setting() -> None:
    axes = {"batch_size": [50, 100], "width": [32, 64]}
    made = study(dict.fromkeys(BASE, (1, 1, 1)))
    choices = chosen(made, axes=axes)
    assert set(choices) == {("batch_size", 50), ("batch_size", 100)}
    every = points(**{**CHANGES, "axes": axes})
    moved = [Training(every[each.point.name], each.record, each.epochs) for each in made]
    found = measurements(moved, ("width",), TARGET, choices=choices.values())
    assert [(each.seed, each.value) for each in found] == [(0, 64), (1, 64), (2, 64)]


def test_the_chosen_loss_is_no_lower_than_that_of_a_training_not_looked_at() -> None:
    """Candidates that are all the same: the best of five on its own seeds would flatter by 0.4 standard deviations."""
    generator = np.random.default_rng(0)
    tune = {"lr": {"factors": [0.25, 0.5, 1, 2, 4], "axes": ["batch_size"]}}
    changes = {**CHANGES, "axes": {"batch_size": [50]}, "tune": tune}
    planned = points(**changes)
    blank = {name: [training(point, seed, 0.001) for seed in range(3)] for name, point in planned.items()}
    honest, flattering = [], []
    for _ in range(300):
        losses = {name: generator.normal(1, 0.1, 3) for name in planned}
        made = [
            Training(each.point, each.record, [dataclasses.replace(each.epochs[-1], validation_loss=float(loss))])
            for name, found in blank.items()
            for each, loss in zip(found, losses[name], strict=True)
        ]
        (choice,) = choose(config(**changes), planned.values(), made, None)
        honest += [losses[name][seed] for seed, name in choice.by_seed.items()]
        flattering += list(losses[str(choice.taken)])
    error = 0.1 / np.sqrt(len(honest))
    assert abs(statistics.fmean(honest) - 1) < 4 * error
    assert statistics.fmean(flattering) < 1 - 0.04


def test_the_report_says_what_was_tuned_what_was_taken_and_where_the_factors_end() -> None:
    made = study(dict(zip(BASE, [(4, 4, 4), (3, 3, 3), (4, 4, 4)], strict=True)))
    made += study(dict(zip(MOVED, [(4, 4, 4), (3, 3, 3), (2, 2, 2)], strict=True)))
    report = report_of(made)
    said = " ".join(sentences(report))
    assert "none was tuned anew" not in said
    assert (
        "Tuned anew: lr along batch size (× 0.5, 1, 2): each seed measures the candidate that the other seeds" in said
    )
    assert "Along batch size the best lr lies at the edge of × 0.5 to × 2: sgd at 100. Widen its factors." in said
    assert report.planned == 18
    series = report.series_of("batch_size", "steps_to_target", "sgd")
    assert series is not None
    assert series.values == {50: (60, 60, 60), 100: (40, 40, 40)}
    assert report.laws.methods["sgd"]["lr"] == 0.1  # the base point is the file's
    page = render(scaling_page(report, config(**CHANGES)))
    assert "batch_size=100,lr=0.2.sgd" in page
    assert "3 of 3 seeds" in page
    (_, far) = json.loads(json.dumps(report.to_dict(), allow_nan=False))["choices"]
    assert (far["value"], far["taken"], far["edges"]) == (100, "batch_size=100,lr=0.2.sgd", ["lr"])


def test_a_lone_seed_flatters_and_the_report_says_so() -> None:
    report = report_of(study(dict.fromkeys(BASE, (1,))), seeds=1)
    assert "the one seed chose for itself, which flatters; add seeds" in sentences(report)[0]


@pytest.mark.parametrize(("axes", "said"), [(["batch_size"], "lr tuned at each value"), (["width"], "the file's")])
def test_the_critical_batch_size_says_under_which_settings_it_is(axes: list[str], said: str) -> None:
    batches = [10, 25, 50, 100, 200]
    tune = {"lr": {"factors": [1, 2], "axes": axes}}
    changes = {**CHANGES, "axes": {"batch_size": batches, "width": [64]}, "tune": tune}
    made = [
        _reaching(point, seed, round(400 * (1 + 50 / float(point.axes["batch_size"])) * (1 + 0.01 * seed)))
        for point in points(**changes).values()
        for seed in range(3)
    ]
    report = summarize_scaling(config(**changes), TARGET, list(points(**changes).values()), {"base": made})
    assert f"Critical batch size, {said}" in " ".join(sentences(report))


def _reaching(point: Any, seed: int, steps: int) -> Training:
    made = training(point, seed, 0.001)
    last = dataclasses.replace(made.epochs[-1], steps=steps, validation_loss=0.1)
    return Training(point, made.record, [last])
