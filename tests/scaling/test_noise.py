"""The gradient noise scale: unbiased, in plain coordinates and in those of the reconstruction."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from sngd_tune import SNGD, FisherSettings, reconstruct
from sngd_tune.errors import ConfigurationError
from sngd_tune.scaling.coordinates import Adaptive, Reconstructed, coordinates_of, plain
from sngd_tune.scaling.noise import Products, measure_noise, noise_scale

EXAMPLES = 8


def drawn(rng, signal, noise, batches, dimension=100):
    """Gradients of batches, for known ``|∇|²`` and ``tr Σ``."""
    mean = rng.standard_normal(dimension)
    mean *= math.sqrt(signal) / np.linalg.norm(mean)
    return mean + rng.standard_normal((batches, dimension)) * math.sqrt(noise / dimension / EXAMPLES)


def scale_of(x):
    """Of gradients in rows."""
    products = x @ x.T
    return noise_scale(Products(products.diagonal(), products.sum(1)), EXAMPLES)


def test_signal_and_noise_are_estimated_without_bias():
    rng = np.random.default_rng(0)
    found = [scale_of(x) for x in (drawn(rng, 0.2, 10, 12) for _ in range(400))]
    for values, known in (([e.signal for e in found], 0.2), ([e.noise for e in found], 10)):
        error = np.std(values) / math.sqrt(len(values))
        assert abs(np.mean(values) - known) < 4 * error
    assert np.mean([each.low <= 50 <= each.high for each in found]) >= 0.93


def test_a_gradient_that_is_all_noise_has_an_open_interval():
    found = scale_of(drawn(np.random.default_rng(2), 1e-6, 10, 8))
    assert found.high == math.inf
    assert found.low > 0


def test_equal_gradients_have_no_noise():
    found = scale_of(np.ones((5, 1)))
    assert (found.size, found.low, found.high, found.signal) == (0, 0, 0, 1)


def test_the_estimate_is_that_of_two_batch_sizes():
    """Appendix A.1 of McCandlish et al. 2018, with one batch against all of them together."""
    x = drawn(np.random.default_rng(1), 1, 10, 6)
    small, large = np.square(x).sum(1).mean(), np.square(x.mean(0)).sum()
    b, B = EXAMPLES, 6 * EXAMPLES
    found = scale_of(x)
    assert found.signal == pytest.approx((B * large - b * small) / (B - b))
    assert found.noise == pytest.approx((small - large) / (1 / b - 1 / B))


def test_fewer_than_four_batches_are_refused():
    with pytest.raises(ConfigurationError, match="batches=3: must be ≥ 4"):
        scale_of(np.eye(3))


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


@pytest.mark.parametrize("name", ["sngd", "adamw", "nadamw"])
def test_the_own_coordinates_of_adam_give_the_length_of_its_step(trained, name):
    """Without a first moment the step is ``−lr P ∇``, so ``⟨∇, P ∇⟩`` is read from how far the parameters moved."""
    model, first, batches = trained
    first.detach()
    settings = FisherSettings(root="eigh", warmup_batches=0, fisher_interval=2, statistics_interval=1)
    optimizer = {
        "sngd": lambda: SNGD(model, settings, base="adamw", lr=1e-3, betas=(0.0, 0.9)),
        "adamw": lambda: torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.0, 0.9), weight_decay=0.0),
        "nadamw": lambda: torch.optim.NAdam(model.parameters(), lr=1e-3, betas=(0.0, 0.9), momentum_decay=0.0),
    }[name]()
    assert set(coordinates_of(model, optimizer)) == {"plain"}  # there is no second moment yet
    for batch in batches[:3]:
        optimizer.zero_grad()
        loss(model, batch).backward()
        before = [parameter.detach().clone() for parameter in model.parameters()]
        optimizer.step()
    moved = zip(before, model.parameters(), strict=True)
    expected = sum(float(((old - p.detach()) * p.grad).sum()) for old, p in moved) / 1e-3
    own = coordinates_of(model, optimizer)["own"]
    assert isinstance(own, Adaptive)
    assert float(own(model).square().sum()) == pytest.approx(expected)


def test_methods_without_such_a_preconditioner_have_plain_coordinates_alone(trained):
    model, optimizer, _ = trained
    assert coordinates_of(model, torch.optim.SGD(model.parameters()))["own"] is plain
    assert set(coordinates_of(model, torch.optim.RMSprop(model.parameters()))) == {"plain"}
    assert coordinates_of(reconstruct(model, FisherSettings()), optimizer) == {}


def test_both_passes_over_a_model_with_dropout_draw_the_same_and_leave_no_trace(trained):
    _, _, batches = trained
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 2)).double()
    rows = []

    def kept(seen):
        rows.append(plain(seen))
        return rows[-1]

    state = torch.get_rng_state()
    found = measure_noise(model, loss, batches, 16, {"kept": kept})["kept"]
    assert torch.equal(torch.get_rng_state(), state)
    first, second = torch.stack(rows[:12]), torch.stack(rows[12:])
    assert torch.equal(first, second)
    products = (first @ first.T).numpy()
    expected = noise_scale(Products(products.diagonal(), products.sum(1)), 16)
    assert (found.size, found.low, found.high) == pytest.approx((expected.size, expected.low, expected.high))
    assert not torch.equal(*(plain_of(model, batches[0]) for _ in range(2)))  # it does draw


def plain_of(model, batch):
    model.zero_grad()
    loss(model, batch).backward()
    return plain(model)


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
