"""`torch.compile` of the model: one whole graph in all steps but those with statistics, whose stance is given back."""

import copy
import gc
import shutil

import pytest
import torch
from torch import nn

from sngd_tune import SNGD, reconstruct
from sngd_tune.core import compiling
from tests.core.behaviour import FORMS, PLAIN, same
from tests.core.layer_cases import attention, conv, embedding, linear, recurrent
from tests.core.problems import batches, network, relative_difference, settings, steps

CHOSEN = settings("input-nystrom", fisher_interval=8, statistics_interval=4)
CASES = [case for module in (attention, conv, embedding, linear, recurrent) for case in module.CASES]
#: One of each module; dynamo itself refuses `nn.RNN`, `nn.GRU` and `nn.LSTM`.
KINDS = ("attention-self", "conv-stack", "embedding-stack", "linear", "lstm-cell")


class Counting:
    """A compiler that counts the graphs it has made and run."""

    def __init__(self):
        self.graphs, self.runs = 0, 0

    def __call__(self, graph, inputs):
        self.graphs += 1

        def run(*arguments):
            self.runs += 1
            return graph.forward(*arguments)

        return run


class Own(nn.Module):
    """A model that is no torch module itself, of which dynamo makes no graph in place."""

    def __init__(self):
        super().__init__()
        self.network = network()

    def forward(self, x):
        return self.network(x)


def stance():
    return torch._dynamo.eval_frame._stance.stance


@pytest.fixture(autouse=True)
def _clean_compiler():
    gc.collect()
    for asks in compiling._asking.values():  # optimizers that a test before has left alive, as one that fails does
        asks.detach()
    compiling._asking.clear()
    compiling._bring_about()
    torch._dynamo.reset()
    assert stance() == "default"
    yield
    torch._dynamo.reset()


def built(form, backend, how="compiled-last"):
    """What is called, its optimizer, and what holds the parameters."""
    model = network()
    if form == "explicit":
        rebuilt = reconstruct(model, CHOSEN, compiled=True)
        compiled = torch.compile(rebuilt, backend=backend, fullgraph=True)
        return compiled, torch.optim.SGD(compiled.parameters(), lr=1e-2, momentum=0.9), rebuilt
    if how == "in-place":
        model = Own()
        model.compile(backend=backend, fullgraph=True)
        return model, SNGD(model, CHOSEN, lr=1e-2, base="sgd"), model
    if how == "compiled-first":  # a graph that has never seen a hook
        compiled = torch.compile(model, backend=backend, fullgraph=True)
        compiled(batches(1)[0][0])
        return compiled, SNGD(compiled, CHOSEN, lr=1e-2, base="sgd"), model
    optimizer = SNGD(model, CHOSEN, lr=1e-2, compiled=True, base="sgd")
    return torch.compile(model, backend=backend, fullgraph=True), optimizer, model


def uncompiled(form):
    """The same training without a compiler; its optimizer, which asks for eager steps, is gone when it is done."""
    model = network() if form == "fused" else reconstruct(network(), CHOSEN, compiled=True)
    if form == "fused":
        optimizer = SNGD(model, CHOSEN, lr=1e-2, compiled=True, base="sgd")
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    steps(model, optimizer, batches(30))
    model.eval()  # a reconstruction asks while it trains
    return model


def layer_of(optimizer, inner):
    if isinstance(optimizer, SNGD):
        return next(iter(optimizer.layers.values()))
    return next(m.fishers[0] for m in inner.modules() if hasattr(m, "fishers"))


WAYS = [("fused", "compiled-last"), ("fused", "compiled-first"), ("fused", "in-place"), ("explicit", "compiled-last")]


@pytest.mark.parametrize(("form", "how"), WAYS)
def test_one_whole_graph_that_runs_in_all_steps_but_those_with_statistics(form, how):
    expected = uncompiled(form)
    counting = Counting()
    model, optimizer, inner = built(form, counting, how)
    layer = layer_of(optimizer, inner)
    for batch in batches(30):
        due, before = layer.observing, counting.runs
        steps(model, optimizer, [batch])
        assert counting.runs - before == (not due)
    assert counting.graphs == 1
    assert counting.runs > 12
    assert same(inner, expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", [case for case in CASES if case.name in KINDS], ids=str)
@pytest.mark.slow
def test_each_kind_of_layer_has_one_whole_graph(case, form):
    chosen = settings("input-cholesky", fisher_interval=8, statistics_interval=4, warmup_batches=1)

    def train(wrap):
        model = case.make() if form == "fused" else reconstruct(case.make(), chosen, compiled=True)
        if form == "fused":
            optimizer = SNGD(model, chosen, lr=1e-3, compiled=True, base="sgd")
        else:
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        called, layer, due = wrap(model), layer_of(optimizer, model), 0
        for seed in range(9):
            due += layer.observing
            optimizer.zero_grad()
            case.loss(called(*case.data(seed))).backward()
            optimizer.step()
        return model.eval(), due

    expected, _ = train(lambda model: model)
    counting = Counting()
    model, due = train(lambda model: torch.compile(model, backend=counting, fullgraph=True))
    assert (counting.graphs, counting.runs) == (1, 9 - due)
    assert same(model, expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.slow
def test_a_real_backend(form):
    expected = uncompiled(form)
    model, optimizer, inner = built(form, "aot_eager")
    steps(model, optimizer, batches(30))
    assert relative_difference(inner, expected) < 1e-12


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch about inductor
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductor():
    expected = uncompiled("fused")
    model, optimizer, inner = built("fused", "inductor")
    steps(model, optimizer, batches(30))
    assert relative_difference(inner, expected) < 1e-10


class TestStance:
    def test_it_is_given_back(self):
        model = network()
        optimizer = SNGD(model, PLAIN, base="sgd")
        assert stance() == "force_eager"
        optimizer.detach()
        assert stance() == "default"
        rebuilt = reconstruct(network(), PLAIN)
        assert stance() == "force_eager"
        rebuilt.eval()
        assert stance() == "default"
        rebuilt.train()
        average = copy.deepcopy(rebuilt)
        del rebuilt
        gc.collect()
        assert average.training
        assert stance() == "default"

    def test_it_is_held_while_anyone_asks(self):
        first, second = (SNGD(network(), PLAIN, base="sgd") for _ in range(2))
        first.detach()
        assert stance() == "force_eager"
        del second
        gc.collect()
        assert stance() == "default"

    @pytest.mark.parametrize("first", ["block", "optimizer"])
    def test_a_stance_of_the_users_is_in_force_in_all_other_steps(self, first):
        """One that allows no other graph; statistics come nevertheless, from the step after its block begins."""
        counting, model = Counting(), network()
        compiled = torch.compile(model, backend=counting, fullgraph=True)
        compiled(batches(1)[0][0])
        data = batches(12)
        optimizer = SNGD(compiled, CHOSEN, lr=1e-2, base="sgd") if first == "optimizer" else None
        with torch.compiler.set_stance("fail_on_recompile"):
            optimizer = SNGD(compiled, CHOSEN, lr=1e-2, base="sgd") if optimizer is None else optimizer
            layer = layer_of(optimizer, model)
            steps(compiled, optimizer, data[: first == "optimizer"])
            for batch in data[1:]:
                due, before = layer.observing, counting.runs
                steps(compiled, optimizer, [batch])
                assert counting.runs - before == (not due)
                assert stance() == ("force_eager" if layer.observing else "fail_on_recompile")
        steps(compiled, optimizer, data[:1])  # the block gives back what was in force when it began
        while layer.observing:
            steps(compiled, optimizer, data[:1])
        assert stance() == "default"
        assert counting.graphs == 1
        assert layer.snapshot() is not None

    @pytest.mark.parametrize("observing", [True, False])
    def test_a_block_may_end_while_statistics_are_due_or_not(self, observing):
        model = network()
        with torch.compiler.set_stance("eager_on_recompile"):
            optimizer = SNGD(model, CHOSEN, compiled=True, base="sgd")
            layer = layer_of(optimizer, model)
            while layer.observing != observing:
                steps(model, optimizer, batches(1))
        assert stance() == "default"
        for batch in batches(8):
            steps(model, optimizer, [batch])
            assert stance() == ("force_eager" if layer.observing else "default")
        optimizer.detach()
        assert stance() == "default"
