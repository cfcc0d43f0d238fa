"""The explicit form under every optimizer of `torch.optim`, and the modules it is made of."""

import pytest
import torch
from torch import nn

from sngd_tune import FisherSettings, reconstruct, restore
from sngd_tune.errors import ReconstructionError
from tests.core.behaviour import PLAIN, on_disk, same
from tests.core.problems import batches, network, relative_difference, settings, squared_error, steps


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
        saved = on_disk(rebuilt, optimizer)
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
