"""SNGD as a torch optimizer: state, resume, hooks, and what it refuses."""

import copy
import gc
import io
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

from sngd_tune import SNGD, FisherSettings
from sngd_tune.errors import FisherError, ReconstructionError, SettingsError
from tests.core.problems import SETTINGS, batches, network, relative_difference, settings, squared_error, steps

FORMS = [{"momentum": 0.9}, {"base": "adamw"}]


@pytest.mark.parametrize("arguments", FORMS)
@pytest.mark.parametrize("name", SETTINGS)
def test_resume_is_the_uninterrupted_run_bit_for_bit(name, arguments):
    data = batches(30)
    model = network()
    optimizer = SNGD(model, settings(name), lr=1e-2, **arguments)
    steps(model, optimizer, data[:13])
    buffer = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, buffer)
    steps(model, optimizer, data[13:])

    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    resumed = network(seed=9)
    resumed.load_state_dict(state["model"])
    again = SNGD(resumed, settings(name), lr=0.5, seed=77, **arguments)
    again.load_state_dict(state["optimizer"])
    steps(resumed, again, data[13:])
    for left, right in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(left, right)


@pytest.mark.slow
def test_resume_in_another_process(tmp_path):
    """The same bits after a restart of Python, from a file that is loaded with weights_only=True."""
    program = """
import sys, torch
from sngd_tune import SNGD
from tests.core.problems import batches, network, settings, steps
model, data = network(), batches(30)
optimizer = SNGD(model, settings("input-nystrom-2"), lr=1e-2, base="sgd")
if sys.argv[2] == "first":
    steps(model, optimizer, data[:13])
    torch.save([model.state_dict(), optimizer.state_dict()], sys.argv[1])
else:
    saved = torch.load(sys.argv[1], weights_only=True)
    model.load_state_dict(saved[0]); optimizer.load_state_dict(saved[1])
    steps(model, optimizer, data[13:])
    torch.save(model.state_dict(), sys.argv[1])
"""
    path = tmp_path / "state.pt"
    for part in ("first", "second"):
        subprocess.run([sys.executable, "-c", program, str(path), part], check=True, timeout=120)
    model = network()
    steps(model, SNGD(model, settings("input-nystrom-2"), lr=1e-2, base="sgd"), batches(30))
    resumed = torch.load(path, weights_only=True)
    assert all(torch.equal(resumed[name], value) for name, value in model.state_dict().items())


def test_loading_into_an_optimizer_in_mid_run_takes_its_schedule_over():
    """The state says that the coming step takes statistics; the optimizer's own coming step would not."""
    data, chosen = batches(30), settings("input-eigh", fisher_interval=8, statistics_interval=8)
    model = network()
    optimizer = SNGD(model, chosen, lr=1e-2, base="sgd")
    steps(model, optimizer, data[:10])
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    assert optimizer.layers["0"].observing
    steps(model, optimizer, data[10:])
    used = network()
    other = SNGD(used, chosen, lr=1e-2, base="sgd")
    steps(used, other, data[:14])
    assert not other.layers["0"].observing
    used.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    steps(used, other, data[10:])
    assert relative_difference(used, model) == 0


def test_load_state_dict_leaves_the_callers_dict_alone():
    model = network()
    optimizer = SNGD(model, settings("input-eigh"), base="sgd")
    steps(model, optimizer, batches(4))
    state = optimizer.state_dict()
    keys = set(state), set(state["fisher"])
    optimizer.load_state_dict(state)
    assert keys == (set(state), set(state["fisher"]))


def test_a_state_of_other_layers_is_refused():
    state = SNGD(network(), settings("input-eigh"), base="sgd").state_dict()
    with pytest.raises(ReconstructionError, match="the state holds 0, 2, 4, the model 0"):
        SNGD(nn.Sequential(nn.Linear(7, 3)).double(), base="sgd").load_state_dict(state)
    with pytest.raises(ReconstructionError, match="no local Fisher layers"):
        SNGD(network(), base="sgd").load_state_dict(torch.optim.SGD(network().parameters(), lr=1).state_dict())
    with pytest.raises(ReconstructionError, match="saved with other settings"):
        SNGD(network(), settings("diagonal"), base="sgd").load_state_dict(state)


def test_warm_up_leaves_the_parameters_alone():
    model = network()
    optimizer = SNGD(model, settings("input-eigh", warmup_batches=3), base="sgd")
    steps(model, optimizer, batches(3))
    assert relative_difference(model, network()) == 0
    steps(model, optimizer, batches(1))
    assert relative_difference(model, network()) > 0


def test_evaluation_and_copies_do_not_feed_the_statistics():
    model = network()
    optimizer = SNGD(model, settings("input-eigh"), base="sgd")
    x = batches(1)[0][0]
    average = copy.deepcopy(model)
    average(x)
    with torch.no_grad():
        model(x)
    model.eval()(x)
    assert all(layer.snapshot() is None for layer in optimizer.layers.values())
    model.train()(x)
    assert all(layer.snapshot() is not None for layer in optimizer.layers.values())


def test_an_optimizer_that_is_gone_observes_nothing_and_a_pickled_model_carries_none():
    model = network()
    optimizer = SNGD(model, settings("input-eigh"), base="sgd")
    clone = pickle.loads(pickle.dumps(model))
    clone(batches(1)[0][0])
    assert optimizer.layers["0"].snapshot() is None
    del optimizer
    gc.collect()
    model(batches(1)[0][0])


def test_detach_stops_observing():
    model = network()
    optimizer = SNGD(model, settings("input-eigh"), base="sgd")
    optimizer.detach()
    model(batches(1)[0][0])
    assert optimizer.layers["0"].snapshot() is None


def test_gradient_accumulation_is_the_joint_batch_where_it_should_be():
    """Two halves without a step in between: the gradient is the joint one, and no step is counted twice."""
    (x, y), chosen = batches(1)[0], settings("input-eigh", warmup_batches=0, decay=0.0, fisher_interval=1000)
    whole, halves = network(), network()
    for model, parts in ((whole, [slice(None)]), (halves, [slice(0, 16), slice(16, 32)])):
        optimizer = SNGD(model, chosen, lr=0.1, base="sgd")
        for part in parts:
            (squared_error(model(x[part]), y[part]) / len(parts)).backward()
        optimizer.step()
        assert optimizer.layers["0"].step == 1
    torch.testing.assert_close(whole[0].weight.grad, halves[0].weight.grad)


def test_closure_and_scheduler():
    model, (x, y) = network(), batches(1)[0]
    optimizer = SNGD(model, settings("input-eigh", warmup_batches=0), lr=0.1, base="sgd")
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)

    def closure():
        optimizer.zero_grad()
        loss = squared_error(model(x), y)
        loss.backward()
        return loss.item()

    first = optimizer.step(closure)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
    assert optimizer.step(closure) < first


def test_what_is_not_linear_trains_plain_and_is_listed():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.norm = nn.Embedding(5, 4), nn.LayerNorm(4)
            self.head, self.frozen = nn.Linear(4, 5, bias=False), nn.Linear(5, 2)
            self.tied = nn.Linear(4, 5, bias=False)
            self.tied.weight = self.embed.weight
            self.frozen.requires_grad_(False)

        def forward(self, x):
            h = self.norm(self.embed(x))
            return self.frozen(self.head(h) + self.tied(h))

    model = Odd()
    optimizer = SNGD(model, FisherSettings(warmup_batches=0), base="sgd")
    assert {entry.parameter: (entry.treatment, entry.reason) for entry in optimizer.account} == {
        "embed.weight": ("plain", "tied to tied.weight"),
        "norm.weight": ("plain", "no local Fisher layer for LayerNorm"),
        "norm.bias": ("plain", "no local Fisher layer for LayerNorm"),
        "head.weight": ("local Fisher", "input, nystrom, rank 16, every 50"),
        "frozen.weight": ("plain", "frozen"),
        "frozen.bias": ("plain", "frozen"),
    }
    before = {name: p.clone() for name, p in model.named_parameters()}
    model(torch.arange(5)).square().mean().backward()
    optimizer.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"embed.weight", "norm.weight", "norm.bias", "head.weight"}


def test_settings_by_pattern():
    model = network()
    optimizer = SNGD(
        model, {"0": FisherSettings(granularity="diagonal"), "[24]": FisherSettings(root="eigh")}, base="sgd"
    )
    assert {name: layer.settings.granularity for name, layer in optimizer.layers.items()} == {
        "0": "diagonal",
        "2": "input",
        "4": "input",
    }
    partial = SNGD(network(), {"0": FisherSettings()}, base="sgd")
    assert [e.reason for e in partial.account if e.parameter == "2.weight"] == ["no settings pattern matches it"]
    with pytest.raises(SettingsError, match=r"'encoder\.\*': matches no module; the modules are 0, 1, 2, 3, 4"):
        SNGD(network(), {"encoder.*": FisherSettings()}, base="sgd")


def test_a_model_without_supported_layers_is_refused():
    with pytest.raises(ReconstructionError, match="ConvTranspose2d has no layer that can get a local Fisher layer"):
        SNGD(nn.ConvTranspose2d(1, 1, 3), base="sgd")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": 0.0}, "lr=0.0: must be > 0"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"momentum": 1.0}, "momentum=1.0"),
        ({"betas": (0.9, 1.0)}, r"betas\[1\]=1.0"),
        ({"weight_decay": -1}, "weight_decay=-1"),
        ({"eps": 0}, "eps=0"),
        ({"base": "lbfgs"}, "base='lbfgs': must be one of adamw, sgd"),
    ],
)
def test_bad_hyperparameters(arguments, message):
    with pytest.raises(SettingsError, match=message):
        SNGD(network(), **arguments)


def test_a_first_root_that_fails_raises_and_a_later_one_keeps_the_last(monkeypatch):
    """All inputs 0 and no absolute damping: λ = 0, which has no root."""
    chosen = FisherSettings(granularity="diagonal", warmup_batches=0, fisher_interval=1, decay=0.0)
    layer = nn.Linear(3, 2, bias=False)
    optimizer = SNGD(layer, chosen, base="sgd")
    with pytest.raises(FisherError, match="all inputs are 0 and absolute_damping is 0"):
        steps(layer, optimizer, [(torch.zeros(4, 3), torch.ones(4, 2))])
    layer = nn.Linear(3, 2, bias=False)
    optimizer = SNGD(layer, chosen, base="sgd")
    steps(layer, optimizer, [(torch.ones(4, 3), torch.ones(4, 2))])
    root = optimizer.layers[""].root.tensors()["scale"].clone()
    with pytest.warns(UserWarning, match="keeps its last good root"):
        steps(layer, optimizer, [(torch.zeros(4, 3), torch.ones(4, 2))])
    assert torch.equal(optimizer.layers[""].root.tensors()["scale"], root)
    assert optimizer.layers[""].root_failures == 1


def test_a_layer_that_is_never_called_is_reported():
    class Bypass(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, x):
            return nn.functional.linear(x, self.linear.weight, self.linear.bias)

    model = Bypass()
    optimizer = SNGD(model, FisherSettings(warmup_batches=0), base="sgd")
    with pytest.warns(UserWarning, match="linear: its forward pass has not been seen"):
        steps(model, optimizer, [(torch.ones(4, 3), torch.ones(4, 2))])


def test_bfloat16_parameters_keep_float32_statistics():
    model = network(dtype=torch.bfloat16)
    optimizer = SNGD(model, settings("input-nystrom"), lr=1e-2, base="sgd")
    steps(model, optimizer, batches(12, torch.bfloat16))
    assert {tensor.dtype for tensor in optimizer.layers["0"].root.tensors().values()} == {torch.float32}
    assert all(parameter.isfinite().all() and parameter.dtype == torch.bfloat16 for parameter in model.parameters())


def test_it_learns_where_the_inputs_are_badly_scaled():
    """The point of it all: a regression that SGD cannot do in 150 steps at its best learning rate."""
    torch.manual_seed(0)
    x = torch.randn(512, 10) * torch.logspace(1, -1, 10)
    y = x @ (torch.randn(10, 1) / torch.logspace(1, -1, 10)[:, None])

    def final(make):
        torch.manual_seed(1)
        model = nn.Linear(10, 1)
        optimizer = make(model)
        steps(model, optimizer, [(x, y)] * 150)
        return squared_error(model(x), y).item()

    best_sgd = min(
        final(lambda m, lr=lr: torch.optim.SGD(m.parameters(), lr=lr, momentum=0.9)) for lr in (1e-4, 1e-3, 3e-3, 1e-2)
    )
    ours = final(
        lambda m: SNGD(m, FisherSettings(root="eigh", step_bound="none", relative_damping=1e-4), lr=0.1, base="sgd")
    )
    assert ours < 0.01 * best_sgd


@pytest.mark.parametrize("base", ["adamw", "sgd"])
def test_updates_in_portions_are_the_same_bits_as_all_at_once(monkeypatch, base):
    def trained(portion: int) -> list[torch.Tensor]:
        monkeypatch.setattr("sngd_tune.core.trained._PORTION", portion)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 3))
        optimizer = SNGD(model, base=base, lr=1e-2, weight_decay=0.1)
        for _ in range(8):
            optimizer.zero_grad()
            model(torch.randn(16, 5)).square().mean().backward()
            optimizer.step()
        return [parameter.detach() for parameter in model.parameters()]

    whole = trained(2**20)
    for portion in (1, 30):  # each alone; two together
        assert all(map(torch.equal, trained(portion), whole))
