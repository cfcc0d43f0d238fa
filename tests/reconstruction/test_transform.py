"""The explicit form as a model transformation, and its hook on every optimizer of the process."""

import copy
import io

import pytest
import torch
from torch import nn

from sngd_tune import FisherSettings, account, reconstruct, restore
from sngd_tune.errors import ReconstructionError
from sngd_tune.reconstruction.layers import ReconstructedLayer
from tests.core.problems import SETTINGS, batches, network, relative_difference, settings, steps


@pytest.mark.parametrize("name", SETTINGS)
def test_same_function_before_and_after_refreshes_and_back(name):
    rebuilt = reconstruct(network(), settings(name))
    x = batches(1)[0][0]
    torch.testing.assert_close(rebuilt(x), network()(x))
    optimizer = torch.optim.SGD(rebuilt.parameters(), lr=1e-3, momentum=0.9)
    steps(rebuilt, optimizer, batches(15))
    assert rebuilt[0].fishers[0].refreshes > 3
    plain = restore(rebuilt)
    assert [type(module) for module in plain.modules()] == [type(module) for module in network().modules()]
    assert [p.shape for p in plain.parameters()] == [p.shape for p in network().parameters()]
    torch.testing.assert_close(plain(x), rebuilt(x))


def test_a_refresh_alone_does_not_move_the_function():
    """lr = 0: roots are replaced, weights, gradients and momentum re-based, and the outputs stay."""
    rebuilt, x = reconstruct(network(), settings("input-cholesky", warmup_batches=0)), batches(1)[0][0]
    optimizer = torch.optim.SGD(rebuilt.parameters(), lr=0.0, momentum=0.9)
    before = rebuilt(x)
    steps(rebuilt, optimizer, batches(14))
    torch.testing.assert_close(rebuilt(x), before)
    torch.testing.assert_close(restore(rebuilt)(x), before)


def test_the_original_stays_untouched_and_a_single_layer_works():
    layer = nn.Linear(3, 2)
    rebuilt = reconstruct(layer, FisherSettings())
    assert isinstance(rebuilt, ReconstructedLayer)
    assert type(layer) is nn.Linear
    restored = restore(rebuilt)
    assert type(restored) is nn.Linear
    assert torch.equal(restored.weight, layer.weight)


def test_restore_of_a_plain_model_is_a_copy():
    model = network()
    plain = restore(model)
    assert plain is not model
    assert relative_difference(plain, model) == 0


def test_account_lists_every_parameter_once():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    entries = account(model, FisherSettings())
    assert [entry.parameter for entry in entries] == [name for name, _ in model.named_parameters()]
    assert [entry.treatment for entry in entries] == ["local Fisher"] * 2 + ["plain"] * 2 + ["local Fisher"] * 2


def test_checkpoint_resumes_bit_for_bit():
    data = batches(20)
    rebuilt = reconstruct(network(), settings("input-nystrom-2"))
    optimizer = torch.optim.AdamW(rebuilt.parameters(), lr=1e-2)
    steps(rebuilt, optimizer, data[:9])
    buffer = io.BytesIO()
    torch.save([rebuilt.state_dict(), optimizer.state_dict()], buffer)
    steps(rebuilt, optimizer, data[9:])
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    again = reconstruct(network(seed=4), settings("input-nystrom-2"), seed=8)
    again.load_state_dict(saved[0])
    resumed = torch.optim.AdamW(again.parameters(), lr=1e-2)
    resumed.load_state_dict(saved[1])
    steps(again, resumed, data[9:])
    assert all(torch.equal(p, q) for p, q in zip(rebuilt.parameters(), again.parameters(), strict=True))


def test_a_copy_trains_like_the_original():
    """What the optimizer hook knows of layers must not be lost in a deepcopy."""
    rebuilt = reconstruct(network(), settings("input-eigh"))
    clone = copy.deepcopy(rebuilt)
    for model in (rebuilt, clone):
        steps(model, torch.optim.SGD(model.parameters(), lr=1e-3), batches(12))
    assert relative_difference(restore(clone), restore(rebuilt)) < 1e-12


def test_two_models_and_optimizers_do_not_disturb_each_other():
    alone, left, right = (reconstruct(network(), settings("input-eigh")) for _ in range(3))
    steps(alone, torch.optim.SGD(alone.parameters(), lr=1e-3), batches(10))
    optimizers = [torch.optim.SGD(model.parameters(), lr=1e-3) for model in (left, right)]
    for batch in batches(10):
        for model, optimizer in zip((left, right), optimizers, strict=True):
            steps(model, optimizer, [batch])
    assert relative_difference(left, alone) == relative_difference(right, alone) == 0


def test_an_unknown_optimizer_state_is_named():
    class Odd(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure=None):
            for parameter in self.param_groups[0]["params"]:
                self.state[parameter]["wobble"] = torch.zeros_like(parameter)
            return super().step(closure)

    rebuilt = reconstruct(network(), settings("input-eigh", warmup_batches=0))
    with pytest.raises(ReconstructionError, match=r"Odd keeps 'wobble'.*STATE_RULES"):
        steps(rebuilt, Odd(rebuilt.parameters(), lr=1e-3), batches(8))


def test_call_signature_and_training_mode_are_kept():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, x, *, scale=1.0):
            return self.linear(x) * scale

    rebuilt = reconstruct(Two().eval())
    assert not rebuilt.linear.training
    x = torch.randn(5, 4, 3)
    torch.testing.assert_close(rebuilt(x, scale=2.0), 2 * rebuilt(x))
