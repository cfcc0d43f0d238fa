"""Memory is told before it is taken: within 5 % of what it comes to, and refused where it is not there."""

import weakref

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sngd_tune import SNGD, FisherSettings, predicted_memory, reconstruct
from sngd_tune.core import memory
from sngd_tune.core.memory import cached_bytes
from sngd_tune.errors import ReconstructionError
from sngd_tune.reconstruction.layers import ReconstructedLayer
from sngd_tune.settings import ROOT_SCALES, ROOTS

KEPT = [
    {"granularity": "diagonal"},
    {"granularity": "block:16", "root": "cholesky"},
    {"granularity": "block:16", "root": "eigenbasis"},
    {"granularity": "input", "root": "cholesky"},
    {"granularity": "input", "root": "eigh"},
    {"granularity": "input", "root": "eigenbasis"},
    {"granularity": "input", "root": "newton_schulz"},
    {"granularity": "input", "root": "nystrom", "rank": 8},
    {"granularity": "input", "root": "nystrom", "rank": 8, "retained_trace": 0.9},
    {"granularity": "unit", "root": "cholesky"},
    {"granularity": "kron", "root": "eigh"},
    {"granularity": "unit", "root": "newton_schulz", "root_scale": "unit"},
    {"granularity": "layer", "root": "cholesky"},
]


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(48, 12), nn.Tanh(), nn.Conv1d(8, 4, 1), nn.Flatten(), nn.Linear(48, 5))


def train(rebuilt, optimizer):
    for seed in range(5):
        x = torch.randn(6, 8, 48, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        rebuilt(x).square().mean().backward()
        optimizer.step()


def real(fisher):
    return sum(buffer.nbytes for buffer in fisher.buffers()) + cached_bytes(fisher.root)


def settings(kept):
    return FisherSettings(relative_damping=0.1, warmup_batches=1, fisher_interval=2, statistics_interval=1, **kept)


@pytest.mark.parametrize("form", ["sgd", "adamw", "explicit"])
@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: "-".join(map(str, kept.values())))
def test_predicted_bytes_are_the_real_ones(kept, form):
    chosen = settings(kept)
    expected = predicted_memory(model(), chosen, form=form)
    if form == "explicit":
        rebuilt = reconstruct(model(), chosen)
        train(rebuilt, torch.optim.SGD(rebuilt.parameters(), lr=1e-3))
        layers = [module for module in rebuilt.modules() if isinstance(module, ReconstructedLayer)]
        fishers = {fisher.name: fisher for layer in layers for fisher, _ in layer.layers()}
    else:
        trained = model()
        optimizer = SNGD(trained, chosen, base=form, lr=1e-3)
        train(trained, optimizer)
        fishers = dict(optimizer.layers)
    assert set(fishers) == set(expected)
    assert all(fisher.refreshes for fisher in fishers.values())
    together = sum(map(real, fishers.values()))
    assert sum(each.kept for each in expected.values()) == pytest.approx(together, rel=0.05)


class Live(TorchDispatchMode):
    """Counts the bytes of tensors that operations make, while these live."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        output = func(*args, **(kwargs or {}))
        for storage in (x.untyped_storage() for x in tree_leaves(output) if isinstance(x, torch.Tensor)):
            if storage.data_ptr() not in given | self.known and storage.nbytes():
                self._count(storage.data_ptr(), storage.nbytes())
                weakref.finalize(storage, self._forget, storage.data_ptr(), storage.nbytes())
        return output

    def _count(self, place, size):
        self.known.add(place)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _forget(self, place, size):
        self.known.discard(place)
        self.now -= size


@pytest.mark.parametrize("scale", ROOT_SCALES)
@pytest.mark.parametrize("root", ROOTS)
def test_a_refresh_stays_below_its_predicted_peak(root, scale):
    """Up to what LAPACK takes by itself, which no operation shows."""
    model = nn.Linear(256, 8).double()
    optimizer = SNGD(model, settings({"granularity": "input", "root": root, "root_scale": scale}), base="sgd")
    for seed in range(4):
        x = torch.randn(64, 256, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        model(x).square().mean().backward()
        with Live() as live:
            optimizer.layers[""].advance()
    (expected,) = predicted_memory(model, optimizer.layers[""].settings).values()
    assert optimizer.layers[""].refreshes
    assert live.peak <= expected.peak <= 2 * live.peak


def test_nothing_is_allocated_to_predict():
    wide = nn.Linear(4096, 4096, device="meta")
    (each,) = predicted_memory(wide, FisherSettings(granularity="unit")).values()
    assert each.state >= 4096 * 4097**2 * 4
    assert each.root >= each.state / 2


def little(monkeypatch, mebibytes):
    monkeypatch.setattr(memory, "available", lambda device: mebibytes * 2**20)


def wide():
    return nn.Sequential(nn.Linear(1024, 1024, device="meta"), nn.Linear(1024, 10, device="meta"))


@pytest.mark.parametrize(
    ("mebibytes", "remedy"),
    [
        (2000, r"granularity='kron' is the nearest choice that fits \(68.2 MiB\)"),
        (45, r"granularity='input', root='cholesky' is the nearest choice that fits \(40.3 MiB\)"),
        (4, r"granularity='block:64' is the nearest choice"),
        (2, r"granularity='input', root='nystrom', rank=16 is the nearest choice"),
        (0.5, r"granularity='diagonal' is the nearest choice that fits \(97 KiB\)"),
        (0.01, "not even granularity='diagonal' fits"),
    ],
)
def test_what_does_not_fit_is_refused_with_figures_and_the_nearest_choice(monkeypatch, mebibytes, remedy):
    little(monkeypatch, mebibytes)
    figures = (
        r"need 28\.3 GiB, and meta has .* left; most of it goes to 0 \(1024×1025, granularity='unit': 12\.1 GiB\); "
    )
    with pytest.raises(ReconstructionError, match=figures + remedy):
        SNGD(wide(), FisherSettings(granularity="unit"), base="sgd")
    with pytest.raises(ReconstructionError, match=r"meta has .* left"):
        reconstruct(wide(), FisherSettings(granularity="unit"))


def test_the_remedy_fits(monkeypatch):
    little(monkeypatch, 100)
    with pytest.raises(ReconstructionError, match="granularity='kron'"):
        SNGD(wide(), FisherSettings(granularity="unit"), base="sgd")
    memory.check(memory.matches(wide(), FisherSettings(granularity="kron")))


def test_a_choice_for_one_layer_leaves_the_others(monkeypatch):
    """The remedy is for layers with the settings of the worst one."""
    little(monkeypatch, 100)
    chosen = {"0": FisherSettings(granularity="unit"), "1": FisherSettings(granularity="input", root="cholesky")}
    with pytest.raises(ReconstructionError, match=r"most of it goes to 0 .*; granularity='kron' is the nearest"):
        SNGD(wide(), chosen, base="sgd")


@pytest.mark.parametrize(
    ("costly", "mebibytes", "remedy"),
    [
        ({"rank": 200}, 2, "rank=16"),
        ({"granularity": "block:512"}, 4, "granularity='block:64'"),
        ({"rank": 4}, 0.3, "'diagonal'"),
    ],
)
def test_the_remedy_may_be_less_of_the_same(monkeypatch, costly, mebibytes, remedy):
    little(monkeypatch, mebibytes)
    with pytest.raises(ReconstructionError, match=f"; [^;]*{remedy} is the nearest"):
        SNGD(wide(), FisherSettings(**costly))


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_control_groups_bound_what_is_there(tmp_path):
    proc, root = tmp_path / "cgroup", tmp_path / "fs"
    write(proc, "0::/job/step\n")
    write(root / "job/memory.max", "1000\n")
    write(root / "job/memory.current", "700\n")
    write(root / "job/memory.stat", "anon 500\ninactive_file 50\n")
    write(root / "job/step/memory.max", "max\n")
    write(root / "job/step/memory.current", "700\n")
    assert list(memory._control_groups(proc, root)) == [350]


def test_control_groups_of_the_first_version_bound_it_too(tmp_path):
    proc, root = tmp_path / "cgroup", tmp_path / "fs"
    write(proc, "9:cpu,cpuacct:/x\n4:memory:/host/path\n0::/\n")
    write(root / "memory/memory.limit_in_bytes", "1000\n")
    write(root / "memory/memory.usage_in_bytes", "400\n")
    write(root / "memory/memory.stat", "total_inactive_file 100\n")
    assert list(memory._control_groups(proc, root)) == [700]


def test_without_any_source_nothing_is_refused(tmp_path):
    assert memory._system(tmp_path / "meminfo") is None
    assert list(memory._control_groups(tmp_path / "cgroup", tmp_path)) == []
    assert memory.available(torch.device("meta")) is None


def test_what_the_system_has_is_read_from_meminfo(tmp_path):
    write(tmp_path / "meminfo", "MemTotal:  100 kB\nMemFree:  3 kB\nMemAvailable:   64 kB\n")
    assert memory._system(tmp_path / "meminfo") == 64 * 1024
