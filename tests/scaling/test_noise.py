"""The gradient noise scale: unbiased, in plain coordinates and in those of the reconstruction."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from sngd_tune import SNGD, FisherSettings, reconstruct
from sngd_tune.errors import ConfigurationError
from sngd_tune.scaling.noise import Reconstructed, measure_noise, noise_scale, plain

EXAMPLES = 8


def drawn(rng, signal, noise, batches, dimension=100):
    """Gradients of batches, for known ``|∇|²`` and ``tr Σ``."""
    mean = rng.standard_normal(dimension)
    mean *= math.sqrt(signal) / np.linalg.norm(mean)
    return mean + rng.standard_normal((batches, dimension)) * math.sqrt(noise / dimension / EXAMPLES)


def test_signal_and_noise_are_estimated_without_bias():
    rng = np.random.default_rng(0)
    found = [noise_scale(x @ x.T, EXAMPLES) for x in (drawn(rng, 0.2, 10, 12) for _ in range(400))]
    for values, known in (([e.signal for e in found], 0.2), ([e.noise for e in found], 10)):
        error = np.std(values) / math.sqrt(len(values))
        assert abs(np.mean(values) - known) < 4 * error
    assert np.mean([each.low <= 50 <= each.high for each in found]) >= 0.93


def test_a_gradient_that_is_all_noise_has_an_open_interval():
    found = noise_scale((lambda x: x @ x.T)(drawn(np.random.default_rng(2), 1e-6, 10, 8)), EXAMPLES)
    assert found.high == math.inf
    assert found.low > 0


def test_equal_gradients_have_no_noise():
    found = noise_scale(np.ones((5, 5)), EXAMPLES)
    assert (found.size, found.low, found.high, found.signal) == (0, 0, 0, 1)


def test_the_estimate_is_that_of_two_batch_sizes():
    """Appendix A.1 of McCandlish et al. 2018, with one batch against all of them together."""
    x = drawn(np.random.default_rng(1), 1, 10, 6)
    small, large = np.square(x).sum(1).mean(), np.square(x.mean(0)).sum()
    b, B = EXAMPLES, 6 * EXAMPLES
    found = noise_scale(x @ x.T, EXAMPLES)
    assert found.signal == pytest.approx((B * large - b * small) / (B - b))
    assert found.noise == pytest.approx((small - large) / (1 / b - 1 / B))


def test_fewer_than_four_batches_are_refused():
    with pytest.raises(ConfigurationError, match="batches=3: must be ≥ 4"):
        noise_scale(np.eye(3), EXAMPLES)


def loss(model, batch):
    return (model(batch[0]) - batch[1]).square().mean()


@pytest.fixture
def trained():
    """A model that `SNGD` has trained for some steps, and batches."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 2)).double()
    scales = torch.logspace(-1, 1, 6, dtype=torch.float64)
    batches = [((x := torch.randn(16, 6).double() * scales), x[:, :2].sin()) for _ in range(12)]
    optimizer = SNGD(model, FisherSettings(root="eigh", fisher_interval=2, statistics_interval=1), lr=1e-3)
    for batch in batches:
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()
    return model, optimizer, batches


def test_the_reconstructions_coordinates_give_the_length_of_the_natural_gradient(trained):
    model, optimizer, batches = trained
    model.zero_grad()
    loss(model, batches[0]).backward()
    expected = 0.0
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            joint = torch.cat((module.weight.grad, module.bias.grad[:, None]), 1)
            expected += float((joint * optimizer.layers[name].root.precondition(joint)).sum())
        elif isinstance(module, nn.LayerNorm):
            expected += float(module.weight.grad.square().sum() + module.bias.grad.square().sum())
    assert float(Reconstructed(optimizer.layers)(model).square().sum()) == pytest.approx(expected)


def test_it_is_the_plain_scale_of_the_rebuilt_network():
    """`reconstruct` puts the local Fisher layers in; plain gradients there are those of ``W′``."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 2)).double()
    settings = FisherSettings(root="eigh", warmup_batches=0, fisher_interval=1, statistics_interval=1)
    rebuilt = reconstruct(model, settings)
    optimizer = SNGD(model, settings, base="sgd", lr=1e-12, momentum=0.0)
    base = torch.optim.SGD(rebuilt.parameters(), lr=1e-12)
    batches = [((x := torch.randn(16, 6).double()), x[:, :2].sin()) for _ in range(8)]
    for network, stepper in ((model, optimizer), (rebuilt, base)):
        loss(network, batches[0]).backward()
        stepper.step()
    rebuilt.eval()  # so that it takes no statistics
    fused = measure_noise(model, loss, batches, 16, {"sngd": Reconstructed(optimizer.layers)})["sngd"]
    explicit = measure_noise(rebuilt, loss, batches, 16, {"plain": plain})["plain"]
    assert fused.size == pytest.approx(explicit.size, rel=1e-6)


def test_measuring_disturbs_neither_model_nor_statistics(trained):
    model, optimizer, batches = trained
    before = [parameter.detach().clone() for parameter in model.parameters()]
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    state = {
        name: {k: v.clone() for k, v in layer.state_dict().items() if torch.is_tensor(v)}
        for name, layer in optimizer.layers.items()
    }
    found = measure_noise(model, loss, batches, 16, {"sgd": plain, "sngd": Reconstructed(optimizer.layers)})
    assert found["sgd"].batches == 12
    assert found["sgd"].size != found["sngd"].size
    for kept, parameter in zip(before, model.parameters(), strict=True):
        assert torch.equal(kept, parameter)
    for kept, parameter in zip(gradients, model.parameters(), strict=True):
        assert torch.equal(kept, parameter.grad)
    for name, layer in optimizer.layers.items():
        now = layer.state_dict()
        assert all(torch.equal(value, now[key]) for key, value in state[name].items())
