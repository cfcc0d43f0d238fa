"""From ledgers to the points of scaling curves."""

import math
from typing import Any

import pytest

from sngd_tune.records.outcome import Outcome
from sngd_tune.records.target import Target
from sngd_tune.report.page import render
from sngd_tune.report.scaling.figures import parts_drawings
from sngd_tune.report.scaling.laws import worker_scalings
from sngd_tune.report.scaling.page import scaling_page
from sngd_tune.report.scaling.summary import summarize_scaling
from sngd_tune.report.scaling.tables import WORKER_COLUMNS, worker_rows
from sngd_tune.report.scaling.words import sentences
from sngd_tune.scaling.fits import PowerLaw
from sngd_tune.scaling.measures import measure, measurements, use_of
from tests.scaling.scaled import config, points, training

TARGET = Target(metric="validation_loss", value=0.2, provenance="a test")


def test_times_of_a_step_leave_out_the_first_epoch() -> None:
    found = measure(training(points()["base.sngd"], 0, 0.001), TARGET)
    assert found["step_seconds"] == pytest.approx(0.001)
    assert found["forward_backward_seconds"] == pytest.approx(0.00075)
    assert found["overhead_seconds"] == pytest.approx(0.00025)
    assert found["examples_per_second"] == pytest.approx(50_000)


def test_communication_is_neither_the_passes_nor_the_overhead() -> None:
    found = measure(training(points()["base.sngd"], 0, 0.001, communication=0.2), None)
    assert found["communication_seconds"] == pytest.approx(0.0002)
    assert found["forward_backward_seconds"] == pytest.approx(0.00055)
    assert found["overhead_seconds"] == pytest.approx(0.00025)


def test_the_efficiency_of_workers_stands_beside_the_share_of_communication() -> None:
    changes: dict[str, Any] = {"axes": {"workers": [1, 2, 4]}, "fixed": {"batch_size": 64}}
    planned = points(**changes)
    shares = {1: 0.0, 2: 0.2, 4: 0.5}
    made = [
        training(point, seed, 0.01 / (1 - shares[n]) / n, communication=shares[n])
        for point in planned.values()
        for seed in range(2)
        for n in [int(point.axes["workers"])]
    ]
    report = summarize_scaling(config(**changes), TARGET, list(planned.values()), {"base": made})
    for found in worker_scalings(report):
        assert found.communication == pytest.approx(tuple(shares.values()))
        assert [1 - each.efficiency for each in found.efficiencies] == pytest.approx(list(shares.values()))
        assert [row["communication"] for row in found.to_dict()["efficiencies"]] == pytest.approx(found.communication)
    assert [row[WORKER_COLUMNS.index("of it communication")] for row in worker_rows(report)][:3] == ["0%", "20%", "50%"]
    drawing = parts_drawings(report)["workers_parts_sngd"]
    assert "communication" in [key.get_label() for key in drawing.keys]
    assert drawing.whole().axes[0].get_yscale() == "log"  # though one worker waits 0 s


def test_a_target_is_reached_at_the_first_evaluation_beyond_it_and_a_miss_is_infinite() -> None:
    made = training(points()["base.sngd"], 0, 0.001)
    found = measure(made, TARGET)
    assert (found["steps_to_target"], found["examples_to_target"], found["reached"]) == (60, 3000, 1)
    missed = measure(made, Target(metric="validation_loss", value=0.1, provenance="a test"))
    assert (missed["steps_to_target"], missed["reached"]) == (math.inf, 0)


def test_a_training_lies_on_the_curve_of_the_axis_that_was_moved_and_the_base_on_all() -> None:
    planned = points(axes={"width": [32, 64], "batch_size": [50, 100]})
    made = [training(point, 0, 0.001) for point in planned.values()]
    found = measurements(made, ("width", "batch_size"), TARGET)
    along = {
        axis: {(each.method, each.value) for each in found if each.axis == axis} for axis in ("width", "batch_size")
    }
    assert along["width"] == {("sngd", 64), ("sngd", 32), ("sgd", 64), ("sgd", 32)}
    assert along["batch_size"] == {("sngd", 50), ("sngd", 100), ("sgd", 50), ("sgd", 100)}


def test_in_a_grid_a_curve_stands_beside_each_value_of_the_other_axis() -> None:
    planned = points(axes={"width": [32, 64], "batch_size": [50, 100]}, grid=True)
    made = [training(point, 0, 0.001) for point in planned.values()]
    found = [each for each in measurements(made, ("width", "batch_size"), None, grid=True) if each.method == "sgd"]
    held = {(each.axis, each.value, tuple(each.held.items())) for each in found}
    assert len(planned) == 8
    assert ("width", 32, (("batch_size", 100),)) in held
    assert ("width", 32, ()) in held


def test_losses_are_compared_after_seconds_that_every_training_of_the_axis_had() -> None:
    planned = points()
    fast, slow = training(planned["base.sgd"], 0, 0.001), training(planned["width=128.sgd"], 0, 0.0011)
    found = {each.value: each.measures["loss_at_budget"] for each in measurements([fast, slow], ("width",), None)}
    assert found[64] == fast.epochs[-1].validation_loss
    assert found[128] == slow.epochs[1].validation_loss


def test_what_failed_measures_nothing_and_is_named() -> None:
    planned = points()
    made = [
        training(planned["base.sgd"], 0, 0.001),
        training(planned["width=32.sgd"], 0, 0.001, outcome=Outcome.OUT_OF_MEMORY, error="x\npredicted: 9 GB"),
    ]
    assert {each.value for each in measurements(made, ("width",), None)} == {64}
    report = summarize_scaling(config(), None, list(planned.values()), {"base": made})
    assert [(each.trial, each.reason) for each in report.missing] == [("width=32.sgd.0", "predicted: 9 GB")]
    assert "predicted: 9 GB" in render(scaling_page(report, config()))


def test_the_idle_share_counts_places_and_leaves_out_pauses() -> None:
    point = points(trials_at_a_time=2)["base.sgd"]
    times = [(100.0, 110.0), (105.0, 115.0), (1000.0, 1005.0)]  # 15 s, then a pause, then 5 s
    made = [
        training(point, seed, 0.001, started=start, ended=end, training_seconds=8.0)
        for seed, (start, end) in enumerate(times)
    ]
    use = use_of(made)
    assert use is not None
    assert (use.trials, use.seconds, use.trials_per_hour) == (3, 20.0, 540.0)
    assert use.idle_share == pytest.approx(1 - 24 / 40)
    assert use_of([]) is None


def test_a_grid_says_how_well_its_laws_multiply() -> None:
    changes: dict[str, Any] = {"axes": {"width": [32, 64, 128], "batch_size": [25, 50, 100]}, "grid": True}
    planned = points(**changes)
    made = [
        training(point, 0, 1e-7 * width**2 * batch * (1.1 if (width, batch) == (128, 100) else 1))
        for point in planned.values()
        for width, batch in [(int(point.axes["width"]), int(point.axes["batch_size"]))]
    ]
    report = summarize_scaling(config(**changes), None, list(planned.values()), {"base": made})
    said = " ".join(sentences(report))
    assert "along batch size and width multiply within a factor of 0.91 to 1.00 on the grid (sngd, predicted" in said
    assert {each["points"] for each in report.to_dict()["products"]} == {4}


def test_the_exponent_of_a_step_comes_out_of_the_report_and_the_overhead_is_compared() -> None:
    changes = {"axes": {"width": [16, 32, 64, 128, 256]}}
    planned = points(**changes)
    power = {"sngd": 1.0, "sgd": 2.0}
    made = [
        training(point, seed, 1e-6 * int(point.axes["width"]) ** power[point.method] * (1 + 0.01 * seed))
        for point in planned.values()
        for seed in range(2)
    ]
    report = summarize_scaling(config(**changes), TARGET, list(planned.values()), {"base": made})
    for method, expected in power.items():
        series = report.series_of("width", "step_seconds", method)
        assert series is not None
        assert isinstance(series.law, PowerLaw)
        assert series.law.exponent == pytest.approx(expected, abs=1e-6)
    said = " ".join(sentences(report))
    assert "Does what sngd adds grow faster with width than a step of sgd? No: over such a step" in said
    assert "falls: power -1.00" in said
    page = render(scaling_page(report, config(**changes)))
    assert "Along width" in page
    assert "overhead sngd / step sgd" in page
    verdicts = {
        (each["over"]["measure"], each["over"]["beyond"]): each["verdict"] for each in report.to_dict()["ratios"]
    }
    assert verdicts["overhead_seconds", None] == verdicts["step_seconds", None] == "falls"
    assert "<script" not in page
