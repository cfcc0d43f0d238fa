"""NaN and infinity: what they may touch, what is counted and named, and when it is an error."""

import copy
import io
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from sngd_tune import SNGD, reconstruct, restore
from sngd_tune.core.inputs import Rows
from sngd_tune.core.layers.base import Seen, Shape
from sngd_tune.core.local_fisher import LocalFisher
from sngd_tune.core.safety import all_finite, first_few
from sngd_tune.errors import NonFiniteError, SettingsError
from tests.core.problems import SETTINGS, batches, network, relative_difference, settings, squared_error, steps

BASES = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
GOOD = batches(24)
LEFT_OUT = "NaN or infinity; it is left out"


class Fused:
    """One model under the fused form, and what has to be told apart from the other form."""

    def __init__(self, chosen, base="sgd"):
        self.model = network()
        self.optimizer = SNGD(self.model, chosen, lr=1e-2, base=base)
        self.fishers = list(self.optimizer.layers.values())

    def weight(self, layer):
        return self.model[layer].weight

    def plain(self):
        return self.model


class Explicit:
    def __init__(self, chosen, base="sgd"):
        self.model = reconstruct(network(), chosen)
        more = {"momentum": 0.9} if base == "sgd" else {"weight_decay": 0.0}
        self.optimizer = BASES[base](self.model.parameters(), lr=1e-2, **more)
        self.fishers = [self.model[layer].fishers[0] for layer in (0, 2, 4)]

    def weight(self, layer):
        return self.model[layer].weights[0]

    def plain(self):
        return restore(self.model)


FORMS = pytest.mark.parametrize("form", [Fused, Explicit])


def spoil(made, batch=GOOD[0], layer=2, value=float("nan")):
    """A step in whose gradients, all of them finite till then, one entry of one layer is not."""
    made.optimizer.zero_grad()
    squared_error(made.model(batch[0]), batch[1]).backward()
    made.weight(layer).grad.view(-1)[3] = value
    made.optimizer.step()


def quiet_spoil(made, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spoil(made, *args)


def attempt(made, x):
    """A step on inputs that are not finite."""
    made.optimizer.zero_grad()
    squared_error(made.model(x), GOOD[0][1]).backward()
    made.optimizer.step()


def everything(made):
    """Parameters, momentum, G, roots and counters, in one flat dict of copies."""
    state = copy.deepcopy(
        {"model": made.model.state_dict(), "state": made.optimizer.state_dict()["state"]}
        | {str(i): fisher.state_dict() for i, fisher in enumerate(made.fishers)}
    )
    flat = {}

    def walk(path, value):
        if isinstance(value, dict):
            for key, each in value.items():
                walk(f"{path}/{key}", each)
        else:
            flat[path] = value

    walk("", state)
    return flat


def same(left, right, but=()):
    assert left.keys() == right.keys()
    return [
        key
        for key in left
        if not any(word in key for word in but)
        and not (torch.equal(left[key], right[key]) if isinstance(left[key], torch.Tensor) else left[key] == right[key])
    ] == []


@FORMS
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("base", BASES)
def test_a_bad_step_moves_nothing_and_is_counted_and_named_once(form, base, value):
    # No statistics are due at step 9, so that nothing but counters may differ.
    made = form(settings("input-eigh", fisher_interval=100, statistics_interval=100), base)
    steps(made.model, made.optimizer, GOOD[:8])
    assert not any(fisher.observing for fisher in made.fishers)
    before = everything(made)
    with pytest.warns(UserWarning, match=f"2: the gradient holds {LEFT_OUT}") as caught:
        spoil(made, value=value)
    assert len(caught) == 1
    spoil(made, value=value)  # said once: warnings are errors here
    assert same(everything(made), before, but=["skipped_steps"])
    assert [fisher.skipped_steps for fisher in made.fishers] == [2, 2, 2]


@FORMS
def test_after_a_bad_step_training_goes_on_as_if_it_had_not_been(form):
    chosen = settings("input-eigh", fisher_interval=100, statistics_interval=100)
    clean, spoiled = form(chosen), form(chosen)
    steps(clean.model, clean.optimizer, GOOD[:8])
    steps(spoiled.model, spoiled.optimizer, GOOD[:8])
    quiet_spoil(spoiled)
    steps(clean.model, clean.optimizer, GOOD[8:])
    steps(spoiled.model, spoiled.optimizer, GOOD[8:])
    assert relative_difference(spoiled.plain(), clean.plain()) == 0
    assert same(everything(spoiled), everything(clean), but=["skipped_steps"])


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", SETTINGS)
def test_both_forms_skip_alike(name, base):
    """Bad steps at the warm-up, at statistics, at a refresh and in between: the trajectories stay one."""
    made = [form(settings(name), base) for form in (Fused, Explicit)]
    if base == "adamw":
        for group in made[0].optimizer.param_groups:
            group["weight_decay"] = 0.0
    for each in made:
        for i, batch in enumerate(GOOD):
            if i in (0, 3, 4, 8, 13, 14):
                quiet_spoil(each, batch)
            steps(each.model, each.optimizer, [batch])
    assert relative_difference(made[1].plain(), made[0].plain()) < 1e-10
    assert [f.skipped_steps for f in made[0].fishers] == [f.skipped_steps for f in made[1].fishers] == [6, 6, 6]


@FORMS
def test_too_many_bad_steps_in_a_row_are_an_error_and_one_good_one_starts_anew(form):
    made = form(settings("input-eigh"))
    for _ in range(9):
        quiet_spoil(made)
    steps(made.model, made.optimizer, GOOD[:1])
    for _ in range(9):
        quiet_spoil(made)
    with pytest.raises(NonFiniteError, match=r"2: the gradient held NaN or infinity 10 times in a row; .*smaller lr"):
        spoil(made)
    assert all(p.isfinite().all() for p in made.plain().parameters())


def test_max_skipped_is_chosen_and_checked():
    model = network()
    optimizer = SNGD(model, settings("input-eigh"), max_skipped=1, base="sgd")
    model(GOOD[0][0]).sum().backward()
    model[0].bias.grad.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="0: the gradient held NaN or infinity 1 times"):
        optimizer.step()
    for bad in (0, -1, 1.5, True, None):
        with pytest.raises(SettingsError, match=r"max_skipped=.*: must be an integer ≥ 1; try 10"):
            SNGD(network(), max_skipped=bad, base="sgd")


def test_a_plain_parameter_is_named_too_and_long_lists_are_cut():
    model = nn.Sequential(nn.Linear(7, 4), nn.LayerNorm(4), nn.Linear(4, 3)).double()
    optimizer = SNGD(model, settings("diagonal"), base="sgd")
    model(GOOD[0][0]).sum().backward()
    model[1].bias.grad.fill_(float("inf"))
    before = copy.deepcopy(model)
    with pytest.warns(UserWarning, match=r"^1\.bias: the gradient"):
        optimizer.step()
    assert relative_difference(model, before) == 0
    assert first_few(["a", "b", "a", "c", "d", "e"]) == "a, b, c and 2 more"


@FORMS
def test_counters_survive_a_checkpoint(form):
    made = form(settings("input-eigh"))
    quiet_spoil(made)
    buffer = io.BytesIO()
    torch.save([made.model.state_dict(), made.optimizer.state_dict()], buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    again = form(settings("input-eigh"))
    again.model.load_state_dict(saved[0])
    again.optimizer.load_state_dict(saved[1])
    spoil(again)  # not the first: no warning, which would be an error
    assert [fisher.skipped_steps for fisher in again.fishers] == [2, 2, 2]
    for _ in range(7):
        spoil(again)
    with pytest.raises(NonFiniteError):
        spoil(again)


@FORMS
@pytest.mark.parametrize("name", SETTINGS)
def test_a_batch_of_inputs_that_is_not_finite_does_not_enter_g(form, name):
    made = form(settings(name))
    steps(made.model, made.optimizer, GOOD[:1])
    before = everything(made)
    x = GOOD[1][0].clone()
    x[3, 2] = float("nan")
    assert all(fisher.observing for fisher in made.fishers)
    with pytest.warns(UserWarning, match=LEFT_OUT) as caught:
        attempt(made, x)
    # Each layer behind the first sees NaN as well.
    named = [str(each.message).split(" holds")[0] for each in caught]
    assert named == ["0: its input", "2: its input", "4: its input", "0, 2, 4: the gradient"]
    assert same(everything(made), before, but=["skipped_batches", "skipped_steps"])
    assert [fisher.skipped_batches for fisher in made.fishers] == [1, 1, 1]
    for _ in range(8):
        attempt(made, x)
    with pytest.raises(NonFiniteError, match="0: its input held NaN or infinity 10 times in a row"):
        made.model(x)


def test_several_passes_of_one_step_count_once():
    """A cell that runs over time shows a layer 35 times a step; NaN in them is one bad batch, not 35."""
    made = Fused(settings("input-eigh"))
    bad = GOOD[0][0] * float("nan")
    with pytest.warns(UserWarning, match=LEFT_OUT):
        for x in (GOOD[0][0], bad, bad, GOOD[0][0]):
            made.model(x)
    assert [fisher.skipped_batches for fisher in made.fishers] == [1, 1, 1]
    squared_error(made.model(GOOD[0][0]), GOOD[0][1]).backward()
    made.optimizer.step()
    made.model(bad)  # the second: no warning
    assert [fisher.skipped_batches for fisher in made.fishers] == [2, 2, 2]


class Saturated(nn.Module):
    """Infinite inputs of the head whose gradients are finite: the loss does not see those examples."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2).double()

    def forward(self, x):
        return self.head(x)[x.isfinite().all(-1)]


def test_a_layer_that_never_saw_a_finite_batch_keeps_the_identity():
    model = Saturated()
    optimizer = SNGD(model, settings("input-eigh", warmup_batches=0), lr=0.1, base="sgd")
    x = torch.ones(4, 3, dtype=torch.float64)
    x[0, 0] = float("inf")
    with pytest.warns(UserWarning, match="head: its input") as caught:
        model(x).sum().backward()
        # Rows of 0 times infinity are NaN in the weight's gradient: take the finite rows' own.
        model.head.weight.grad.copy_(torch.ones(2, 3))
        before = model.head.weight.detach().clone()
        optimizer.step()
    assert len(caught) == 1
    assert optimizer.layers["head"].refreshes == 0
    torch.testing.assert_close(model.head.weight, before - 0.1)


@FORMS
@pytest.mark.parametrize("granularity", ["unit", "kron", "layer"])
def test_statistics_that_wait_for_gradients_go_with_a_bad_step(form, granularity):
    values = settings("input-cholesky", granularity=granularity)
    clean, spoiled = form(values), form(values)
    for i, batch in enumerate(GOOD[:14]):
        steps(clean.model, clean.optimizer, [batch])
        if i in (0, 4, 9):
            quiet_spoil(spoiled, batch)
        steps(spoiled.model, spoiled.optimizer, [batch])
    assert spoiled.fishers[0].skipped_steps == 3
    assert same(everything(spoiled), everything(clean), but=["skipped_steps"])


def test_gradients_of_outputs_that_are_not_finite_do_not_enter_g():
    """They wait for the step; a bad step drops them, and a good step's own enter."""
    values = settings("input-cholesky", granularity="unit", warmup_batches=1)
    fisher = LocalFisher(Shape((), 2, 3), values, dtype=torch.float64, name="unit")
    taken = []
    fisher.estimate.update = lambda state, inputs, gradients, decay: taken.append(gradients)
    a = torch.ones(4, 3, dtype=torch.float64)

    def backward(scale):
        out = torch.zeros(4, 2, dtype=torch.float64, requires_grad=True) * 1.0
        fisher.observe(Seen(Rows.of(a, bias=False), out, lambda gradient: gradient))
        (out.sum() * scale).backward()

    backward(1.0)
    fisher.skip()
    backward(float("nan"))
    with pytest.warns(UserWarning, match="unit: its output gradient"):
        fisher.advance()
    assert not taken
    assert fisher.skipped_batches == 1
    backward(1.0)
    fisher.advance()
    assert len(taken) == 1


@hypothesis_settings(deadline=None, max_examples=60)
@given(
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    sizes=st.lists(st.integers(0, 2000), min_size=1, max_size=4),
    bad=st.sampled_from([None, float("nan"), float("inf"), -float("inf")]),
    scale=st.sampled_from([1e-4, 1.0, 1e4]),
    seed=st.integers(0, 100),
)
def test_all_finite_finds_one_bad_entry_and_no_other(dtype, sizes, bad, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.rand(n, generator=generator).mul(scale).to(dtype) for n in sizes]
    places = [t for t in tensors if len(t)]
    if bad is not None and places:
        chosen = places[seed % len(places)]
        chosen[seed % len(chosen)] = bad
    assert all_finite(tensors) == all(bool(t.isfinite().all()) for t in tensors)


def test_all_finite_of_nothing():
    assert all_finite([])


def test_infinities_that_would_cancel_are_found():
    assert not all_finite([torch.tensor([float("inf"), -float("inf")])])
    assert not all_finite([torch.tensor([float("inf")]), torch.tensor([-float("inf")])])
