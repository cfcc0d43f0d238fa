"""Copies and pickles of models and optimizers, several in one process, and what is left when one is gone."""

import copy
import gc
import weakref

import pytest
import torch

from sngd_tune import SNGD, reconstruct
from tests.core.behaviour import BASES, COPIES, FORMS, PLAIN, TORCH_OPTIMIZERS, same
from tests.core.problems import batches, network, relative_difference, settings, steps


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

    @pytest.mark.parametrize("name", ["diagonal", "input-nystrom-2", "input-eigh"])
    @pytest.mark.parametrize("base", BASES)
    @pytest.mark.parametrize("make", COPIES)
    def test_a_copy_of_a_reconstruction_and_its_optimizer_goes_on_like_the_original(self, make, base, name):
        rebuilt = reconstruct(network(), settings(name))
        optimizer = TORCH_OPTIMIZERS[base](rebuilt.parameters(), 1e-2)
        steps(rebuilt, optimizer, batches(20)[:9])
        twin, copied = COPIES[make]((rebuilt, optimizer))
        steps(twin, copied, batches(20)[9:])
        assert not same(rebuilt, twin)
        steps(rebuilt, optimizer, batches(20)[9:])
        assert same(rebuilt, twin)

    def test_a_copy_observes_its_model_and_not_the_old_one(self):
        model = network()
        optimizer = SNGD(model, PLAIN, base="sgd")
        twin, copied = copy.deepcopy((model, optimizer))
        twin(batches(1)[0][0])
        assert copied.layers["0"].snapshot() is not None
        assert optimizer.layers["0"].snapshot() is None

    @pytest.mark.parametrize("make", COPIES)
    def test_an_optimizer_alone_is_copied_with_its_layers(self, make):
        model = network()
        optimizer = SNGD(model, PLAIN, lr=1e-2, base="sgd")
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
        optimizer = SNGD(model, PLAIN, base="sgd")
        torch.optim.lr_scheduler.StepLR(optimizer, 1)
        twin, copied = copy.deepcopy((model, optimizer))
        steps(twin, copied, batches(3))
        assert same(model, network())
        assert not same(twin, model)

    @pytest.mark.parametrize("form", FORMS)
    def test_an_averaged_model_is_not_observed(self, form):
        model = network() if form == "fused" else reconstruct(network(), PLAIN)
        optimizer = SNGD(model, PLAIN, base="sgd") if form == "fused" else torch.optim.SGD(model.parameters(), lr=1e-3)
        average = torch.optim.swa_utils.AveragedModel(model)
        twin = network() if form == "fused" else reconstruct(network(), PLAIN)
        other = SNGD(twin, PLAIN, base="sgd") if form == "fused" else torch.optim.SGD(twin.parameters(), lr=1e-3)
        for batch in batches(10):
            steps(model, optimizer, [batch])
            average.update_parameters(model)
            average(batch[0])
            steps(twin, other, [batch])
        assert same(model, twin)
        assert not same(average.module, model)

    def test_two_optimizers_on_two_models(self):
        alone, left, right = network(), network(), network()
        first = SNGD(alone, PLAIN, base="sgd")
        steps(alone, first, batches(8))
        pairs = [(left, SNGD(left, PLAIN, base="sgd")), (right, SNGD(right, PLAIN, base="sgd"))]
        for batch in batches(8):
            for model, optimizer in pairs:
                steps(model, optimizer, [batch])
        assert same(left, alone)
        assert same(right, alone)

    def test_an_optimizer_that_goes_out_of_scope_frees_everything(self):
        model = network()
        optimizer = SNGD(model, PLAIN, base="sgd")
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
