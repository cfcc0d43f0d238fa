"""Curves: one fit for each axis, measure and method, kept in a file."""

import json
import math

import pytest

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.scaling import Measurement
from sngd_tune.scaling.curves import Curves, fit_curves
from sngd_tune.scaling.fits import NoFit, PowerLaw

WIDTHS = (32, 64, 128, 256, 512)


def points(axis="width", values=WIDTHS, method="sngd", **measures):
    return [
        Measurement(axis=axis, value=x, method=method, seed=seed, measures={k: f(x) for k, f in measures.items()})
        for x in values
        for seed in range(2)
    ]


def curves_of(measured):
    return Curves(
        workload="digits_mlp",
        base={"width": 128},
        methods={"sngd": {"optimizer": "sngd"}},
        curves=fit_curves(measured),
    )


def test_each_axis_measure_and_method_has_its_own_law():
    measured = points(step_seconds=lambda x: 1e-6 * x**2, peak_memory_bytes=lambda x: 100.0 * x)
    measured += points(method="sgd", step_seconds=lambda x: 1e-5 * x)
    curves = curves_of(measured)
    found = {(each.measure, each.method): each.law.exponent for each in curves.curves}
    assert found == pytest.approx(
        {("step_seconds", "sngd"): 2, ("peak_memory_bytes", "sngd"): 1, ("step_seconds", "sgd"): 1}
    )
    assert curves.find("width", "step_seconds", "sgd").law.repeats == 2
    assert curves.find("depth", "step_seconds", "sgd") is None


def test_what_is_not_to_be_fitted_is_not():
    assert curves_of(points(final_loss=lambda x: 1 / x)).curves == ()


def test_points_of_a_grid_away_from_the_base_do_not_enter():
    away = [
        Measurement(axis="width", value=x, method="sngd", seed=0, measures={"step_seconds": 1.0}, held={"depth": 9})
        for x in WIDTHS
    ]
    measured = points(step_seconds=lambda x: 1e-6 * x**2)
    assert fit_curves(measured + away) == fit_curves(measured)


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        (points(axis="granularity", values=("input", "kron", "unit"), step_seconds=lambda x: 1.0), "no numbers"),
        (points(seconds_to_target=lambda x: math.inf if x == 32 else 1.0), "missed target at 32"),
    ],
)
def test_an_axis_or_a_measure_without_a_law_says_why(measured, reason):
    (curve,) = fit_curves(measured)
    assert isinstance(curve.law, NoFit)
    assert reason in curve.law.reason


def test_a_rate_has_no_floor():
    (curve,) = fit_curves(points(examples_per_second=lambda x: 1000 + 1e6 / x))
    assert isinstance(curve.law, PowerLaw)
    assert curve.law.floor == 0


def test_curves_survive_their_file(tmp_path):
    curves = curves_of(
        points(
            step_seconds=lambda x: 1e-3 + 1e-6 * x**2 * (1.05 if x == 64 else 1), seconds_to_target=lambda x: math.inf
        )
    )
    file = tmp_path / "fits.json"
    file.write_text(json.dumps(curves.to_dict(), allow_nan=False), encoding="utf-8")
    assert Curves.read(file) == curves


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 1}', '{"schema": 2}', '{"schema": 1, "curves": [{}]}'])
def test_a_file_that_is_something_else_is_refused(tmp_path, text):
    file = tmp_path / "fits.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"fits\.json: "):
        Curves.read(file)
    with pytest.raises(ConfigurationError, match=r"missing\.json: not the fits"):
        Curves.read(tmp_path / "missing.json")
