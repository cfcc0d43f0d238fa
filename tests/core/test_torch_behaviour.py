"""Both forms behave as torch's own optimizers do: parameter groups, frozen parameters, schedulers, gradients."""

import copy

import pytest
import torch
from torch import nn

from sngd_tune import SNGD, reconstruct, restore
from sngd_tune.errors import SettingsError
from tests.core.behaviour import BASES, FORMS, PLAIN, TORCH_OPTIMIZERS, same
from tests.core.problems import batches, network, relative_difference, settings, squared_error, steps


def steps_by_closure(model, optimizer):
    """A step on each of ten batches, whose loss and gradients a closure makes."""
    for x, y in batches(10):

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = squared_error(model(x), y)
            loss.backward()
            return loss

        assert optimizer.step(closure).item() > 0


class TestGroups:
    def test_one_group_for_all_is_no_groups(self):
        left, right = network(), network()
        steps(left, SNGD(left, PLAIN, lr=1e-2, base="sgd"), batches(10))
        steps(
            right, SNGD(right, PLAIN, lr=1e-2, param_groups=[{"params": right.parameters()}], base="sgd"), batches(10)
        )
        assert same(left, right)

    def test_a_group_has_its_own_hyperparameters(self):
        """A learning rate of next to nothing for the first layer, and decay for the last."""
        model = network()
        groups = [
            {"params": model[0].parameters(), "lr": 1e-300},
            {"params": model[2].parameters()},
            {"params": model[4].parameters(), "weight_decay": 0.5},
        ]
        optimizer = SNGD(model, PLAIN, lr=1e-2, param_groups=groups, base="sgd")
        steps(model, optimizer, batches(3))  # the warm-up and one step
        plain = network()
        steps(plain, SNGD(plain, PLAIN, lr=1e-2, base="sgd"), batches(3))
        assert torch.equal(model[0].weight, network()[0].weight)
        assert torch.equal(model[2].weight, plain[2].weight)
        decayed = plain[4].weight - 0.5 * 1e-2 * network()[4].weight
        torch.testing.assert_close(model[4].weight, decayed)

    @pytest.mark.parametrize("base", BASES)
    def test_groups_are_those_of_a_torch_optimizer_on_the_reconstruction(self, base):
        chosen = settings("input-eigh", step_bound="none")
        model, rebuilt = network(), reconstruct(network(), chosen)
        rates = {0: 1e-3, 2: 2e-3, 4: 5e-4}
        groups = [{"params": model[i].parameters(), "lr": lr} for i, lr in rates.items()]
        steps(model, SNGD(model, chosen, param_groups=groups, **BASES[base]), batches(12))
        groups = [{"params": rebuilt[i].parameters(), "lr": lr} for i, lr in rates.items()]
        steps(rebuilt, TORCH_OPTIMIZERS[base](groups, 1.0), batches(12))
        assert relative_difference(restore(rebuilt), model) < 1e-10

    def test_named_parameters_make_groups(self):
        model = network()
        optimizer = SNGD(model, PLAIN, param_groups=[{"params": list(model.named_parameters())}], base="sgd")
        assert optimizer.param_groups[0]["param_names"][0] == "0.weight"
        steps(model, optimizer, batches(4))

    def test_what_no_group_holds_is_named(self):
        model = network()
        with pytest.raises(SettingsError, match=r"and 2\.weight, 4\.weight, 4\.bias are in none; add a group"):
            SNGD(model, param_groups=[{"params": model[0].parameters()}], base="sgd")
        model[2].requires_grad_(False)
        SNGD(model, param_groups=[{"params": [*model[0].parameters(), *model[4].parameters()]}], base="sgd")

    def test_weight_and_bias_belong_together(self):
        model = network()
        biases = [model[0].bias, model[4].bias]
        weights = [model[0].weight, model[2].weight, model[4].weight]
        groups = [{"params": weights}, {"params": biases, "weight_decay": 0.0}]
        with pytest.raises(SettingsError, match=r"all of 0 in one group.*weight in 0, bias in 1"):
            SNGD(model, param_groups=groups, base="sgd")

    @pytest.mark.parametrize(
        ("group", "message"), [([], r"param_groups\[0\]=\[\]"), ({"lr": 1.0}, 'must be a mapping with "params"')]
    )
    def test_bad_groups(self, group, message):
        with pytest.raises(SettingsError, match=message):
            SNGD(network(), param_groups=[group], base="sgd")

    def test_a_bad_hyperparameter_of_a_group(self):
        model = network()
        with pytest.raises(SettingsError, match="weight_decay=-1"):
            SNGD(model, param_groups=[{"params": model.parameters(), "weight_decay": -1}], base="sgd")
        with pytest.raises(SettingsError, match="lr=nan"):
            SNGD(model, base="sgd").add_param_group({"params": [nn.Parameter(torch.ones(2))], "lr": float("nan")})

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
        optimizer = SNGD(model, PLAIN, lr=1e-2, base="sgd")
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
        optimizer = SNGD(model, PLAIN, lr=1e-2, weight_decay=0.1, base="sgd")
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
        optimizer = SNGD(model, PLAIN, lr=0.1, base="sgd")
        scheduler = make(optimizer)
        for batch in batches(8):
            steps(model, optimizer, [batch])
            scheduler.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(lr, abs=1e-12)

    def test_a_plateau_lowers_the_learning_rate(self):
        model = network()
        optimizer = SNGD(model, PLAIN, lr=0.1, base="sgd")
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
        for batch in batches(4):
            steps(model, optimizer, [batch])
            scheduler.step(1.0)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**3)

    @pytest.mark.parametrize("base", BASES)
    def test_the_explicit_form_under_a_scheduler_is_the_fused_form_under_it(self, base):
        chosen = settings("input-eigh", step_bound="none")
        model, rebuilt = network(), reconstruct(network(), chosen)
        optimizers = SNGD(model, chosen, lr=2e-3, **BASES[base]), TORCH_OPTIMIZERS[base](rebuilt.parameters(), 2e-3)
        for each, optimizer in zip((model, rebuilt), optimizers, strict=True):
            scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 16)
            for batch in batches(12):
                steps(each, optimizer, [batch])
                scheduler.step()
        assert relative_difference(restore(rebuilt), model) < 1e-10

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
            optimizer = SNGD(model, settings("input-eigh", warmup_batches=0), lr=1e-2, base="sgd")
            squared_error(model(batches(1)[0][0]), batches(1)[0][1]).backward()
            nn.utils.clip_grad_value_(model.parameters(), limit)
            optimizer.step()
        assert 0 < relative_difference(models[0], network()) < 0.1 * relative_difference(models[1], network())

    def test_a_closure_of_the_explicit_form_gives_this_steps_gradients(self):
        left, right = reconstruct(network(), PLAIN), reconstruct(network(), PLAIN)
        by_hand, by_closure = (torch.optim.SGD(m.parameters(), lr=1e-3, momentum=0.9) for m in (left, right))
        steps(left, by_hand, batches(10))
        steps_by_closure(right, by_closure)
        assert same(left, right)

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("name", ["diagonal", "input-eigh", "input-nystrom", "unit", "kron"])
    def test_accumulated_gradients_are_those_of_the_joint_batch(self, name, form):
        """Statistics, too: passes without a step between them are one batch."""
        output_side = {"granularity": name, "root": "eigh"}
        chosen = settings("diagonal", **output_side) if name in ("unit", "kron") else settings(name)

        def trained(parts):
            model = network() if form == "fused" else reconstruct(network(), chosen)
            made = TORCH_OPTIMIZERS["sgd"]
            optimizer = SNGD(model, chosen, lr=1e-2, base="sgd") if form == "fused" else made(model.parameters(), 1e-2)
            for x, y in batches(12):
                optimizer.zero_grad()
                for part in parts:
                    (squared_error(model(x[part]), y[part]) / len(parts)).backward()
                optimizer.step()
            return restore(model)  # half the loss is another scale of G, and so of W′, where G is of gradients

        halves = trained([slice(0, 16), slice(16, 32)])
        assert relative_difference(halves, trained([slice(None)])) < 1e-10

    @pytest.mark.parametrize("base", BASES)
    def test_a_closure_of_the_fused_form_gives_this_steps_gradients(self, base):
        left, right = network(), network()
        by_hand, by_closure = (SNGD(model, PLAIN, lr=1e-3, **BASES[base]) for model in (left, right))
        steps(left, by_hand, batches(10))
        steps_by_closure(right, by_closure)
        assert same(left, right)

    def test_inference_leaves_no_trace(self):
        model = network()
        optimizer = SNGD(model, PLAIN, base="sgd")
        before = copy.deepcopy(optimizer.state_dict())
        with torch.inference_mode():
            model(batches(1)[0][0])
        with torch.no_grad():
            model(batches(1)[0][0])
        torch.testing.assert_close(optimizer.state_dict()["fisher"], before["fisher"], rtol=0, atol=0)
