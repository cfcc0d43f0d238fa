import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from sngd_tune.errors import LedgerError
from sngd_tune.records.target import Target
from sngd_tune.report.comparison.figures import (
    held,
    profile_drawing,
    workload_drawings,
    write_comparison_figures,
)
from sngd_tune.report.comparison.summary import WorkloadResults, summarize_comparison
from tests.report.comparison.cells import FAST, MISSING, SECONDS, SLOW, empty, failing, method, workload


def _names(results: WorkloadResults) -> list[str]:
    report = summarize_comparison("trial", "sngd", [results])
    drawings = workload_drawings(report, report.workloads[0], results)
    for drawing in drawings.values():
        drawing.whole().canvas.draw()
    return list(drawings)


def test_a_comparison_gets_its_figures(tmp_path: Path) -> None:
    results = [workload(sngd=method(FAST), adamw=method(SLOW), sgd=method(MISSING))]
    report = summarize_comparison("trial", "sngd", results)
    paths = write_comparison_figures(tmp_path / "figures", report, results)
    assert [path.name for path in paths] == [
        *("profile.png", "digits_curves.png", "digits_times.png", "digits_search.png")
    ]
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 10_000


def test_values_are_held_between_evaluations() -> None:
    at, values = held([[1.0, 3.0], [2.0, 4.0]], [[10.0, 30.0], [20.0, 40.0]])
    np.testing.assert_array_equal(at, [2.0, 3.0, 4.0])
    np.testing.assert_array_equal(values, [[10.0, 30.0, 30.0], [20.0, 20.0, 40.0]])


def test_misses_stand_at_the_end_of_the_budget() -> None:
    results = workload(sngd=method((1.0, math.inf, 2.0)))
    report = summarize_comparison("trial", "sngd", [results])
    axis = workload_drawings(report, report.workloads[0], results)["times"].whole().axes[0]
    dots = [(line.get_marker(), float(line.get_xdata()[0])) for line in axis.lines if line.get_marker() in ("o", "x")]
    assert dots == [("o", 1.0), ("x", SECONDS), ("o", 2.0)]


def test_the_profile_rises_at_the_factors() -> None:
    results = [
        workload(sngd=method((1.0,)), adamw=method((2.0,))),
        workload("b", sngd=method((1.0,)), adamw=method((1.0,))),
    ]
    drawing = profile_drawing(summarize_comparison("trial", "sngd", results))
    assert drawing is not None
    lines = {line.get_label(): line for line in drawing.whole().axes[0].lines}
    curves = [(list(line.get_xdata()), list(line.get_ydata())) for line in lines.values()]
    assert ([1.0, 4.0], [1.0, 1.0]) in curves
    assert ([1.0, 2.0, 4.0], [0.5, 1.0, 1.0]) in curves


def test_what_there_is_nothing_of_is_not_drawn() -> None:
    assert _names(workload(sngd=empty(), adamw=failing())) == []
    assert _names(workload(sngd=method(FAST), adamw=failing())) == ["curves", "times", "search"]
    assert profile_drawing(summarize_comparison("t", "sngd", [workload(sngd=method(MISSING))])) is None
    assert profile_drawing(summarize_comparison("t", "sngd", [])) is None


def test_one_evaluation_many_methods_and_an_accuracy_are_drawn() -> None:
    one = method((1.0,))
    one = dataclasses.replace(one, epochs={name: epochs[:1] for name, epochs in one.epochs.items()})
    many = {f"m{n}": method(SLOW) for n in range(8)}
    assert _names(workload(sngd=one, **many)) == ["curves", "times", "search"]
    target = Target(metric="validation_accuracy", value=0.8, provenance="here")
    assert "curves" in _names(dataclasses.replace(workload(sngd=method(FAST), adamw=method(SLOW)), target=target))


def test_an_accuracy_that_nobody_measured_has_no_curves() -> None:
    results = method(FAST)
    epochs = {
        name: [dataclasses.replace(each, validation_accuracy=None) for each in of]
        for name, of in results.epochs.items()
    }
    target = Target(metric="validation_accuracy", value=0.8, provenance="here")
    measured = workload(sngd=dataclasses.replace(results, epochs=epochs))
    assert _names(dataclasses.replace(measured, target=target)) == ["times", "search"]


def test_figures_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    results = [workload(sngd=method((1.0,)))]
    (tmp_path / "figures").write_text("in the way")
    with pytest.raises(LedgerError, match=r"profile\.png: cannot be written"):
        write_comparison_figures(tmp_path / "figures", summarize_comparison("t", "sngd", results), results)
