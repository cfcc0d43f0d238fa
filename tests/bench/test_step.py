import pytest
import torch
from torch import nn

from sngd_tune.bench import step
from sngd_tune.bench.interleave import interleave_steps, p95_over_median
from sngd_tune.bench.peers import PEERS, Peer
from sngd_tune.bench.step import Candidate, measure
from sngd_tune.bench.tasks import (
    BLOCK,
    TASKS,
    LayerShape,
    Learner,
    Task,
    extra_multiply_adds,
    floor,
    layer_shapes,
)
from sngd_tune.errors import ConfigurationError, ReconstructionError
from sngd_tune.settings import FisherSettings

FIGURES = {
    "task",
    "setting",
    "threads",
    "milliseconds",
    "ratio_amortized",
    "lower_quartile",
    "upper_quartile",
    "p95_over_median",
    "extra_memory_bytes",
}


@pytest.fixture
def tiny(monkeypatch):
    """A task of microseconds, named as one of the four is."""

    def batch():
        return torch.rand(4, 6), torch.randint(0, 3, (4,))

    task = Task("mnist_mlp", lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), batch)
    monkeypatch.setitem(TASKS, "mnist_mlp", task)
    return task


def by_setting(rows):
    return {row["setting"]: row for row in rows}


def test_rows_have_their_figures(tiny):
    rows = by_setting(measure(1, [1], ["mnist_mlp"]))
    assert rows["sgd"]["ratio_amortized"] == 1
    assert rows["sgd"]["extra_memory_bytes"] == rows["sgd, again"]["extra_memory_bytes"] == 0
    assert list(rows)[-1] == "sgd, again"
    for name in ("sgd", "adamw", "default", "input", "rank 16"):
        assert set(rows[name]) >= FIGURES, rows[name]
        assert rows[name]["lower_quartile"] <= rows[name]["ratio_amortized"] <= rows[name]["upper_quartile"]
    parameters = sum(p.numel() for p in tiny.model().parameters())
    assert rows["adamw"]["extra_memory_bytes"] == 4 * parameters + 4 * 4  # a second moment, and a counter a parameter
    assert rows["input"]["floor"] >= 1
    assert rows["input"]["local_fisher"] == 1
    assert "floor" not in rows["adamw"]
    assert "local_fisher" not in rows["adamw"]


def test_the_floor_counts_layers_with_a_local_fisher_layer_alone(tiny):
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
    optimizer = step.SNGD(model, {"1": FisherSettings(root="cholesky", granularity="input")}, base="sgd")
    entrant = step._Entrant(Candidate(lambda _: Learner(model, [optimizer]), FisherSettings()), tiny, [])
    shapes = layer_shapes(model, torch.rand(2, 6))
    assert step._coverage(entrant) == {"local_fisher": round(18 / 53, 3)}
    extra = extra_multiply_adds([shapes["1"]], FisherSettings())
    assert step._floor(entrant, shapes, 1000.0) == {"floor": round(1 + extra / 1000, 3)}


def test_what_cannot_be_measured_is_a_row_of_its_own(tiny, monkeypatch):
    def refuse(_):
        raise ReconstructionError("no layer of this kind")

    class Breaks(Learner):
        calls = 0

        def __call__(self, inputs, targets):
            self.calls += 1
            if self.calls == BLOCK:
                raise RuntimeError("singular\nwith a long tale")

    missing = Peer("no-such-package", "no_such_module_of_anyone", lambda module, model: Learner(model, []))
    monkeypatch.setattr(step, "PEERS", {"missing": missing})
    monkeypatch.setattr(
        step,
        "CANDIDATES",
        {
            "sgd": step.CANDIDATES["sgd"],
            "refuses": Candidate(refuse),
            "breaks": Candidate(lambda model: Breaks(model, [])),
        },
    )
    told = []
    rows = by_setting(measure(1, [1], ["mnist_mlp"], peers=True, announce=told.append))
    same = {"task": "mnist_mlp", "threads": 1}
    assert rows["refuses"] == {**same, "setting": "refuses", "refused": "no layer of this kind"}
    assert rows["breaks"] == {**same, "setting": "breaks", "failed": "RuntimeError: singular"}
    assert rows["missing"] == {**same, "setting": "missing", "not_installed": "pip install no-such-package"}
    assert rows["sgd"]["milliseconds"] > 0
    assert told == ["mnist_mlp, threads 1"]


def test_a_slow_candidate_is_measured_on_its_warm_up(tiny, monkeypatch):
    monkeypatch.setattr(step, "_SLOW", 0)
    monkeypatch.setattr(step, "_SLOW_SECONDS", 0.0)
    with pytest.raises(KeyError):  # even SGD
        measure(1, [1], ["mnist_mlp"])
    entrant = step._Entrant(step.CANDIDATES["adamw"], tiny, tiny.batches())
    entrant.warm(patience=60)
    row = step._slow_figures(entrant, [1.0])
    assert row["note"] == "slow: mean of 9 steps"
    assert row["p95_over_median"] is None


def test_an_unknown_task_is_named():
    with pytest.raises(ConfigurationError, match="task 'mnist': must be one of mnist_mlp, cnn, lstm, transformer"):
        measure(1, [1], ["mnist"])


def test_threads_are_given_back(tiny, monkeypatch):
    monkeypatch.setattr(step, "CANDIDATES", {"sgd": step.CANDIDATES["sgd"]})
    before = torch.get_num_threads()
    measure(1, [before + 1], ["mnist_mlp"])
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("name", TASKS)
def test_a_task_learns(name):
    torch.manual_seed(0)
    inputs, targets = TASKS[name].batch()
    inputs, targets = inputs[:2], targets[:2]
    model = TASKS[name].model()
    learner = Learner(model, [torch.optim.SGD(model.parameters(), lr=0.01)])
    before = learner.loss(model(inputs), targets).item()
    learner(inputs, targets)
    assert learner.loss(model(inputs), targets).item() < before
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_transformer_sees_no_later_token():
    torch.manual_seed(0)
    model = TASKS["transformer"].model()
    tokens = torch.randint(0, 96, (1, 128))
    changed = tokens.clone()
    changed[0, -1] = (changed[0, -1] + 1) % 96
    torch.testing.assert_close(model(tokens)[:, :-1], model(changed)[:, :-1])


def test_batches_are_the_same_at_each_call(tiny):
    for first, second in zip(tiny.batches(), tiny.batches(), strict=True):
        assert torch.equal(first[0], second[0])


def test_layer_shapes():
    model = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.GroupNorm(2, 6), nn.Flatten(), nn.Linear(24, 5, bias=False))
    shapes = layer_shapes(model, torch.rand(7, 4, 4, 4))
    assert shapes == {
        "0": LayerShape(n=7 * 4, d_in=2 * 9 + 1, d_out=3, count=2),
        "3": LayerShape(n=7, d_in=24, d_out=5),
    }
    assert layer_shapes(nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 2)), torch.tensor([1])) is None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # a refresh every 50 steps; batches at 0, 20, 40, 50, 60, 80 of each 100 steps
        ({"root": "cholesky"}, 0.06 * 30 * 100**2 + 100**3 / 50 + 20 * 100**2),
        ({"rank": 4}, 0.06 * 2 * 30 * 100 * 12 + 100 * 12**2 / 50 + 2 * 20 * 100 * 4),
        ({"granularity": "diagonal"}, 0.06 * 30 * 100 + 100 / 50 + 20 * 100),
        ({"granularity": "block:10"}, 0.06 * 30 * 100 * 10 + 100 * 10**2 / 50 + 20 * 100 * 10),
        (
            {"granularity": "kron"},
            0.06 * 30 * (100**2 + 20**2) + (100**3 + 20**3) / 50 + 20 * 100**2 + 100 * 20**2,
        ),
        ({"root": "cholesky", "positions": 15}, 0.06 * 15 * 100**2 + 100**3 / 50 + 20 * 100**2),
    ],
)
def test_extra_multiply_adds(settings, expected):
    settings = FisherSettings(**settings, fisher_interval=50, statistics_interval=20)
    assert extra_multiply_adds([LayerShape(n=30, d_in=100, d_out=20)], settings) == pytest.approx(expected)
    groups = [LayerShape(n=30, d_in=100, d_out=20, count=3)]
    assert extra_multiply_adds(groups, settings) == pytest.approx(3 * expected)


def test_the_floor_is_left_out_where_it_cannot_be_said():
    assert extra_multiply_adds([LayerShape(1, 18, 1)], FisherSettings(granularity="block:channel")) is None
    assert floor(3.0, 4.0) == 1.75


def test_p95_over_median():
    assert p95_over_median([1.0] * 100) == 1
    assert p95_over_median([1.0] * 80 + [3.0] * 20) == 3


def test_steps_are_interleaved_by_turns():
    order = []
    seconds = interleave_steps({name: lambda n=name: order.append(n) for name in "ab"}, blocks=2, steps=3, turn=2)
    assert "".join(order) == "aabbab" * 2
    assert [len(block) for block in seconds["a"]] == [3, 3]


def test_every_peer_names_its_package():
    assert {name.split()[0] for name in PEERS} == {peer.package for peer in PEERS.values()}


def test_torch_muon_takes_hidden_matrices_only():
    model = TASKS["lstm"].model()
    muon, adamw = PEERS["torch Muon"].make(model).optimizers
    counted = sum(p.numel() for o in (muon, adamw) for group in o.param_groups for p in group["params"])
    assert counted == sum(p.numel() for p in model.parameters())
    assert not {id(model.embedding.weight), id(model.head.weight)} & {id(p) for p in muon.param_groups[0]["params"]}
