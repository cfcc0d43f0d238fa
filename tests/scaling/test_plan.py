"""Plans: times, memory and cost from the laws, with their error bars and what they rest on."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest

from sngd_tune.energy.cost import Prices
from sngd_tune.errors import ConfigurationError
from sngd_tune.records.scaling import Measurement
from sngd_tune.scaling.curves import Curves, fit_curves, fit_products
from sngd_tune.scaling.fits import NoFit
from sngd_tune.scaling.plan import Estimate, Wish, estimate, make_plan
from sngd_tune.scaling.priced import price_step, sized_trial
from tests.commands import invoke

BASE = {"width": 128, "batch_size": 64, "granularity": "input"}
METHODS = {
    "sngd": {"optimizer": "sngd", "base": "adamw", "lr": 3e-3, "granularity": "input", "rank": 16, "batch_size": 64},
    "sgd": {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "batch_size": 64},
}
AXES = {"width": (32, 64, 128, 256, 512), "batch_size": (16, 32, 64, 128, 256), "granularity": ("input", "kron")}


def step_seconds(width, batch_size):
    return 1e-8 * width**2 * batch_size**0.5


def measures(method, at):
    step = step_seconds(at["width"], at["batch_size"]) * (2 if method == "sngd" else 1)
    found = {"step_seconds": step, "peak_memory_bytes": 1e6 * at["width"]}
    return {**found, "seconds_to_target": math.inf if method == "sgd" else 1000 * step}


def study(noise=0.0):
    rng = np.random.default_rng(0)
    measured = [
        Measurement(axis=axis, value=x, method=method, seed=seed, measures=values)
        for axis, xs in AXES.items()
        for x in xs
        for method in METHODS
        for seed in range(3)
        for values in [measures(method, {**BASE, axis: x})]
        for values in [{k: v * math.exp(noise * rng.standard_normal()) for k, v in values.items()}]
    ]
    return Curves(workload="digits_mlp", base=BASE, methods=METHODS, curves=fit_curves(measured))


def grid(interaction, noise=0.0):
    """Of width and batch size: factors multiply but for ``(width / base) ** (interaction · log(batch / base))``."""
    rng, measured = np.random.default_rng(0), []
    for width, batch_size in itertools.product(AXES["width"], AXES["batch_size"]):
        power = interaction * math.log(batch_size / BASE["batch_size"])
        at, away = {"width": width, "batch_size": batch_size}, (width / BASE["width"]) ** power
        for seed in range(3):
            value = step_seconds(width, batch_size) * away * math.exp(noise * rng.standard_normal())
            for axis, other in (("width", "batch_size"), ("batch_size", "width")):
                held = {} if at[other] == BASE[other] else {other: at[other]}
                one = {"axis": axis, "value": at[axis], "held": held, "measures": {"step_seconds": value}}
                measured.append(Measurement(method="sgd", seed=seed, **one))
    curves = fit_curves(measured)
    products = fit_products(measured, curves, BASE)
    return Curves(workload="digits_mlp", base=BASE, methods=METHODS, curves=curves, products=products)


EXACT = study()


def test_several_axes_multiply():
    found = estimate(EXACT, "step_seconds", "sgd", {"width": 256, "batch_size": 128})
    assert found.value == pytest.approx(step_seconds(256, 128))
    assert found.beyond == ()


def test_a_grid_tells_how_well_the_laws_multiply():
    (found,) = grid(0.0).products
    assert (found.axes, found.points) == (("batch_size", "width"), 16)  # 5 × 5 without the cross of the base
    assert (found.low, found.high) == pytest.approx((1, 1))
    (found,) = grid(0.1).products
    corner = 4 ** (0.1 * math.log(4))  # four times the base on both axes, or a quarter of it
    assert (found.low, found.high) == pytest.approx((1 / corner, corner))
    assert found.error == pytest.approx(math.log(corner))


def test_what_the_product_misses_on_the_grid_widens_the_interval_to_hold_the_truth():
    asked, truth = {"width": 512.0, "batch_size": 256.0}, step_seconds(512, 256) * 4 ** (0.1 * math.log(4))
    curves = grid(0.1, noise=0.02)
    widened = estimate(curves, "step_seconds", "sgd", asked)
    bare = estimate(dataclasses.replace(curves, products=()), "step_seconds", "sgd", asked)
    assert not bare.low <= truth <= bare.high
    assert widened.low <= truth <= widened.high
    assert widened.value == bare.value
    alone = {"width": 512.0, "batch_size": 64.0}  # one axis away from its base: nothing is multiplied
    assert estimate(curves, "step_seconds", "sgd", alone) == estimate(
        dataclasses.replace(curves, products=()), "step_seconds", "sgd", alone
    )


def test_without_an_interaction_a_grid_hardly_widens_the_interval():
    asked = {"width": 512.0, "batch_size": 256.0}
    curves = grid(0.0, noise=0.02)
    widened = estimate(curves, "step_seconds", "sgd", asked)
    bare = estimate(dataclasses.replace(curves, products=()), "step_seconds", "sgd", asked)
    assert math.log(widened.high / widened.low) < 2 * math.log(bare.high / bare.low)


def test_the_command_says_how_well_laws_multiply_where_a_grid_tells_and_that_it_is_assumed_elsewhere(tmp_path, bare):
    file = tmp_path / "fits.json"
    file.write_text(json.dumps(grid(0.1).to_dict()), encoding="utf-8")
    assert Curves.read(file) == grid(0.1)
    arguments = ("--method", "sgd", "--set", "width=512", "--set", "batch_size=256", "--steps", 10)
    code, _, notes = invoke("plan", file, *arguments)
    assert code == 0
    assert "laws of batch_size and width multiply within a factor of 0.83 to 1.21 on the study's grid" in notes
    assert "assumed" not in notes


def test_fits_of_before_grids_were_checked_are_read(tmp_path):
    values, file = grid(0.1).to_dict(), tmp_path / "fits.json"
    del values["products"]
    file.write_text(json.dumps(values), encoding="utf-8")
    assert Curves.read(file) == dataclasses.replace(grid(0.1), products=())


def test_nothing_changed_is_the_base_point():
    for sizes in ({}, {"width": 128}):
        assert estimate(EXACT, "step_seconds", "sgd", sizes).value == pytest.approx(step_seconds(128, 64))


def test_what_lies_beyond_the_measured_range_is_named_and_less_certain():
    curves = study(noise=0.05)
    inside = estimate(curves, "step_seconds", "sgd", {"width": 256})
    beyond = estimate(curves, "step_seconds", "sgd", {"width": 4096})
    both = estimate(curves, "step_seconds", "sgd", {"width": 4096, "batch_size": 4})
    assert beyond.beyond == (("width", 4096, 32, 512),)
    assert [axis for axis, *_ in both.beyond] == ["width", "batch_size"]
    widths = [math.log(each.high / each.low) for each in (inside, beyond, both)]
    assert widths == sorted(widths)
    assert beyond.low < step_seconds(4096, 64) < beyond.high


def test_a_study_is_rounds_of_trainings_and_idle_devices_are_paid():
    wish = Wish(sizes={"width": 256}, trials=10, workers=4, steps=1000, devices=2, prices=Prices(device_hour=3.0))
    plan = make_plan(EXACT, "sgd", wish)
    seconds = 1000 * step_seconds(256, 64)
    assert plan.training_seconds.value == pytest.approx(seconds)
    assert plan.study_seconds.value == pytest.approx(3 * seconds)  # 4, 4 and 2 at a time
    assert plan.device_hours.value == pytest.approx(3 * seconds * 8 / 3600)
    assert plan.cost.value == pytest.approx(plan.device_hours.value * 3)
    assert plan.memory_bytes.value == pytest.approx(256e6)
    assert (plan.missing, plan.extrapolated) == ((), ())


def test_without_steps_a_training_ends_at_the_target_and_a_missed_target_is_no_figure():
    assert make_plan(EXACT, "sngd", Wish(sizes={})).training_seconds.value == pytest.approx(
        2000 * step_seconds(128, 64)
    )
    plan = make_plan(EXACT, "sgd", Wish(sizes={"width": 256}, prices=Prices(device_hour=1.0)))
    assert plan.training_seconds is plan.study_seconds is plan.cost is None
    assert plan.step_seconds is not None
    assert "missed target" in plan.missing[0]


def test_no_price_is_assumed():
    assert make_plan(EXACT, "sngd", Wish(sizes={})).cost is None


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"sizes": {"width": -1.0}}, "width=-1: must be above 0"),
        ({"sizes": {"width": math.inf}}, "width=inf"),
        ({"sizes": {}, "trials": 0}, "trials=0: must be ≥ 1"),
        ({"sizes": {}, "steps": 0}, "steps=0: must be ≥ 1"),
    ],
)
def test_a_wish_out_of_range_is_refused(wish, message):
    with pytest.raises(ConfigurationError, match=message):
        Wish(**wish)


def test_an_axis_or_method_that_was_not_looked_at_is_refused():
    with pytest.raises(ConfigurationError, match="did you mean 'width'"):
        estimate(EXACT, "step_seconds", "sgd", {"widht": 3.0})
    with pytest.raises(ConfigurationError, match="granularity: its values are no numbers"):
        estimate(EXACT, "step_seconds", "sgd", {"granularity": 3.0})
    with pytest.raises(ConfigurationError, match="did you mean 'sngd'"):
        make_plan(EXACT, "sngdd", Wish(sizes={}))


def test_a_law_that_is_not_there_is_said():
    bare = dataclasses.replace(EXACT, curves=())
    assert isinstance(estimate(bare, "step_seconds", "sgd", {"width": 256}), NoFit)
    assert isinstance(estimate(bare, "step_seconds", "sgd", {}), NoFit)


def test_a_trial_of_another_size_is_made_of_axes_of_both_kinds():
    sized = sized_trial("digits_mlp", METHODS["sngd"], {"width": 32.0, "batch_size": 16.0, "workers": 4.0})
    assert sized.workload.axes["width"] == 32
    assert (sized.trial.batch_size, sized.trial.fisher.rank) == (16, 16)
    with pytest.raises(ConfigurationError, match=r"width=32\.5: must be a whole number"):
        sized_trial("digits_mlp", METHODS["sngd"], {"width": 32.5})


def test_a_step_of_a_size_that_was_never_trained_is_timed(bare):
    sngd, sgd = (price_step(sized_trial("digits_mlp", METHODS[name], {"width": 48}), None) for name in METHODS)
    assert sngd.measured
    assert min(sngd.seconds, sngd.sgd, sgd.seconds) > 0
    assert sgd.seconds == sgd.sgd
    with pytest.raises(ConfigurationError, match="has no price"):
        price_step(sized_trial("digits_mlp", {"optimizer": "muon", "lr": 0.01}, {}), None)


@pytest.fixture
def fits(tmp_path, bare):
    file = tmp_path / "fits.json"
    file.write_text(json.dumps(study(noise=0.05).to_dict()), encoding="utf-8")
    return file


def test_the_command_prints_a_plan_and_what_it_rests_on(fits):
    code, table, notes = invoke("plan", fits, "--set", "width=1024", "--set", "batch_size=128", "--trials", 20)
    assert code == 0
    assert all(word in table for word in ("sngd", "sgd", "device-hours", "extrapolated", "not known", "GB"))
    assert "width=1024 lies beyond the measured 32 to 512" in notes
    assert "batch_size and width: were changed one at a time" in notes
    assert "sgd: seconds_to_target: no law along width: a missed target" in notes


def test_the_command_gives_the_same_as_json(fits):
    arguments = ("--method", "sngd", "--set", "width=256", "--workers", 2, "--trials", 5, "--steps", 100)
    code, output, _ = invoke("plan", fits, *arguments, "--price-per-device-hour", 2, "--format", "json")
    assert code == 0
    (plan,) = json.loads(output)["plans"]
    expected = make_plan(
        Curves.read(fits),
        "sngd",
        Wish(sizes={"width": 256}, trials=5, workers=2, steps=100, prices=Prices(device_hour=2.0)),
    )
    assert Estimate(**{**plan["cost"], "beyond": ()}) == expected.cost
    assert plan["cost_model"]["bytes"] > 0
    assert plan["extrapolated"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "width"), "--set width: must be an axis and a number"),
        (("--set", "width=wide"), "must be an axis and a number"),
        (("--method", "adam"), "not in these fits"),
        (("--workers", "0"), "workers=0: must be ≥ 1"),
        (("--price-per-device-hour", "-1"), "a price is a finite number"),
    ],
)
def test_bad_input_is_refused_with_exit_code_2(fits, arguments, message):
    code, output, error = invoke("plan", fits, *arguments)
    assert (code, output) == (2, "")
    assert message in error
