"""`ExactNGD` against the dense Fisher matrix, formed and solved."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sngd_tune.core.dense import network_fisher
from sngd_tune.errors import ConfigurationError, NonFiniteError, SettingsError
from sngd_tune.methods.exact_ngd import MOST_BYTES, ExactNGD, predicted_bytes

LIKELIHOODS = ["softmax", "gaussian", "bernoulli"]


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def loss_of(likelihood: str, outputs: Tensor) -> Tensor:
    """Its mean over terms, for targets that are all of one kind."""
    if likelihood == "softmax":
        return nn.functional.cross_entropy(outputs.flatten(0, -2), torch.zeros(outputs[..., 0].numel()).long())
    if likelihood == "gaussian":
        return 0.5 * outputs.square().sum(-1).mean()
    return nn.functional.binary_cross_entropy_with_logits(outputs, torch.ones_like(outputs)) * outputs.shape[-1]


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def expected_direction(model: nn.Module, x: Tensor, likelihood: str, rho: float) -> Tensor:
    F = network_fisher(model, x, likelihood)
    lam = rho * float(F.diagonal().mean())
    gradient = flat([p.grad for p in model.parameters() if p.grad is not None])
    return torch.linalg.solve(F + lam * torch.eye(len(F), dtype=torch.float64), gradient)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), rho=st.floats(1e-4, 1e2), examples=st.integers(1, 40))
def test_a_step_is_the_dense_solution(likelihood: str, seed: int, rho: float, examples: int) -> None:
    """With fewer outputs than parameters, and with more."""
    model = network(seed)
    x = torch.randn(examples, 3, dtype=torch.float64)
    before = flat(list(model.parameters()))
    optimizer = ExactNGD(model, lr=0.5, relative_damping=rho, weight_decay=0.01)
    outputs = model(x)
    optimizer.observe_outputs(outputs, likelihood)
    loss_of(likelihood, outputs).backward()
    direction = expected_direction(model, x, likelihood, rho)
    optimizer.step()
    torch.testing.assert_close(
        flat(list(model.parameters())), (1 - 0.005) * before - 0.5 * direction, rtol=1e-9, atol=1e-9
    )


def test_positions_are_terms_of_their_own() -> None:
    """Of ``[2, 5, C]`` as of ``[10, C]``."""
    x = torch.randn(10, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    models = [network(1), network(1)]
    for model, inputs in zip(models, (x, x.view(2, 5, 3)), strict=True):
        optimizer = ExactNGD(model)
        outputs = model(inputs)
        optimizer.observe_outputs(outputs, "softmax")
        loss_of("softmax", outputs).backward()
        optimizer.step()
    torch.testing.assert_close(flat(list(models[0].parameters())), flat(list(models[1].parameters())))


def test_momentum_adds_up_natural_gradients() -> None:
    model, x = network(2), torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    optimizer = ExactNGD(model, lr=0.1, momentum=0.9, relative_damping=1.0)
    expected, velocity = flat(list(model.parameters())), torch.zeros(26, dtype=torch.float64)
    for _ in range(3):
        optimizer.zero_grad()
        outputs = model(x)
        optimizer.observe_outputs(outputs, "softmax")
        loss_of("softmax", outputs).backward()
        velocity = 0.9 * velocity + expected_direction(model, x, "softmax", 1.0)
        expected = expected - 0.1 * velocity
        optimizer.step()
        torch.testing.assert_close(flat(list(model.parameters())), expected, rtol=1e-9, atol=1e-9)


def test_what_does_not_reach_the_outputs_or_is_frozen_stays() -> None:
    model = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(2, 2)])
    model[2].requires_grad_(False)
    before = flat(list(model.parameters()))
    optimizer = ExactNGD(model, lr=1.0)
    outputs = model[2](model[0](torch.ones(4, 3)))
    optimizer.observe_outputs(outputs, "softmax")
    loss_of("softmax", outputs).backward()
    optimizer.step()
    moved = (flat(list(model.parameters())) != before).split([8, 8, 6])
    assert [bool(part.any()) for part in moved] == [True, False, False]


def test_what_takes_too_much_memory_is_refused_with_the_figures() -> None:
    model = nn.Linear(1000, 1000)
    outputs = model(torch.ones(1, 1000))
    assert predicted_bytes(1000, 1_001_000) > MOST_BYTES
    optimizer = ExactNGD(model)
    with pytest.raises(ConfigurationError, match=r"1,000 outputs of a batch by 1,001,000 .* 3.74 GiB.*smaller batch"):
        optimizer.observe_outputs(outputs, "softmax")
    assert predicted_bytes(500, 6570) == 500 * 6570 * 4 + 16 * 500**2


def test_a_step_without_outputs_and_outputs_without_a_graph_are_refused() -> None:
    model = network(0)
    optimizer = ExactNGD(model)
    with pytest.raises(SettingsError, match="call observe_outputs before"):
        optimizer.step()
    with pytest.raises(SettingsError, match="with their graph"):
        optimizer.observe_outputs(torch.ones(3, 2), "softmax")
    with pytest.raises(SettingsError, match="must be one of softmax"):
        optimizer.observe_outputs(model(torch.ones(3, 3).double()), "poisson")


@pytest.mark.parametrize("name", ["lr", "momentum", "relative_damping", "weight_decay"])
def test_values_out_of_range_are_refused(name: str) -> None:
    for value in (-1.0, float("nan")):
        with pytest.raises(SettingsError, match=f"{name}={value}: must be"):
            ExactNGD(network(0), **{name: value})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_are_an_error_of_the_numerics(value: float) -> None:
    model = network(0)
    optimizer = ExactNGD(model)
    outputs = model(torch.full((3, 3), value, dtype=torch.float64))
    optimizer.observe_outputs(outputs, "softmax")
    outputs.sum().backward()
    with pytest.raises(NonFiniteError, match="try a smaller lr"):
        optimizer.step()
