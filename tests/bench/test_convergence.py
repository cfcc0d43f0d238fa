"""Who gets there first: the target is the baselines' best end, and what misses it or diverges says so."""

import json
import math

import pytest
import torch

from sngd_tune.bench import convergence
from sngd_tune.bench.convergence import measure
from sngd_tune.errors import ConfigurationError


def of(rows, setting):
    return next(row for row in rows if row["setting"] == setting)


@pytest.fixture
def _few(monkeypatch):
    sgd, diverging = convergence._sgd(0.1), convergence._sgd(1e38)
    monkeypatch.setattr(convergence, "BASELINES", {"sgd": sgd, "slow": convergence._sgd(1e-6)})
    candidates = {"same": sgd, "still": convergence._sgd(1e-9), "off": diverging, "default": convergence._sngd()}
    monkeypatch.setattr(convergence, "CANDIDATES", candidates)


@pytest.mark.usefixtures("_few")
def test_rows_tell_who_reaches_the_target():
    before = torch.get_num_threads()
    rows = measure(["digits_mlp"], None, steps=60, batch_size=64)
    assert torch.get_num_threads() == before
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    sgd, same = of(rows, "sgd"), of(rows, "same")
    assert {row["target"] for row in rows} == {sgd["loss"]}
    assert same["loss"] == sgd["loss"]  # the same weights, the same batches
    assert sgd["steps_to_target"] == same["steps_to_target"] <= 60
    assert 0 < sgd["seconds_to_target"] <= 0.06 * sgd["milliseconds"] * 1.01
    assert of(rows, "still")["steps_to_target"] is None
    assert of(rows, "still")["loss"] > sgd["loss"]
    assert of(rows, "off")["loss"] is of(rows, "off")["steps_to_target"] is None
    assert of(rows, "default")["loss"] < of(rows, "still")["loss"]


def test_without_a_target_everything_misses():
    look = convergence._Look(10, 1.0, 0.5)
    assert convergence._figures([look], math.nan)["steps_to_target"] is None
    assert convergence._figures([look], 0.5) == {
        "loss": 0.5,
        "target": 0.5,
        "steps_to_target": 10,
        "seconds_to_target": 1.0,
        "milliseconds": 100.0,
    }


def test_an_unknown_workload_is_refused():
    with pytest.raises(ConfigurationError, match="mnist_mpl"):
        measure(["mnist_mpl"], None)
