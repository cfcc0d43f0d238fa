"""A residual network with batch norm there and back: the same function, also after training and in another process."""

import subprocess
import sys

import torch
from torch import nn

from sngd_tune import SNGD, FisherSettings, reconstruct, restore
from tests.core.problems import relative_difference

#: As source, since a process without sngd_tune (and without these tests) builds the same network.
SOURCE = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.first = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(c_out), nn.BatchNorm2d(c_out)])
        self.shortcut = nn.Conv2d(c_in, c_out, 1, stride)

    def forward(self, x):
        y = self.norms[0](self.first(x)).relu()
        return (self.norms[1](self.second(y)) + self.shortcut(x)).relu()

def resnet():
    torch.manual_seed(0)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    return nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), Block(4, 4, 1), Block(4, 8, 2), *head).double()
"""
made: dict[str, object] = {}
exec(SOURCE, made)
resnet = made["resnet"]

SETTINGS = FisherSettings(rank=6, fisher_interval=4, statistics_interval=2, warmup_batches=1)


def images(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(16, 2, 8, 8, dtype=torch.float64, generator=generator)


def train(model, optimizer, steps=12):
    for step in range(steps):
        x = images(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), x.mean((1, 2, 3)).gt(0).long()).backward()
        optimizer.step()


def trained():
    rebuilt = reconstruct(resnet(), SETTINGS)
    train(rebuilt, torch.optim.SGD(rebuilt.parameters(), lr=0.05, momentum=0.9))
    return rebuilt


def test_reconstructed_trained_and_restored_it_is_the_same_function_of_the_same_classes():
    torch.testing.assert_close(restore(reconstruct(resnet(), SETTINGS))(images(99)), resnet()(images(99)))
    rebuilt = trained()
    assert min(fisher.refreshes for layer in rebuilt.modules() for fisher in getattr(layer, "fishers", ())) >= 3
    plain = restore(rebuilt)
    assert [type(module) for module in plain.modules()] == [type(module) for module in resnet().modules()]
    assert list(plain.state_dict()) == list(resnet().state_dict())
    for mode in (True, False):
        torch.testing.assert_close(plain.train(mode)(images(99)), rebuilt.train(mode)(images(99)))


def test_both_forms_train_it_alike():
    fused = resnet()
    train(fused, SNGD(fused, SETTINGS, lr=0.05, momentum=0.9))
    assert relative_difference(fused, resnet()) > 1e-2  # it went somewhere
    assert relative_difference(restore(trained()), fused) < 1e-9


def test_it_loads_where_sngd_tune_is_not_imported(tmp_path):
    plain = restore(trained()).eval()
    (tmp_path / "network.py").write_text(SOURCE)
    torch.save([plain.state_dict(), images(99), plain(images(99))], tmp_path / "state.pt")
    program = (
        "import sys, torch\n"
        "sys.path.insert(0, '.')\n"
        "from network import resnet\n"
        "state, x, expected = torch.load('state.pt', weights_only=True)\n"
        "model = resnet().eval()\n"
        "model.load_state_dict(state)\n"
        "assert torch.equal(model(x), expected)\n"
        "assert not [name for name in sys.modules if name.startswith('sngd_tune')]\n"
    )
    subprocess.run([sys.executable, "-I", "-W", "error", "-c", program], cwd=tmp_path, check=True)
