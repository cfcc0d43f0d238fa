"""`observe_outputs` and the gradients of the training step: what enters ``G``, when, and what is refused."""

import copy
import gc
import io
import weakref

import pytest
import torch
from torch import nn

from sngd_tune import SNGD, observe_outputs, reconstruct, restore
from sngd_tune.core import dense
from sngd_tune.core.inputs import Rows
from sngd_tune.core.layers.base import Seen, Shape
from sngd_tune.core.local_fisher import LocalFisher
from sngd_tune.core.outputs import MOST_COLUMNS
from sngd_tune.errors import FisherError, ReconstructionError, SettingsError
from tests.core.output_side import (
    GRANULARITIES,
    chosen,
    dense_gradients,
    dense_inputs,
    kept,
    square_root,
)
from tests.core.problems import batches, network, squared_error

# --- the training step around it


@pytest.mark.parametrize("kind", ["empirical", "sampled", "exact"])
def test_accumulated_batches_are_one_batch(kind):
    """Two forward and backward passes a step count as one batch of twice the size."""
    model, data = network(), batches(2)
    settings = chosen("kron", fisher=kind)
    optimizer = SNGD(model, settings, base="sgd")
    for x, y in data:
        outputs = model(x)
        optimizer.observe_outputs(outputs, "gaussian")
        squared_error(outputs, y).backward()
    gradients = [len(batch.gradients) for batch in optimizer.layers["0"].collector.pending]
    assert gradients == [3, 3] if kind == "exact" else [1, 1]
    optimizer.step()
    if kind == "sampled":
        return
    averages = []
    for x, y in data:
        examples = iter(y)
        vectors = square_root("gaussian") if kind == "exact" else lambda f, e=examples: [2 * (f - next(e)).detach()]
        inputs, rows = dense_inputs(network(), x), dense_gradients(network(), x, vectors)
        averages.append(dense.moments(inputs[0], rows[0], settings))
    expected = [(first + second) / 2 for first, second in zip(*averages, strict=True)]
    for value, reference in zip(kept(optimizer.layers["0"]), expected, strict=True):
        torch.testing.assert_close(value, reference)


def test_two_losses_through_one_graph_are_one_loss():
    x, y = batches(1)[0]

    def average(*parts):
        model = network()
        optimizer = SNGD(model, chosen("kron"), base="sgd")
        outputs = model(x)
        for part in parts:
            part(outputs).backward(retain_graph=True)
        optimizer.step()
        return kept(optimizer.layers["0"])

    first, second = (lambda f: squared_error(f, y)), (lambda f: f.abs().sum(1).mean())
    torch.testing.assert_close(average(first, second), average(lambda f: first(f) + second(f)))


def test_two_outputs_add_up():
    model, (x, _) = network(), batches(1)[0]

    def average(show):
        optimizer = SNGD(model, chosen("layer", fisher="exact"), base="sgd")
        show(optimizer, model(x))
        optimizer.step()
        return kept(optimizer.layers["0"])[0]

    def both(optimizer, outputs):
        optimizer.observe_outputs(outputs[:, :2], "gaussian")
        optimizer.observe_outputs(outputs[:, 2:], "gaussian")

    torch.testing.assert_close(average(both), average(lambda o, f: o.observe_outputs(f, "gaussian")))


def test_layers_with_different_kinds_do_not_disturb_each_other():
    x, y = batches(1)[0]

    def average(settings, name):
        model = network()
        optimizer = SNGD(model, settings, base="sgd")
        outputs = model(x)
        optimizer.observe_outputs(outputs, "gaussian")
        squared_error(outputs, y).backward()
        optimizer.step()
        return kept(optimizer.layers[name])

    empirical, exact = chosen("kron"), chosen("kron", fisher="exact")
    mixed = {"0": exact, "*": empirical}
    torch.testing.assert_close(average(mixed, "0"), average(exact, "0"))
    torch.testing.assert_close(average(mixed, "2"), average(empirical, "2"))


@pytest.mark.parametrize("kind", ["empirical", "exact"])
def test_an_activation_that_works_in_place_changes_nothing(kind):
    x, y = batches(1)[0]

    def average(inplace):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(7, 6), nn.ReLU(inplace=inplace), nn.Linear(6, 3)).double()
        optimizer = SNGD(model, chosen("kron", fisher=kind), base="sgd")
        outputs = model(x)
        optimizer.observe_outputs(outputs, "gaussian")
        squared_error(outputs, y).backward()
        optimizer.step()
        return kept(optimizer.layers["0"])

    torch.testing.assert_close(average(True), average(False))


@pytest.mark.parametrize("kind", ["empirical", "sampled"])
def test_a_forward_pass_without_backward_leaves_nothing_behind(kind):
    x, y = batches(2)[0]
    other = batches(2)[1][0]

    def average(metric):
        model = network()
        optimizer = SNGD(model, chosen("kron", fisher=kind), base="sgd")
        if metric:
            model(other)
        outputs = model(x)
        optimizer.observe_outputs(outputs, "gaussian")
        squared_error(outputs, y).backward()
        optimizer.step()
        assert all(not fisher.collector.pending for fisher in optimizer.layers.values())
        return kept(optimizer.layers["0"])

    torch.testing.assert_close(average(True), average(False), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["empirical", "exact"])
def test_a_step_frees_its_batches_even_where_the_graph_lives_on(kind):
    model, (x, y) = network(), batches(1)[0]
    optimizer = SNGD(model, chosen("kron", fisher=kind), base="sgd")
    outputs = model(x)
    optimizer.observe_outputs(outputs, "gaussian")
    loss = squared_error(outputs, y)
    loss.backward(retain_graph=True)
    alive = [weakref.ref(batch) for fisher in optimizer.layers.values() for batch in fisher.collector.pending]
    optimizer.step()
    gc.collect()
    assert len(alive) == 3
    assert all(reference() is None for reference in alive)
    loss.backward()  # its hooks find nothing to fill
    assert all(not fisher.collector.pending for fisher in optimizer.layers.values())


def test_a_model_can_be_copied_between_forward_and_step():
    rebuilt, (x, _) = reconstruct(network(), chosen("kron", fisher="sampled")), batches(1)[0]
    outputs = rebuilt(x)
    plain = restore(rebuilt)
    torch.testing.assert_close(plain(x), outputs)
    assert rebuilt[0].fishers[0].collector.pending
    assert not copy.deepcopy(rebuilt)[0].fishers[0].collector.pending


def test_observing_outputs_costs_nothing_where_nobody_waits():
    """No check, no backward pass: outputs that cannot be differentiated are all the same to it."""
    model, (x, y) = network(), batches(1)[0]
    optimizer = SNGD(model, chosen("kron", fisher="sampled", warmup_batches=0, refresh_schedule="fixed"), base="sgd")
    optimizer.observe_outputs(model(x), "gaussian")
    optimizer.step()
    for fisher in optimizer.layers.values():
        fisher._observing = False
    squared_error(model(x), y).backward()
    optimizer.observe_outputs(model(x).detach(), "gaussian")
    optimizer = SNGD(network(), chosen("input", root="cholesky", fisher="exact"), base="sgd")
    optimizer.observe_outputs(model(x).detach(), "gaussian")


@pytest.mark.parametrize("base", ["sgd", "adamw"])
@pytest.mark.parametrize("kind", ["empirical", "sampled", "exact"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_resume_is_the_uninterrupted_run_bit_for_bit(granularity, kind, base):
    data, settings = batches(26), chosen(granularity, fisher=kind, positions=20)

    def train(model, optimizer, data):
        for x, y in data:
            optimizer.zero_grad()
            outputs = model(x)
            optimizer.observe_outputs(outputs, "softmax")
            squared_error(outputs, y).backward()
            optimizer.step()

    model = network()
    optimizer = SNGD(model, settings, lr=1e-3, base=base)
    train(model, optimizer, data[:13])
    buffer = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict()], buffer)
    train(model, optimizer, data[13:])
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    resumed = network(seed=9)
    resumed.load_state_dict(saved[0])
    again = SNGD(resumed, settings, lr=0.5, base=base, seed=77)
    again.load_state_dict(saved[1])
    train(resumed, again, data[13:])
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), resumed.parameters(), strict=True))


def test_drawing_leaves_the_global_random_numbers_alone_and_changes_with_the_step():
    model, (x, _) = network(), batches(1)[0]
    optimizer = SNGD(model, chosen("kron", fisher="sampled", decay=0.0), base="sgd")
    state, drawn = torch.get_rng_state(), []
    for _ in range(2):
        optimizer.observe_outputs(model(x), "softmax")
        optimizer.observe_outputs(model(x), "softmax")
        drawn += [batch.gradients[0] for batch in optimizer.layers["4"].collector.pending]
        optimizer.step()
    assert torch.equal(torch.get_rng_state(), state)
    other = SNGD(seeded := network(), chosen("kron", fisher="sampled", decay=0.0), seed=1, base="sgd")
    other.observe_outputs(seeded(x), "softmax")
    drawn += [batch.gradients[0] for batch in other.layers["4"].collector.pending]
    assert not any(torch.equal(drawn[i], drawn[j]) for i in range(len(drawn)) for j in range(i))


@pytest.mark.parametrize("kind", ["sampled", "exact"])
def test_half_precision_outputs_are_taken_in_single(kind):
    model, (x, y) = network(dtype=torch.bfloat16), batches(1, torch.bfloat16)[0]
    optimizer = SNGD(model, chosen("kron", fisher=kind), base="sgd")
    outputs = model(x)
    optimizer.observe_outputs(outputs, "softmax")
    squared_error(outputs, y).backward()
    optimizer.step()
    reference = SNGD(double := copy.deepcopy(model).double(), chosen("kron", fisher=kind), base="sgd")
    reference.observe_outputs(double(x.double()), "softmax")
    reference.step()
    for name, fisher in optimizer.layers.items():
        for value, expected in zip(kept(fisher), kept(reference.layers[name]), strict=True):
            assert float((value - expected).norm() / expected.norm()) < 0.1


# --- refusals


def trained_once(settings, show):
    model, (x, y) = network(), batches(1)[0]
    optimizer = SNGD(model, settings, base="sgd")
    outputs = model(x)
    show(optimizer, outputs)
    squared_error(outputs, y).backward()
    optimizer.step()


@pytest.mark.parametrize("kind", ["sampled", "exact"])
def test_outputs_that_were_not_shown_are_missed(kind):
    with pytest.raises(FisherError, match=r"0: fisher='\w+' needs .* call optimizer.observe_outputs"):
        trained_once(chosen("kron", fisher=kind), lambda optimizer, outputs: None)


@pytest.mark.parametrize(
    ("show", "error", "message"),
    [
        (lambda o, f: o.observe_outputs(f, "poisson"), SettingsError, "likelihood='poisson': must be one of softmax"),
        (lambda o, f: o.observe_outputs(f[:, 0], "softmax"), SettingsError, r"shape \(32,\): must be \[\*terms, C\]"),
        (lambda o, f: o.observe_outputs(f.detach(), "softmax"), SettingsError, "must have their graph"),
        (
            lambda o, f: o.observe_outputs(torch.ones(2, 3, requires_grad=True) * 2, "softmax"),
            SettingsError,
            "must come from a forward pass of this step",
        ),
        (lambda o, f: (f.sum().backward(), o.observe_outputs(f, "softmax")), FisherError, "before loss.backward"),
        (
            lambda o, f: o.observe_outputs(f[:, :1].expand(-1, MOST_COLUMNS + 1), "gaussian"),
            FisherError,
            "must take at most 4096 backward passes, not 4097; try fisher='sampled'",
        ),
    ],
)
def test_outputs_that_cannot_be_used_are_refused(show, error, message):
    with pytest.raises(error, match=message):
        trained_once(chosen("kron", fisher="exact"), show)


def test_the_explicit_function_wants_a_reconstructed_model():
    model, (x, _) = network(), batches(1)[0]
    with pytest.raises(
        ReconstructionError, match=r"Sequential has no local Fisher layers; .* optimizer.observe_outputs"
    ):
        observe_outputs(model, model(x), "softmax")


def test_a_local_fisher_layer_of_weights_is_no_map_of_inputs():
    fisher = LocalFisher(Shape((), 5, 4), chosen("kron"))
    with pytest.raises(ReconstructionError, match="granularity='kron' acts on weights"):
        fisher(torch.ones(2, 4))


def test_seen_without_gradient_does_not_wait():
    """Weights that were frozen after the optimizer was made."""
    fisher = LocalFisher(Shape((), 3, 4), chosen("kron"))
    fisher.observe(Seen(Rows(torch.ones(2, 4)), torch.ones(2, 3), lambda gradient: gradient))
    assert not fisher.collector.pending
