"""The gradient noise scale is measured beside a training, which goes on as it would without."""

import copy
import dataclasses
from typing import Any

import pytest
import torch

from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.records.study import NoiseConfig
from sngd_tune.records.trial import TrialConfig
from sngd_tune.trainables.noise import NoiseProbe
from sngd_tune.training import Training
from tests.examples.moons import MOONS

SPLITS = MOONS.load(None)
NOISE = NoiseConfig(batches=8, epochs=(1, 3))
NAMES = ("noise_scale", "noise_scale_low", "noise_scale_high")
PLAIN = tuple(f"plain_{name}" for name in NAMES)
METHODS: dict[str, dict[str, Any]] = {
    "sngd": {"optimizer": "sngd", "base": "adamw", "lr": 3e-3, "fisher_interval": 5, "statistics_interval": 2},
    "adamw": {"optimizer": "adamw", "lr": 3e-3},
    "sgd": {"optimizer": "sgd", "lr": 0.1},
}


def training(**parameters: Any) -> Training:
    trial = TrialConfig.from_flat({"batch_size": 50, **parameters}, workload="moons", epochs=3, seed=1)
    return Training(trial, MOONS, SPLITS)


def probe(**parameters: Any) -> NoiseProbe:
    return NoiseProbe(training(**parameters), NOISE, MOONS, SPLITS.train)


def to_the_end(trained: Training | NoiseProbe) -> list[EpochMetrics]:
    found = []
    while not trained.finished:
        found.append(trained.epoch())
    return found


def flat(state: Any) -> list[Any]:
    """The leaves of a state, tensors as lists."""
    if isinstance(state, dict):
        return [leaf for key, value in state.items() if key not in ("seconds", "energy") for leaf in flat(value)]
    if isinstance(state, list | tuple):
        return [leaf for value in state for leaf in flat(value)]
    return [state.tolist() if isinstance(state, torch.Tensor) else state]


@pytest.mark.parametrize("method", METHODS)
def test_a_training_with_dropout_goes_on_bit_for_bit_as_without(method: str) -> None:
    alone = training(**METHODS[method])
    epochs = to_the_end(alone)
    expected = flat(alone.state_dict())  # holds the states of torch's generators, too
    probed = probe(**METHODS[method])
    losses = [each.training_loss for each in to_the_end(probed)]
    assert losses == [each.training_loss for each in epochs]
    assert flat(probed.state_dict()) == expected


@pytest.mark.parametrize("method", METHODS)
def test_the_chosen_epochs_have_both_scales_and_the_others_none(method: str) -> None:
    for metrics in to_the_end(probe(**METHODS[method])):
        values = [getattr(metrics, name) for name in (*NAMES, *PLAIN)]
        if metrics.epoch == 2:
            assert values == [None] * 6
        else:
            own, low, high, plain, *_ = values
            assert 0 <= low <= own <= high
            assert (own == plain) == (method == "sgd")
            assert EpochMetrics.from_dict(metrics.to_dict()) == metrics


def test_the_same_seed_measures_the_same_after_it_goes_on_from_a_checkpoint() -> None:
    first = probe(**METHODS["sngd"])
    first.epoch()
    state = copy.deepcopy(first.state_dict())
    expected = to_the_end(first)[-1].noise_scale
    second = probe(**METHODS["sngd"])
    second.load_state_dict(state)
    assert to_the_end(second)[-1].noise_scale == expected is not None


def test_a_diverged_epoch_is_not_measured() -> None:
    diverging = training(optimizer="sgd", lr=0.1)
    with torch.no_grad():
        next(diverging.model.parameters()).fill_(torch.nan)
    metrics = NoiseProbe(diverging, NOISE, MOONS, SPLITS.train).epoch()
    assert not metrics.finite
    assert metrics.plain_noise_scale is None


def test_the_explicit_form_has_no_scale() -> None:
    explicit = {**METHODS["sngd"], "base": "sgd", "form": "explicit", "step_bound": "none"}
    assert all(getattr(to_the_end(probe(**explicit))[0], name) is None for name in (*NAMES, *PLAIN))


def test_metrics_of_before_it_was_measured_are_read_without_it() -> None:
    (metrics, *_) = to_the_end(training(**METHODS["sgd"]))
    past = {name: value for name, value in metrics.to_dict().items() if name not in (*NAMES, *PLAIN)}
    assert EpochMetrics.from_dict(past) == dataclasses.replace(metrics, noise_scale=None)
