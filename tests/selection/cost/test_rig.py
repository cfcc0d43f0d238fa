"""What is timed is what the optimizer does: the same statistics, roots and states, on every kind of layer."""

import copy
from dataclasses import replace

import pytest
import torch

from sngd_tune import SNGD, FisherSettings
from sngd_tune.core.account import matches
from sngd_tune.core.inputs import Rows
from sngd_tune.core.layers.attention import SharedRows
from sngd_tune.core.memory import predict
from sngd_tune.selection.cost.rig import PlainRig, Rig, canonical, specimen
from sngd_tune.selection.observation import observe
from tests.core.test_layer_kinds import CASES

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # torch, of its own

LR = 1e-12
SETTINGS = {
    "rank 2": {"rank": 2, "root_scale": "unit"},
    "diagonal": {"granularity": "diagonal"},
    "kron": {"granularity": "kron", "root": "eigenbasis"},
    "input, reduced": {"root": "cholesky", "sharing": "reduce"},
}


def priced(settings):
    return canonical(FisherSettings(**settings))


def first_site(case, settings):
    """The model, its first site that has these settings, and what a batch shows there."""
    model, args = case.make(), case.data(0)
    found = matches(model, settings)
    _, seen = observe(model, found, lambda: case.loss(model(*args)))
    return model, found[0], seen[found[0].name]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_rig_does_it_on_every_kind_of_layer(case):
    check_that_the_rig_does_what_the_optimizer_does(case, "rank 2", "adamw")
    if any(match.site.gradients for match in matches(case.make(), FisherSettings())):
        check_that_the_rig_does_what_the_optimizer_does(case, "kron", "sgd")


@pytest.mark.slow
@pytest.mark.parametrize("base", ["sgd", "adamw"])
@pytest.mark.parametrize("kept", SETTINGS)
def test_the_rig_does_it_under_all_settings(kept, base):
    positions = next(case for case in CASES if case.name == "linear-positions")
    check_that_the_rig_does_what_the_optimizer_does(positions, kept, base)


def check_that_the_rig_does_what_the_optimizer_does(case, kept, base):
    settings = priced(SETTINGS[kept])
    model, match, seen = first_site(case, settings)
    rig = Rig(specimen(match, seen), settings, base)
    optimizer = SNGD(model, settings, base=base, lr=LR)
    model.zero_grad()
    case.loss(model(*case.data(0))).backward()
    optimizer.step()
    rig.statistics()
    rig.refresh()
    expected = optimizer.layers[match.name]
    for name, tensor in expected.root.tensors().items():
        torch.testing.assert_close(rig._fisher.root.tensors()[name], tensor, msg=lambda m, n=name: f"{n}: {m}")
    state, own = optimizer.state[match.parameters[0]], rig._states[rig.parameters[0]]
    kept_between = "momentum_buffer" if base == "sgd" else "exp_avg"
    torch.testing.assert_close(own[kept_between], state[kept_between])


@pytest.mark.parametrize("base", ["sgd", "adamw"])
def test_without_a_local_fisher_layer_it_is_the_base_on_the_gradient(base):
    _, match, seen = first_site(CASES[0], FisherSettings())
    rig = PlainRig(specimen(match, seen), base)
    rig.update()
    name, share = {"sgd": ("momentum_buffer", 1.0), "adamw": ("exp_avg", -0.1)}[base]  # the fused kernel maximizes
    for parameter, own in zip(match.parameters, rig.parameters, strict=True):
        torch.testing.assert_close(rig._states[own][name], share * parameter.grad)


def test_the_model_stays_as_it_is():
    model, match, seen = first_site(CASES[0], FisherSettings())
    before = copy.deepcopy(model.state_dict())
    gradients = [parameter.grad.clone() for parameter in match.parameters]
    rig = Rig(specimen(match, seen), priced({}), "sgd")
    rig.settle()
    rig.refresh()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(match.parameters, gradients, strict=True))


def test_a_refresh_starts_from_the_same_root_each_time():
    _, match, seen = first_site(CASES[0], FisherSettings())
    rig = Rig(specimen(match, seen), priced({"root": "newton_schulz"}), "sgd")
    rig.settle()
    before = {name: tensor.clone() for name, tensor in rig._fisher.root.tensors().items()}
    rig.refresh()
    assert any(not torch.equal(t, before[name]) for name, t in rig._fisher.root.tensors().items())
    rig.rewind()
    assert all(torch.equal(t, before[name]) for name, t in rig._fisher.root.tensors().items())


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_smaller_layers_have_the_parts_of_the_whole_one(case):
    _, match, seen = first_site(case, FisherSettings())
    whole = specimen(match, seen)
    small, shape = whole.halved(1), match.site.shape
    assert whole.halved(0) is whole
    assert small.site.shape.lead == shape.lead
    assert small.site.shape.positions == shape.positions
    assert small.site.shape.d_out == max(1, round(shape.d_out / 2))
    assert small.site.shape.d <= shape.d
    assert len(small.parameters) == len(whole.parameters)
    assert [each.inputs.count for each in small.passes] == [each.inputs.count for each in whole.passes]
    assert small.passes[0].inputs.rows().shape[-1] == small.site.shape.d
    assert isinstance(small.passes[0].inputs, SharedRows if isinstance(whole.passes[0].inputs, SharedRows) else Rows)
    if not shape.one_hot:
        Rig(small, priced({"rank": 2}), "adamw").statistics()


def test_prices_ignore_damping_and_intervals_alone():
    settings = FisherSettings(granularity="block:8", root="eigh", positions=5, step_bound="none")
    other = replace(settings, relative_damping=3.0, fisher_interval=7, decay=0.5, refresh_schedule="drift")
    assert canonical(settings) == canonical(other)
    for change in ({"granularity": "kron"}, {"root": "cholesky"}, {"positions": 6}, {"step_bound": "graft"}):
        assert canonical(settings) != canonical(replace(settings, **change))
    _, match, _ = first_site(CASES[0], FisherSettings())
    assert predict(replace(match, settings=canonical(settings))) == predict(replace(match, settings=settings))
