"""The noise scale of a point up to its target, over the seeds, and what a report says of it."""

import dataclasses
import json
import math

import pytest
from pydantic import ValidationError

from sngd_tune.records.target import Target
from sngd_tune.report.page import render
from sngd_tune.report.scaling.noise import noise_drawings, noise_rows, noise_sentences
from sngd_tune.report.scaling.page import scaling_page
from sngd_tune.report.scaling.summary import summarize_scaling
from sngd_tune.scaling.noise_course import noise_course, noise_to_target
from sngd_tune.search.scaling import plan_variants
from tests.scaling.scaled import config, epoch, points, training

TARGET = Target(metric="validation_loss", value=0.25, provenance="toy")  # which `epoch` reaches with its second one


def epochs(own, plain):
    """Four of them; None where nothing was measured."""
    return [
        dataclasses.replace(epoch(n, 1e-3, 0.5 / n), noise_scale=o, plain_noise_scale=p)
        for n, o, p in zip(range(1, 5), own, plain, strict=True)
    ]


def test_the_mean_is_geometric_and_ends_with_the_target():
    found = epochs([40, 90, None, 1000], [10, 10, None, 10])
    assert noise_to_target(found, TARGET) == pytest.approx(
        {"noise_scale": 60, "plain_noise_scale": 10, "noise_scale_ratio": 6}
    )
    assert noise_to_target(found, None)["noise_scale"] == pytest.approx((40 * 90 * 1000) ** (1 / 3))
    late = epochs([None, None, 70, 80], [None, None, 7, 8])
    assert noise_to_target(late, TARGET)["noise_scale"] == pytest.approx(70)
    assert noise_to_target(epochs([None] * 4, [None] * 4), TARGET) == {}


def test_an_epoch_drowned_in_noise_leaves_no_mean():
    found = noise_to_target(epochs([40, math.inf, 1, 1], [10, 10, 1, 1]), TARGET)
    assert found == pytest.approx({"noise_scale": math.inf, "plain_noise_scale": 10, "noise_scale_ratio": math.inf})
    course = noise_course("sngd", [epochs([40, math.inf, 1, 1], [10, 10, 1, 1])], TARGET)
    assert course.to_target.own == (math.inf, 0.0, math.inf)
    assert json.loads(json.dumps(course.to_dict(), allow_nan=False))["to_target"]["own"]["mean"] is None


def test_the_interval_is_over_the_seeds():
    seeds = [epochs([None, 20 * k, None, None], [None, 10 * k, None, None]) for k in (0.5, 1, 2)]
    stage = noise_course("sngd", seeds, TARGET).to_target
    assert stage.ratio == pytest.approx((2, 2, 2))  # of the same model, so the seeds' own scatter cancels
    assert stage.own[0] == pytest.approx(20)
    assert stage.own[1] < 10 < 40 < stage.own[2]
    assert (stage.seeds, stage.steps, stage.loss) == (3, 40, 0.25)


def report(own, plain=(10, 10, 10, 10)):
    """Base points with two seeds, and batch sizes at which ``B_crit`` of sngd is the larger one."""
    changes = {"axes": {"batch_size": [10, 20, 50, 100]}}
    planned = points(**changes)
    variants = [
        dataclasses.replace(
            made := training(point, seed, 1e-3),
            epochs=epochs(own if point.method == "sngd" else plain, plain),
        )
        for point in planned.values()
        for seed in range(2)
    ]
    assert made.complete
    return summarize_scaling(config(**changes), TARGET, list(planned.values()), {"base": variants}), config(**changes)


@pytest.mark.parametrize(
    ("own", "verdict"),
    [((30, 30, 1, 1), "preconditioning raises it"), ((3, 3, 1, 1), "preconditioning lowers it")],
)
def test_the_report_says_what_preconditioning_makes_of_it(own, verdict):
    found, _ = report(own)
    (first, second) = noise_sentences(found)
    assert verdict in first
    assert "sgd 10 (10 to 10), whose own coordinates are the plain ones" in first
    assert second.startswith("Does preconditioning raise the critical batch size of sngd?")
    assert [row[:2] for row in noise_rows(found)][4] == ("sngd", "to target")
    assert found.to_dict()["noise_scale"][0]["to_target"]["ratio"]["mean"] == pytest.approx(own[0] / 10)


def test_the_page_has_a_section_with_a_figure_a_method_and_a_table():
    found, study = report((30, math.inf, 1, 1))
    assert len(noise_drawings(found)["noise_scale"].panels) == 2
    page = render(scaling_page(found, study))
    assert 'id="noise-scale"' in page
    assert "drowned in noise" in page


def test_a_study_that_measured_none_says_nothing_of_it():
    found, study = report((None,) * 4, (None,) * 4)
    assert (noise_sentences(found), noise_rows(found), noise_drawings(found)) == ([], [], {})
    assert "noise scale" not in render(scaling_page(found, study))


def test_it_is_measured_at_points_of_one_worker():
    study = config(noise={"epochs": [1, 4]}, axes={"workers": [1, 2]})
    planned = list(points(noise={"epochs": [1, 4]}, axes={"workers": [1, 2]}).values())
    one, two = plan_variants(study, planned, {point.name: "digits_mlp" for point in planned})
    assert one.study.noise.epochs == (1, 4)
    assert two.study.noise is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise": {"epochs": [5]}}, "noise.epochs: 5: must be ≤ epochs=4"),
        ({"noise": {"batches": 3, "epochs": [1]}}, "greater than or equal to 4"),
        ({"noise": {"batches": 8}}, "Field required"),
        ({"noise": {"epochs": [1]}, "resources": {"workers": 2}}, "points of one worker, and there are none"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message.replace(".", r"\.")):
        config(**changes)
