"""What holds of every method that a study can name."""

import io
import math
from typing import Any

import pytest
import torch

from sngd_tune.methods import METHODS as TABLE
from sngd_tune.methods import build, output_observer
from sngd_tune.records.parameters import PARAMETERS
from sngd_tune.training import Training
from tests.methods.problems import CLASSES, METHODS, WORKLOADS, Digitlike, training, trial


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> dict[str, Any]:
    return METHODS[request.param]


@pytest.fixture(params=WORKLOADS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def saved(state: dict[str, Any]) -> dict[str, Any]:
    """Through a file that holds tensors and numbers only."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return dict(torch.load(file, weights_only=True))


def trained(made: Training, epochs: int) -> list[torch.Tensor]:
    for _ in range(epochs):
        made.epoch()
    return [parameter.detach().clone() for parameter in made.model.parameters()]


def test_the_table_and_the_parameter_name_the_same_methods_and_each_is_tried() -> None:
    assert set(TABLE) == set(PARAMETERS["optimizer"].choices)
    assert {str(values.get("optimizer", "sngd")) for values in METHODS.values()} == set(TABLE)


@pytest.mark.slow
def test_it_trains_every_kind_of_network(method: dict[str, Any], kind: str) -> None:
    workload = WORKLOADS[kind]
    data = workload.load(None).train
    made = training(trial(epochs=4, **method), kind)
    inputs, targets = torch.tensor(data.inputs), torch.tensor(data.targets)
    with torch.no_grad():
        before = float(workload.loss(made.model(inputs), targets))
    losses = [made.epoch() for _ in range(4)]
    with torch.no_grad():
        after = float(workload.loss(made.model(inputs), targets))
    assert all(metrics.finite for metrics in losses)
    assert after < before - 0.01


def test_resumed_is_uninterrupted_bit_for_bit(method: dict[str, Any], kind: str) -> None:
    config = trial(epochs=2, lr_schedule="cosine", **method)
    whole = trained(training(config, kind), 2)
    begun, resumed = training(config, kind), training(config, kind)
    trained(begun, 1)
    resumed.load_state_dict(saved(begun.state_dict()))
    for one, other in zip(whole, trained(resumed, 1), strict=True):
        assert torch.equal(one, other)


def test_a_learning_rate_set_from_outside_takes_effect(method: dict[str, Any]) -> None:
    """Seen at the outputs, as refreshes of the explicit form change what its parameters mean."""
    model, optimizer = build(Digitlike().model(), config := trial(**method))
    observed = output_observer(model, optimizer, "softmax") if config.needs_likelihood else None
    inputs, targets = torch.randn(20, 36), torch.arange(20) % CLASSES

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        outputs = model(inputs)
        if observed is not None:
            observed(outputs)
        torch.nn.functional.cross_entropy(outputs, targets).backward()
        optimizer.step()
        return outputs.detach()

    for rate in (0.01, 0.0, 0.01):
        for group in optimizer.param_groups:
            group["lr"] = rate
        before, *_, after = [step() for _ in range(8)]
        still = torch.allclose(before, after, rtol=1e-4, atol=1e-5)
        assert still == (rate == 0.0)


def test_a_seed_repeats_a_run_and_another_does_not(method: dict[str, Any]) -> None:
    first, again, other = (trained(training(trial(seed=seed, **method)), 2) for seed in (3, 3, 4))
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not all(torch.equal(one, two) for one, two in zip(first, other, strict=True))


def test_every_parameter_of_the_model_is_in_one_group(method: dict[str, Any], kind: str) -> None:
    model, optimizer = build(WORKLOADS[kind].model(), trial(**method))
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())


@pytest.mark.parametrize("name", TABLE)
def test_a_study_that_names_only_the_method_trains(name: str) -> None:
    made = training(trial(epochs=6, optimizer=name))
    losses = [made.epoch().training_loss for _ in range(6)]
    assert math.isfinite(losses[-1])
    assert losses[-1] < losses[0]
