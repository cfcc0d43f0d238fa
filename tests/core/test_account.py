"""Each parameter exactly once, with a local Fisher layer or the reason why not: tied, shared, lazy, parametrized."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from sngd_tune import SNGD, FisherSettings, account, predicted_memory, reconstruct, restore
from sngd_tune.errors import ReconstructionError, SettingsError

SETTINGS = FisherSettings(relative_damping=0.1, fisher_interval=4, statistics_interval=2, warmup_batches=1)


def reasons(model, settings=SETTINGS):
    return {entry.parameter: entry.reason for entry in account(model, settings) if entry.treatment == "plain"}


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return x + self.norm(self.conv(x)).relu()


def resnet():
    stem = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    return nn.Sequential(stem, Residual(4), Residual(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


class Language(nn.Module):
    def __init__(self, tied):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.lstm = nn.LSTM(6, 6, num_layers=2, batch_first=True)
        self.head = nn.Linear(6, 11, bias=False)
        self.scales = nn.ParameterList([nn.Parameter(torch.ones(6)) for _ in range(2)])
        self.register_buffer("offset", torch.zeros(6))
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens):
        x = self.embedding(tokens) * self.scales[0] + self.offset
        return self.head(self.lstm(x)[0] * self.scales[1])


def transformer():
    return nn.Transformer(8, 2, 1, 1, 12, batch_first=True)


@pytest.mark.parametrize("make", [resnet, lambda: Language(False), lambda: Language(True), transformer])
def test_every_parameter_is_told_exactly_once(make):
    model = make()
    assert [entry.parameter for entry in account(model, SETTINGS)] == [name for name, _ in model.named_parameters()]
    assert all(entry.treatment in ("local Fisher", "plain") and entry.reason for entry in account(model, SETTINGS))


def test_what_stays_plain_in_the_models_people_have():
    norms = {"0.1", "1.norm", "2.norm"}
    assert reasons(resnet()) == {
        f"{name}.{part}": "no local Fisher layer for BatchNorm2d" for name in norms for part in ("weight", "bias")
    }
    assert reasons(Language(False)) == {f"scales.{i}": "no local Fisher layer for ParameterList" for i in range(2)}
    assert set(reasons(transformer()).values()) == {"no local Fisher layer for LayerNorm"}


def test_tied_weights_name_each_other():
    assert reasons(Language(True))["embedding.weight"] == "tied to head.weight"


def test_weights_tied_inside_one_module_are_told():
    layer = nn.Linear(3, 3)
    layer.copy = layer.weight
    assert reasons(nn.Sequential(layer, nn.Linear(3, 2)))["0.weight"] == "tied to 0.copy"


class Twice(nn.Module):
    """One layer under two names, called twice in a forward pass."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = self.first
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.second(self.first(x).tanh()).tanh())


def train(model, optimizer, steps=12):
    generator = torch.Generator().manual_seed(3)
    for _ in range(steps):
        optimizer.zero_grad()
        x = torch.randn(8, 4, generator=generator, dtype=torch.float64)
        (model(x) - 1).square().mean().backward()
        optimizer.step()


def test_a_module_under_two_names_is_one_layer_in_both_forms():
    torch.manual_seed(0)
    model = Twice().double()
    rebuilt = reconstruct(model, SETTINGS)
    assert [entry.parameter for entry in account(model, SETTINGS)] == [name for name, _ in model.named_parameters()]
    assert rebuilt.first is rebuilt.second
    optimizer = SNGD(model, SETTINGS, lr=1e-2, base="sgd")
    assert list(optimizer.layers) == ["first", "head"]
    train(model, optimizer)
    train(rebuilt, torch.optim.SGD(rebuilt.parameters(), lr=1e-2, momentum=0.9))
    plain = restore(rebuilt)
    assert plain.first is plain.second
    assert type(plain.first) is nn.Linear
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)


def test_both_calls_of_a_module_enter_the_statistics():
    torch.manual_seed(0)
    model = Twice().double()
    optimizer = SNGD(model, FisherSettings(granularity="diagonal", warmup_batches=0), base="sgd")
    x = torch.randn(8, 4, dtype=torch.float64)
    model(x)
    optimizer.detach()
    layer, both = optimizer.layers["first"], torch.cat((x, model.first(x).tanh().detach()))
    expected = torch.cat((both.square().mean(0), torch.ones(1)))
    torch.testing.assert_close(layer.state_value / layer.state_weight, expected)


def test_lazy_modules_ask_for_a_batch_first():
    model = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2))
    for build in (SNGD, reconstruct, lambda model: account(model, SETTINGS)):
        with pytest.raises(
            ReconstructionError, match=r"0\.weight: has no shape yet.*run a batch through the model first"
        ):
            build(model)
    model(torch.randn(2, 3))
    assert reasons(model) == {}


def test_parametrized_weights_are_plain_with_the_reason():
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 4)), nn.Linear(4, 2))
    computed = "its layer's weight is computed from it (torch.nn.utils.parametrize)"
    assert reasons(model) == {
        "0.bias": "Linear with a parametrized weight",
        "0.parametrizations.weight.original0": computed,
        "0.parametrizations.weight.original1": computed,
    }
    assert list(SNGD(model, base="sgd").layers) == ["1"]


def test_pruned_weights_are_plain_with_the_reason():
    """Pruning keeps the class and puts a computed tensor in the weight's place."""
    model = nn.Sequential(prune.random_unstructured(nn.Linear(3, 4), "weight", 0.5), nn.Linear(4, 2))
    assert reasons(model)["0.weight_orig"] == "not a weight of this layer"
    assert reasons(model)["0.bias"].startswith("its weight is computed before each forward pass")
    assert list(SNGD(model, base="sgd").layers) == ["1"]


def test_frozen_and_unmatched_layers_are_told():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    told = reasons(model, {"[02]": SETTINGS})
    assert told == {
        **{f"0.{name}": "frozen" for name in ("weight", "bias")},
        **{f"1.{name}": "no settings pattern matches it" for name in ("weight", "bias")},
    }
    model[0].requires_grad_(True)
    told = reasons(model, {"[01]": "none", "0": SETTINGS, "*": SETTINGS})
    assert {name for name, reason in told.items() if reason == "'[01]' says 'none'"} == {
        *("0.weight", "0.bias", "1.weight", "1.bias")
    }


class Functional(nn.Module):
    """Uses a layer's weight past its forward."""

    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(nn.functional.linear(x, self.hidden.weight, self.hidden.bias))


def test_a_weight_that_its_layer_never_applies_is_named():
    model = Functional().double()
    optimizer = SNGD(model, FisherSettings(warmup_batches=0), lr=1e-3, base="sgd")
    with pytest.warns(UserWarning, match="^hidden: its forward pass has not been seen"):
        train(model, optimizer, steps=1)


ENTRANCES = {
    "SNGD": lambda model, settings: [entry.reason for entry in SNGD(model, settings).account],
    "account": lambda model, settings: [entry.reason for entry in account(model, settings)],
    "reconstruct": lambda model, settings: [layer.fishers[0].settings for layer in reconstruct(model, settings)],
    "predicted_memory": predicted_memory,
}


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_plain_values_are_settings_at_every_entrance(entrance):
    model, look = nn.Sequential(nn.Linear(9, 4), nn.Linear(4, 2)), ENTRANCES[entrance]
    one, other = FisherSettings(rank=2), FisherSettings(granularity="block:2")
    assert look(model, {"rank": 2}) == look(model, one) != look(model, other)
    by_layer = {"1": {"granularity": "block:2"}, "*": one}
    assert look(model, by_layer) == look(model, {"1": other, "*": one}) != look(model, one)
    with pytest.raises(SettingsError, match=r"^\{\}: names neither a setting nor a layer"):
        look(model, {})
    with pytest.raises(SettingsError, match=r"^'encoder': matches no module; the modules are 0, 1$"):
        look(model, {"encoder": {"rank": 2}})
