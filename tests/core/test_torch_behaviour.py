"""Both forms behave as torch's own optimizers do: groups, schedulers, precision, copies, compilation, clean-up."""

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from torch import nn

from sngd_tune import SNGD, FisherSettings, reconstruct, restore
from sngd_tune.errors import ReconstructionError, SettingsError
from tests.core.problems import SETTINGS, batches, network, relative_difference, settings, squared_error, steps

PLAIN = settings("input-eigh")
BASES = {"sgd": {"momentum": 0.9}, "adamw": {"base": "adamw"}}


def same(model, expected):
    return all(map(torch.equal, model.parameters(), expected.parameters()))


class TestGroups:
    def test_one_group_for_all_is_no_groups(self):
        left, right = network(), network()
        steps(left, SNGD(left, PLAIN, lr=1e-2), batches(10))
        steps(right, SNGD(right, PLAIN, lr=1e-2, param_groups=[{"params": right.parameters()}]), batches(10))
        assert same(left, right)

    def test_a_group_has_its_own_hyperparameters(self):
        """A learning rate of next to nothing for the first layer, and decay for the last."""
        model = network()
        groups = [
            {"params": model[0].parameters(), "lr": 1e-300},
            {"params": model[2].parameters()},
            {"params": model[4].parameters(), "weight_decay": 0.5},
        ]
        optimizer = SNGD(model, PLAIN, lr=1e-2, param_groups=groups)
        steps(model, optimizer, batches(3))  # the warm-up and one step
        plain = network()
        steps(plain, SNGD(plain, PLAIN, lr=1e-2), batches(3))
        assert torch.equal(model[0].weight, network()[0].weight)
        assert torch.equal(model[2].weight, plain[2].weight)
        decayed = plain[4].weight - 0.5 * 1e-2 * network()[4].weight
        torch.testing.assert_close(model[4].weight, decayed)

    def test_named_parameters_make_groups(self):
        model = network()
        optimizer = SNGD(model, PLAIN, param_groups=[{"params": list(model.named_parameters())}])
        assert optimizer.param_groups[0]["param_names"][0] == "0.weight"
        steps(model, optimizer, batches(4))

    def test_what_no_group_holds_is_named(self):
        model = network()
        with pytest.raises(SettingsError, match=r"and 2\.weight, 4\.weight, 4\.bias are in none; add a group"):
            SNGD(model, param_groups=[{"params": model[0].parameters()}])
        model[2].requires_grad_(False)
        SNGD(model, param_groups=[{"params": [*model[0].parameters(), *model[4].parameters()]}])

    def test_weight_and_bias_belong_together(self):
        model = network()
        biases = [model[0].bias, model[4].bias]
        weights = [model[0].weight, model[2].weight, model[4].weight]
        groups = [{"params": weights}, {"params": biases, "weight_decay": 0.0}]
        with pytest.raises(SettingsError, match=r"all of 0 in one group.*weight in 0, bias in 1"):
            SNGD(model, param_groups=groups)

    @pytest.mark.parametrize(
        ("group", "message"), [([], r"param_groups\[0\]=\[\]"), ({"lr": 1.0}, 'must be a mapping with "params"')]
    )
    def test_bad_groups(self, group, message):
        with pytest.raises(SettingsError, match=message):
            SNGD(network(), param_groups=[group])

    def test_a_bad_hyperparameter_of_a_group(self):
        model = network()
        with pytest.raises(SettingsError, match="weight_decay=-1"):
            SNGD(model, param_groups=[{"params": model.parameters(), "weight_decay": -1}])
        with pytest.raises(SettingsError, match="lr=nan"):
            SNGD(model).add_param_group({"params": [nn.Parameter(torch.ones(2))], "lr": float("nan")})

    def test_parameters_from_elsewhere_train_plain_and_are_listed(self):
        model, scale = network(), nn.Parameter(torch.ones((), dtype=torch.float64))
        optimizer = SNGD(model, settings("input-eigh", warmup_batches=0), lr=1e-2, momentum=0.0)
        optimizer.add_param_group({"params": [scale], "lr": 0.5})
        assert [(e.parameter, e.treatment, e.reason) for e in optimizer.account][-1] == (
            "param_groups[1][0]",
            "plain",
            "not a parameter of the model",
        )
        x, y = batches(1)[0]
        squared_error(scale * model(x), y).backward()
        expected = 1 - 0.5 * scale.grad
        optimizer.step()
        torch.testing.assert_close(scale.detach(), expected)
        with pytest.raises(ValueError, match="more than one parameter group"):
            optimizer.add_param_group({"params": [scale]})
        assert len(optimizer.account) == 6

    def test_a_once_frozen_layer_joins_later(self):
        model = network()
        model[2].requires_grad_(False)
        optimizer = SNGD(model, PLAIN, lr=1e-2)
        steps(model, optimizer, batches(5))
        assert torch.equal(model[2].weight, network()[2].weight)
        model[2].requires_grad_(True)
        optimizer.add_param_group({"params": model[2].parameters()})
        steps(model, optimizer, batches(2))
        assert not torch.equal(model[2].weight, network()[2].weight)
        entries = {e.parameter: (e.treatment, e.reason) for e in optimizer.account}
        assert entries["2.weight"] == ("plain", "frozen")


class TestFreezing:
    @pytest.mark.parametrize("part", ["weight", "bias"])
    def test_half_a_layer_that_is_frozen_stays_while_the_other_half_moves(self, part):
        model = network()
        optimizer = SNGD(model, PLAIN, lr=1e-2, weight_decay=0.1)
        steps(model, optimizer, batches(6))
        getattr(model[0], part).requires_grad_(False)
        before = copy.deepcopy(model)
        steps(model, optimizer, batches(6))
        other = {"weight": "bias", "bias": "weight"}[part]
        assert torch.equal(getattr(model[0], part), getattr(before[0], part))
        assert not torch.equal(getattr(model[0], other), getattr(before[0], other))

    @pytest.mark.parametrize("to_none", [True, False])
    def test_zero_grad(self, to_none):
        model = network()
        optimizer = SNGD(model, PLAIN, lr=1e-2, momentum=0.0)
        steps(model, optimizer, batches(4))
        before = copy.deepcopy(model)
        optimizer.zero_grad(set_to_none=to_none)
        optimizer.step()
        assert same(model, before)


class TestSchedulers:
    @pytest.mark.parametrize(
        ("make", "lr"),
        [
            (lambda o: torch.optim.lr_scheduler.StepLR(o, 2, gamma=0.5), 0.1 * 0.5**4),
            (lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 8), 0.0),
            (lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)), 0.1 / 9),
        ],
        ids=["step", "cosine", "lambda"],
    )
    def test_learning_rates_follow(self, make, lr):
        model = network()
        optimizer = SNGD(model, PLAIN, lr=0.1)
        scheduler = make(optimizer)
        for batch in batches(8):
            steps(model, optimizer, [batch])
            scheduler.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(lr, abs=1e-12)

    @pytest.mark.parametrize(("base", "key"), [("sgd", "momentum"), ("adamw", "betas")])
    def test_one_cycle_cycles_the_momentum_that_the_base_has(self, base, key):
        model = network()
        optimizer = SNGD(model, PLAIN, lr=0.1, **BASES[base])
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=0.1, total_steps=8, base_momentum=0.5, max_momentum=0.8
        )
        found = []
        for batch in batches(8):
            value = optimizer.param_groups[0][key]
            found.append(value[0] if key == "betas" else value)
            steps(model, optimizer, [batch])
            scheduler.step() if len(found) < 8 else None
        assert max(found) == pytest.approx(0.8)
        assert min(found) < 0.6
        assert set(optimizer.param_groups[0]) & {"momentum", "betas"} == {key}


class TestGradients:
    def test_clipping_bounds_the_step(self):
        model, (x, y) = network(), batches(1)[0]
        optimizer = SNGD(model, settings("input-eigh", warmup_batches=0, step_bound="graft"), lr=1.0, momentum=0.0)
        before = copy.deepcopy(model)
        squared_error(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        optimizer.step()
        pairs = zip(model.parameters(), before.parameters(), strict=True)
        moved = sum(float((p - q).detach().square().sum()) for p, q in pairs)
        assert moved**0.5 == pytest.approx(1e-3)

    def test_clipping_by_value_is_seen(self):
        models = network(), network()
        for model, limit in zip(models, (1e-3, 1e9), strict=True):
            optimizer = SNGD(model, settings("input-eigh", warmup_batches=0), lr=1e-2)
            squared_error(model(batches(1)[0][0]), batches(1)[0][1]).backward()
            nn.utils.clip_grad_value_(model.parameters(), limit)
            optimizer.step()
        assert 0 < relative_difference(models[0], network()) < 0.1 * relative_difference(models[1], network())

    def test_a_closure_of_the_explicit_form_gives_this_steps_gradients(self):
        left, right = reconstruct(network(), PLAIN), reconstruct(network(), PLAIN)
        by_hand, by_closure = (torch.optim.SGD(m.parameters(), lr=1e-3, momentum=0.9) for m in (left, right))
        steps(left, by_hand, batches(10))
        for x, y in batches(10):

            def closure(x=x, y=y):
                by_closure.zero_grad()
                loss = squared_error(right(x), y)
                loss.backward()
                return loss

            assert by_closure.step(closure).item() > 0
        assert same(left, right)

    def test_inference_leaves_no_trace(self):
        model = network()
        optimizer = SNGD(model, settings("unit") if "unit" in SETTINGS else PLAIN)
        before = copy.deepcopy(optimizer.state_dict())
        with torch.inference_mode():
            model(batches(1)[0][0])
        with torch.no_grad():
            model(batches(1)[0][0])
        torch.testing.assert_close(optimizer.state_dict()["fisher"], before["fisher"], rtol=0, atol=0)


class TestPrecision:
    @pytest.mark.parametrize("form", ["fused", "explicit"])
    def test_autocast_trains_and_keeps_statistics_in_float32(self, form):
        data = batches(24, torch.float32)
        model = network(dtype=torch.float32)
        if form == "fused":
            optimizer = SNGD(model, PLAIN, lr=1e-2)
            layers = list(optimizer.layers.values())
        else:
            model = reconstruct(model, PLAIN)
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
            layers = [model[i].fishers[0] for i in (0, 2, 4)]
        x, y = data[0]
        first = squared_error(model(x), y).item()
        for _ in range(24):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                outputs = model(x)
                assert outputs.dtype == torch.bfloat16
            squared_error(outputs.float(), y).backward()
            optimizer.step()
        assert squared_error(model(x), y).item() < first
        rows = torch.cat((x, torch.ones(len(x), 1)), 1)
        exact = rows.mT @ rows / len(rows)  # bfloat16 would leave three digits of it
        torch.testing.assert_close(layers[0].snapshot().value, exact, rtol=1e-4, atol=1e-5)
        assert {t.dtype for layer in layers for t in layer.buffers()} == {torch.float32}

    def test_a_step_inside_autocast_is_the_same_step(self):
        left, right = network(dtype=torch.float32), network(dtype=torch.float32)
        optimizers = [SNGD(model, PLAIN, lr=1e-2) for model in (left, right)]
        for x, y in batches(6, torch.float32):
            for model, optimizer in zip((left, right), optimizers, strict=True):
                optimizer.zero_grad()
                squared_error(model(x), y).backward()
            optimizers[0].step()
            with torch.autocast("cpu", torch.bfloat16):
                optimizers[1].step()
        assert same(left, right)

    @pytest.mark.parametrize("unscale", [False, True])
    @pytest.mark.parametrize("base", BASES)
    def test_grad_scaler_is_training_without_it(self, base, unscale):
        left, right = network(dtype=torch.float32), network(dtype=torch.float32)
        plain, scaled = (SNGD(model, PLAIN, lr=1e-2, **BASES[base]) for model in (left, right))
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)  # a power of two: exact
        steps(left, plain, batches(12, torch.float32))
        for x, y in batches(12, torch.float32):
            scaled.zero_grad()
            scaler.scale(squared_error(right(x), y)).backward()
            if unscale:
                scaler.unscale_(scaled)
            scaler.step(scaled)
            scaler.update()
        assert same(left, right)

    def test_grad_scaler_and_output_gradients(self):
        chosen = settings("diagonal", granularity="unit", root="eigh", step_bound="none")
        left, right = network(dtype=torch.float32), network(dtype=torch.float32)
        plain, scaled = SNGD(left, chosen, lr=1e-3), SNGD(right, chosen, lr=1e-3)
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        steps(left, plain, batches(8, torch.float32))
        for x, y in batches(8, torch.float32):
            scaled.zero_grad()
            scaler.scale(squared_error(right(x), y)).backward()
            scaler.step(scaled)
            scaler.update()
        assert relative_difference(right, left) < 1e-5
        scaled.zero_grad()
        scaler.scale(squared_error(right(x), y)).backward()
        scaler.unscale_(scaled)
        with pytest.raises(SettingsError, match=r"unscale_: must not be called before step\(\)"):
            scaler.step(scaled)

    def test_a_step_with_infinity_leaves_parameters_state_and_schedule_alone(self):
        model = network(dtype=torch.float32)
        optimizer = SNGD(model, settings("diagonal", granularity="unit", root="eigh"), lr=1e-2)
        steps(model, optimizer, batches(5, torch.float32))
        layer, scaler = optimizer.layers["0"], torch.amp.GradScaler("cpu", init_scale=1e38)
        before, step = copy.deepcopy((model.state_dict(), optimizer.state_dict())), layer.step
        optimizer.zero_grad()
        x, y = batches(1, torch.float32)[0]
        scaler.scale(squared_error(model(x), y) * 1e3).backward()
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() < 1e38
        torch.testing.assert_close((model.state_dict(), optimizer.state_dict()), before, rtol=0, atol=0)
        assert layer.step == step
        assert not layer.pending
        assert optimizer.skipped_steps == 0  # the scaler's own business, until it has found its scale

    @pytest.mark.parametrize("base", BASES)
    def test_a_model_that_changes_its_precision_takes_everything_along(self, base):
        model = network(dtype=torch.float32)
        optimizer = SNGD(model, PLAIN, lr=1e-2, **BASES[base])
        steps(model, optimizer, batches(7, torch.float32))
        model.double()
        steps(model, optimizer, batches(7))
        held = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
        held += [t for layer in optimizer.layers.values() for t in layer.buffers()]
        assert {t.dtype for t in held} == {torch.float64}
        model.bfloat16()
        steps(model, optimizer, batches(7, torch.bfloat16))
        assert {t.dtype for layer in optimizer.layers.values() for t in layer.buffers()} == {torch.float32}
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
        assert all(bool(p.isfinite().all()) for p in model.parameters())

    @pytest.mark.parametrize("name", ["input-cholesky", "input-nystrom-2", "diagonal"])
    def test_a_reconstruction_changes_its_precision(self, name):
        rebuilt = reconstruct(network(dtype=torch.float32), settings(name))
        steps(rebuilt, torch.optim.SGD(rebuilt.parameters(), lr=1e-3), batches(7, torch.float32))
        x = batches(1)[0][0]
        single = rebuilt(x.float())
        rebuilt.double()
        torch.testing.assert_close(rebuilt(x), single.double(), rtol=1e-4, atol=1e-5)
        steps(rebuilt, torch.optim.SGD(rebuilt.parameters(), lr=1e-3), batches(7))
        rebuilt.bfloat16()
        optimizer = torch.optim.SGD(rebuilt.parameters(), lr=1e-3, momentum=0.9)
        steps(rebuilt, optimizer, batches(14, torch.bfloat16))
        assert {t.dtype for t in rebuilt[0].fishers[0].buffers()} == {torch.float32}
        assert {p.dtype for p in restore(rebuilt).parameters()} == {torch.bfloat16}
        assert bool(rebuilt(x.bfloat16()).isfinite().all())

    @pytest.mark.parametrize("base", BASES)
    def test_resume_in_bfloat16_is_bit_exact(self, base):
        """torch's own `load_state_dict` would round the momentum, kept in float32, to bfloat16."""
        data, model = batches(20, torch.bfloat16), network(dtype=torch.bfloat16)
        optimizer = SNGD(model, PLAIN, lr=1e-2, **BASES[base])
        steps(model, optimizer, data[:9])
        buffer = io.BytesIO()
        torch.save([model.state_dict(), optimizer.state_dict()], buffer)
        buffer.seek(0)
        saved = torch.load(buffer, weights_only=True)
        again = network(seed=3, dtype=torch.bfloat16)
        resumed = SNGD(again, PLAIN, lr=1e-2, **BASES[base])
        again.load_state_dict(saved[0])
        resumed.load_state_dict(saved[1])
        steps(model, optimizer, data[9:])
        steps(again, resumed, data[9:])
        assert same(model, again)


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda value: pickle.loads(pickle.dumps(value))}


class TestCopies:
    @pytest.mark.parametrize("name", ["diagonal", "input-nystrom-2", "input-eigh"])
    @pytest.mark.parametrize("base", BASES)
    @pytest.mark.parametrize("make", COPIES)
    def test_a_copy_of_model_and_optimizer_goes_on_like_the_original(self, make, base, name):
        model = network()
        optimizer = SNGD(model, settings(name), lr=1e-2, **BASES[base])
        steps(model, optimizer, batches(20)[:9])
        twin, copied = COPIES[make]((model, optimizer))
        steps(twin, copied, batches(20)[9:])
        held = copy.deepcopy(optimizer.state_dict()["fisher"])
        torch.testing.assert_close(optimizer.state_dict()["fisher"], held, rtol=0, atol=0)  # it did not see the twin
        steps(model, optimizer, batches(20)[9:])
        assert same(model, twin)
        assert relative_difference(model, network()) > 1e-3
        assert len(copied.account) == len(optimizer.account)

    def test_a_copy_observes_its_model_and_not_the_old_one(self):
        model = network()
        optimizer = SNGD(model, PLAIN)
        twin, copied = copy.deepcopy((model, optimizer))
        twin(batches(1)[0][0])
        assert copied.layers["0"].snapshot() is not None
        assert optimizer.layers["0"].snapshot() is None

    @pytest.mark.parametrize("make", COPIES)
    def test_an_optimizer_alone_is_copied_with_its_layers(self, make):
        model = network()
        optimizer = SNGD(model, PLAIN, lr=1e-2)
        steps(model, optimizer, batches(6))
        copied = COPIES[make](optimizer)
        before = copy.deepcopy(model)
        for group in copied.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        copied.step()
        assert same(model, before)
        steps(model, optimizer, batches(1))
        assert not same(model, before)

    def test_a_copy_with_a_scheduler_on_the_original(self):
        model = network()
        optimizer = SNGD(model, PLAIN)
        torch.optim.lr_scheduler.StepLR(optimizer, 1)
        twin, copied = copy.deepcopy((model, optimizer))
        steps(twin, copied, batches(3))
        assert same(model, network())
        assert not same(twin, model)

    @pytest.mark.parametrize("form", ["fused", "explicit"])
    def test_an_averaged_model_is_not_observed(self, form):
        model = network() if form == "fused" else reconstruct(network(), PLAIN)
        optimizer = SNGD(model, PLAIN) if form == "fused" else torch.optim.SGD(model.parameters(), lr=1e-3)
        average = torch.optim.swa_utils.AveragedModel(model)
        twin = network() if form == "fused" else reconstruct(network(), PLAIN)
        other = SNGD(twin, PLAIN) if form == "fused" else torch.optim.SGD(twin.parameters(), lr=1e-3)
        for batch in batches(10):
            steps(model, optimizer, [batch])
            average.update_parameters(model)
            average(batch[0])
            steps(twin, other, [batch])
        assert same(model, twin)
        assert not same(average.module, model)

    def test_two_optimizers_on_two_models(self):
        alone, left, right = network(), network(), network()
        first = SNGD(alone, PLAIN)
        steps(alone, first, batches(8))
        pairs = [(left, SNGD(left, PLAIN)), (right, SNGD(right, PLAIN))]
        for batch in batches(8):
            for model, optimizer in pairs:
                steps(model, optimizer, [batch])
        assert same(left, alone)
        assert same(right, alone)

    def test_an_optimizer_that_goes_out_of_scope_frees_everything(self):
        model = network()
        optimizer = SNGD(model, PLAIN)
        steps(model, optimizer, batches(5))
        held = [weakref.ref(optimizer), weakref.ref(optimizer.layers["0"]), weakref.ref(optimizer.layers["0"].damping)]
        del optimizer
        gc.collect()
        assert [reference() for reference in held] == [None] * 3
        rebuilt = reconstruct(network(), PLAIN)
        torch_optimizer = torch.optim.SGD(rebuilt.parameters(), lr=1e-3)
        steps(rebuilt, torch_optimizer, batches(5))
        held = [weakref.ref(rebuilt), weakref.ref(rebuilt[0].weights[0])]
        del rebuilt, torch_optimizer
        gc.collect()
        assert [reference() for reference in held] == [None] * 2


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


@pytest.fixture
def _clean_compiler():
    gc.collect()
    torch._dynamo.reset()
    yield
    gc.collect()
    torch._dynamo.reset()


@pytest.mark.usefixtures("_clean_compiler")
class TestCompile:
    CHOSEN = settings("input-nystrom", fisher_interval=8, statistics_interval=4)

    def built(self, form, backend, early):
        model = network()
        if form == "explicit":
            rebuilt = reconstruct(model, self.CHOSEN, compiled=True)
            compiled = torch.compile(rebuilt, backend=backend, fullgraph=True)
            return compiled, torch.optim.SGD(compiled.parameters(), lr=1e-2, momentum=0.9), rebuilt
        if early:  # a graph that has never seen a hook
            compiled = torch.compile(model, backend=backend, fullgraph=True)
            compiled(batches(1)[0][0])
            return compiled, SNGD(compiled, self.CHOSEN, lr=1e-2), model
        optimizer = SNGD(model, self.CHOSEN, lr=1e-2, compiled=True)
        return torch.compile(model, backend=backend, fullgraph=True), optimizer, model

    @pytest.mark.xfail(
        reason="open (issue 3): the reference optimizer beside it asks for eager mode, too", strict=False
    )
    @pytest.mark.parametrize(("form", "early"), [("fused", True), ("fused", False), ("explicit", False)])
    def test_one_whole_graph_that_runs_in_all_steps_but_those_with_statistics(self, form, early):
        counting = Counting()
        model, optimizer, inner = self.built(form, counting, early)
        expected = network() if form == "fused" else reconstruct(network(), self.CHOSEN, compiled=True)
        eager = (
            SNGD(expected, self.CHOSEN, lr=1e-2, compiled=True)
            if form == "fused"
            else torch.optim.SGD(expected.parameters(), lr=1e-2, momentum=0.9)
        )
        layer = optimizer.layers["0"] if form == "fused" else inner[0].fishers[0]
        for batch in batches(30):
            due, before = layer.observing, counting.runs
            steps(model, optimizer, [batch])
            assert counting.runs - before == (not due)
            with torch.compiler.set_stance("force_eager"):
                steps(expected, eager, [batch])
        assert counting.graphs == 1
        assert relative_difference(inner, expected) == 0
        assert counting.runs > 12

    def test_a_real_backend(self):
        model, optimizer, inner = self.built("explicit", "aot_eager", early=False)
        steps(model, optimizer, batches(20))
        expected = reconstruct(network(), self.CHOSEN, compiled=True)
        steps(expected, torch.optim.SGD(expected.parameters(), lr=1e-2, momentum=0.9), batches(20))
        assert relative_difference(inner, expected) < 1e-12

    @pytest.mark.xfail(reason="open (issue 3): written for models that do not say they are compiled", strict=False)
    def test_the_stance_is_given_back(self):
        stance = torch._dynamo.eval_frame
        assert stance._stance.stance == "default"
        model = network()
        optimizer = SNGD(model, PLAIN)
        assert stance._stance.stance == "force_eager"
        optimizer.detach()
        assert stance._stance.stance == "default"
        rebuilt = reconstruct(network(), PLAIN)
        assert stance._stance.stance == "force_eager"
        rebuilt.eval()
        assert stance._stance.stance == "default"
        rebuilt.train()
        average = copy.deepcopy(rebuilt)
        del rebuilt
        gc.collect()
        assert average.training
        assert stance._stance.stance == "default"


def torch_optimizers():
    arguments = {
        "SGD": {"momentum": 0.9, "nesterov": True},
        "RMSprop": {"momentum": 0.9, "centered": True},
        "Adam": {"amsgrad": True},
        "AdamW": {"amsgrad": True},
        "LBFGS": {},
        "SparseAdam": {},
    }
    classes = [value for name, value in vars(torch.optim).items() if isinstance(value, type)]
    found = {c for c in classes if issubclass(c, torch.optim.Optimizer) and c is not torch.optim.Optimizer}
    return {c.__name__: (c, arguments.get(c.__name__, {})) for c in sorted(found, key=lambda c: c.__name__)}


OPTIMIZERS = torch_optimizers()
REFUSED = ("LBFGS", "SparseAdam")


class TestEveryTorchOptimizer:
    def test_there_are_some(self):
        assert {"Adam", "Muon", "Adafactor", "ASGD"} <= set(OPTIMIZERS)

    @pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in REFUSED])
    def test_it_trains_and_resumes(self, name):
        kind, arguments = OPTIMIZERS[name]
        chosen, data = settings("input-eigh", warmup_batches=1, fisher_interval=4), batches(40)
        rebuilt = reconstruct(network(), chosen)
        optimizer = kind(rebuilt.parameters(), lr=2e-3, **arguments)
        x, y = data[0]
        with torch.no_grad():
            first = float(squared_error(rebuilt(x), y))
        for _ in range(15):
            steps(rebuilt, optimizer, [(x, y)])
        with torch.no_grad():  # what a training pass shows waits for its step, and no checkpoint holds it
            assert float(squared_error(rebuilt(x), y)) < first
        buffer = io.BytesIO()
        torch.save([rebuilt.state_dict(), optimizer.state_dict()], buffer)
        buffer.seek(0)
        saved = torch.load(buffer, weights_only=True)
        again = reconstruct(network(seed=5), chosen)
        resumed = kind(again.parameters(), lr=2e-3, **arguments)
        again.load_state_dict(saved[0])
        resumed.load_state_dict(saved[1])
        steps(rebuilt, optimizer, data[20:])
        steps(again, resumed, data[20:])
        # torch casts NAdam's mu_product to the parameters' precision when it loads a state: its own rounding.
        assert same(rebuilt, again) if name != "NAdam" else relative_difference(rebuilt, again) < 1e-6

    @pytest.mark.parametrize("name", REFUSED)
    def test_it_is_refused_with_the_reason(self, name):
        kind, arguments = OPTIMIZERS[name]
        rebuilt = reconstruct(network(), PLAIN)
        optimizer = kind(rebuilt.parameters(), **arguments)
        with pytest.raises(ReconstructionError, match=f"{name} cannot train a reconstructed model"):
            optimizer.step(lambda: squared_error(rebuilt(batches(1)[0][0]), batches(1)[0][1]))

    @pytest.mark.parametrize("name", ["SGD", "ASGD"])
    def test_a_refresh_alone_moves_no_average_of_weights(self, name):
        """lr = 0: W stays, and so must what ASGD keeps of it."""
        rebuilt = reconstruct(network(), settings("input-cholesky", warmup_batches=0, fisher_interval=2))
        kind = OPTIMIZERS[name][0]
        optimizer = kind(rebuilt.parameters(), lr=0.0)
        steps(rebuilt, optimizer, batches(9))
        layer = rebuilt[0]
        assert layer.fishers[0].refreshes > 2
        W = torch.cat((network()[0].weight, network()[0].bias[:, None]), 1)
        torch.testing.assert_close(layer.fishers[0].root.apply_transpose(layer.weights[0]), W)
        if name == "ASGD":
            optimizer.param_groups[0]["t0"] = 0.0
            ax = optimizer.state[layer.weights[0]]["ax"]
            torch.testing.assert_close(layer.fishers[0].root.apply_transpose(ax), W)


class TestReconstructedModule:
    def test_state_dict_keys_hooks_buffers_and_flags_come_back(self):
        model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Conv1d(5, 3, 1), nn.Linear(2, 2))
        model[2].register_buffer("extra", torch.ones(2))
        model[3].requires_grad_(False)
        model[1].eval()
        restored = restore(reconstruct(model, FisherSettings()))
        assert list(restored.state_dict()) == list(model.state_dict())
        assert [p.requires_grad for p in restored.parameters()] == [p.requires_grad for p in model.parameters()]
        assert [m.training for m in restored.modules()] == [m.training for m in model.modules()]
        torch.testing.assert_close(restored.state_dict(), model.state_dict())

    def test_users_hooks_run(self):
        model, seen = network(), []
        model[0].register_forward_hook(lambda module, args, output: seen.append(type(module)))
        rebuilt = reconstruct(model, PLAIN)
        rebuilt(batches(1)[0][0])
        assert seen == [nn.Linear]

    def test_a_frozen_reconstruction_stays(self):
        rebuilt = reconstruct(network(), PLAIN)
        rebuilt[0].weights[0].requires_grad_(False)
        steps(rebuilt, torch.optim.SGD(rebuilt.parameters(), lr=1e-2), batches(10))
        restored = restore(rebuilt)
        torch.testing.assert_close(restored[0].weight, network()[0].weight)
        assert not restored[0].weight.requires_grad
        assert not torch.equal(restored[2].weight, network()[2].weight)

    def test_a_shared_module_is_rebuilt_once_for_all_its_places(self):
        shared = nn.Linear(3, 3).double()
        rebuilt = reconstruct(nn.Sequential(shared, nn.Tanh(), shared), PLAIN)
        assert rebuilt[0] is rebuilt[2]
        x = torch.randn(8, 3, dtype=torch.float64)
        steps(rebuilt, torch.optim.SGD(rebuilt.parameters(), lr=1e-2), [(x, x)] * 8)
        restored = restore(rebuilt)
        assert restored[0] is restored[2]
        torch.testing.assert_close(restored(x), rebuilt(x))
