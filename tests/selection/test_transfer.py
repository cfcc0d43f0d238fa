"""A selection on another version of its model, by known answers."""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor, nn

from sngd_tune import SNGD
from sngd_tune.errors import ConfigurationError, ReconstructionError
from sngd_tune.lr_schedule import LrSchedule
from sngd_tune.records.selection import RatePoint, SelectionRecord
from sngd_tune.selection.file import load, save
from sngd_tune.selection.select import Selection, select_settings
from sngd_tune.selection.transfer import transfer
from sngd_tune.settings import FisherSettings
from tests.selection.samples import LOW_RANK, choice, plain_choice, probe, selection


def source(
    layers: Mapping[str, FisherSettings | None], inputs: int = 65, module: str = "Linear", **changes: Any
) -> SelectionRecord:
    """A selection on batches of 100 of layers with so many inputs."""
    choices = tuple(plain_choice(n) if s is None else choice(n, settings=s) for n, s in layers.items())
    probes = tuple(probe(name, inputs=inputs, module=module) for name in layers)
    return selection(**{"batch_size": 100.0, "layers": choices, "probes": probes, **changes})


def mlp(*widths: int) -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(*(nn.Linear(*pair) for pair in itertools.pairwise(widths)))


def only(found: Selection) -> FisherSettings:
    (settings,) = found.values()
    return settings


def carried(settings: FisherSettings, model: nn.Module, **changes: Any) -> FisherSettings:
    """What the one layer of a model gets from one with 65 inputs."""
    return only(transfer(source({"0": settings}, **changes), nn.Sequential(model), batch_size=100))


@pytest.mark.parametrize(
    ("width", "rank", "block"),
    [(64, 8, 13), (259, 32, 52), (1, 1, 1), (16, 2, 3)],  # and the bias; 13 is a fifth of 65
)
def test_ranks_and_blocks_keep_their_share_of_the_inputs(width: int, rank: int, block: int) -> None:
    assert carried(LOW_RANK, nn.Linear(width, 3)) == dataclasses.replace(LOW_RANK, rank=rank)
    blocks = FisherSettings(granularity="block:13", root_scale="unit")
    assert carried(blocks, nn.Linear(width, 3)) == dataclasses.replace(blocks, granularity=f"block:{block}")


def test_intervals_keep_their_length_in_examples() -> None:
    for batch_size, fisher, statistics in [(100, 50, 25), (400, 12, 6), (25, 200, 100), (100_000, 1, 1)]:
        found = only(transfer(source({"0": LOW_RANK}), mlp(64, 3), batch_size=batch_size))
        assert (found.fisher_interval, found.statistics_interval) == (fisher, statistics)
        assert found.relative_damping == LOW_RANK.relative_damping


def test_the_learning_rate_follows_the_batch_and_weight_decay_the_length() -> None:
    record = source({"0": LOW_RANK}, optimizer={"base": "adamw", "lr": 0.02, "weight_decay": 0.1})
    assert transfer(record, mlp(64, 3), batch_size=400).optimizer == pytest.approx(
        {"base": "adamw", "lr": 0.04, "weight_decay": 0.1}
    )
    longer = transfer(record, mlp(64, 3), batch_size=400, steps=5000, source_steps=1000).optimizer
    assert longer["lr"] * longer["weight_decay"] * 5000 == pytest.approx(0.02 * 0.1 * 1000)
    on_sgd = dataclasses.replace(record, optimizer={"base": "sgd", "lr": 0.02})
    assert transfer(on_sgd, mlp(64, 3), batch_size=400, steps=9, source_steps=3).optimizer["lr"] == pytest.approx(0.08)


def test_the_length_of_the_short_trainings_counts_where_they_tried_weight_decays() -> None:
    points = [RatePoint(lr=0.01, weight_decay=decay, steps=300, loss=1.0, step_seconds=1e-3) for decay in (0.1, 0.01)]
    optimizer = {"base": "adamw", "lr": 0.02, "weight_decay": 0.1}
    several = source({"0": LOW_RANK}, optimizer=optimizer, rates=tuple(points))
    one = dataclasses.replace(several, rates=(points[0],))
    decays = [
        transfer(each, mlp(64, 3), batch_size=100, steps=600).optimizer["weight_decay"] for each in (several, one)
    ]
    assert decays == pytest.approx([0.05, 0.1])


def numbered(*names: str) -> dict[str, FisherSettings | None]:
    """Settings that tell where they come from."""
    return {name: dataclasses.replace(LOW_RANK, relative_damping=i + 1.0) for i, name in enumerate(names)}


class Deep(nn.Module):
    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"a": nn.Linear(64, 64), "b": nn.Linear(64, 64)}) for _ in range(blocks)
        )
        self.head = nn.Linear(64, 3)
        self.new = nn.Linear(64, 3)


def test_layers_are_found_by_name_then_by_name_without_numbers_then_by_what_is_common() -> None:
    layers = numbered("blocks.0.a", "blocks.0.b", "blocks.1.a", "blocks.1.b")
    layers |= {"head": None, "other": layers["blocks.0.b"]}
    found = transfer(source(layers), Deep(3), batch_size=100)
    assert {name: settings.relative_damping for name, settings in found.items()} == {
        "blocks.0.a": 1.0,
        "blocks.0.b": 2.0,
        "blocks.1.a": 3.0,
        "blocks.1.b": 4.0,
        "blocks.2.a": 3.0,
        "blocks.2.b": 4.0,
        "new": 2.0,
    }
    reasons = {layer.layer: layer.reason for layer in found.record.layers}
    assert reasons["head"] == "as head of digits_mlp: none"
    assert reasons["blocks.2.a"] == "as blocks.1.a, the last of such names, of digits_mlp: input rank 8"
    assert reasons["new"] == "as most layers of digits_mlp: input rank 8"


def test_a_layer_of_another_class_is_another_layer() -> None:
    layers = numbered("0", "1") | {"2": numbered("x", "y")["y"]}
    record = source(layers)
    probes = tuple(dataclasses.replace(each, module="Conv2d") if each.layer == "0" else each for each in record.probes)
    found = transfer(dataclasses.replace(record, probes=probes), mlp(64, 64, 64, 3), batch_size=100)
    assert [settings.relative_damping for settings in found.values()] == [2.0, 2.0, 2.0]


KRON = FisherSettings(granularity="kron", root="eigh", root_scale="unit")
CHANNEL = FisherSettings(granularity="block:channel", root="eigh", root_scale="unit")
POSITION = dataclasses.replace(CHANNEL, granularity="block:position")
DIAGONAL = FisherSettings(granularity="diagonal", root_scale="unit")


@pytest.mark.parametrize(
    ("settings", "model", "expected"),
    [
        (LOW_RANK, nn.Linear(1, 3, bias=False), "diagonal"),
        (LOW_RANK, nn.Embedding(10, 3), "diagonal"),
        (KRON, nn.Embedding(10, 3), "diagonal"),
        (KRON, nn.Linear(4, 3), "kron"),
        (CHANNEL, nn.Conv2d(2, 3, 3), "block:channel"),
        (CHANNEL, nn.Linear(4, 3), "diagonal"),
        (POSITION, nn.Linear(4, 3), "input"),
        (DIAGONAL, nn.Linear(4, 3), "diagonal"),
    ],
)
def test_what_a_layer_cannot_have_becomes_the_nearest_that_it_can(
    settings: FisherSettings, model: nn.Module, expected: str
) -> None:
    found = carried(settings, model)
    assert (found.granularity, found.root_scale) == (expected, "unit")
    assert found.rank is None
    SNGD(nn.Sequential(model), {"0": found})


@given(
    st.lists(st.integers(1, 300), min_size=2, max_size=4),
    st.sampled_from([LOW_RANK, FisherSettings(granularity="block:9"), KRON, CHANNEL, DIAGONAL]),
    st.integers(1, 300),
    st.integers(1, 10_000),
)
def test_whatever_comes_out_can_be_trained_with(
    widths: list[int], settings: FisherSettings, inputs: int, batch_size: int
) -> None:
    model = mlp(*widths)
    found = transfer(source({"0": settings}, inputs), model, batch_size=batch_size)
    assert len(found) == len(widths) - 1
    for name, each in found.items():
        assert each.rank is None or each.rank < model.get_submodule(name).in_features + 1  # type: ignore[operator]
        assert min(each.fisher_interval, each.statistics_interval) >= 1
    assert all(layer.bytes > 0 for layer in found.record.layers)


def test_it_is_kept_in_a_file_like_any_other(tmp_path: Any) -> None:
    found = transfer(source({"0": LOW_RANK, "2": None}), mlp(64, 8, 3), batch_size=100)
    save(found.record, tmp_path / "auto.yaml")
    read = Selection(load(tmp_path / "auto.yaml"))
    assert (dict(read), read.optimizer) == (dict(found), found.optimizer)
    assert math.isnan(read.record.step.predicted)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: must be > 0$"),
        ({"steps": 0}, "steps=0: must be > 0, or None"),
        ({"source_steps": -1}, "source_steps=-1: must be > 0, or None"),
        (
            {"record": source({"0": None, "9": LOW_RANK})},
            "digits_mlp: carried over to Sequential, no layer gets a local",
        ),
        ({"record": source({"0": None})}, "digits_mlp: has no local Fisher layer that could be carried over"),
    ],
)
def test_bad_input_is_named(changes: dict[str, Any], message: str) -> None:
    arguments = {"batch_size": 100, **changes}
    with pytest.raises(ConfigurationError, match=message):
        transfer(arguments.pop("record", source({"0": LOW_RANK})), mlp(64, 3), **arguments)
    with pytest.raises(ReconstructionError, match="has no layer"):
        transfer(source({"0": LOW_RANK}), nn.ReLU(), batch_size=1)


def digits() -> tuple[list[tuple[Tensor, Tensor]], tuple[Tensor, Tensor]]:
    """Batches to train on, and examples to judge by."""
    data = load_digits()
    order = torch.randperm(len(data.data), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(data.data, dtype=torch.float32)[order], torch.tensor(data.target)[order]
    return list(zip(x[:1280].split(64), y[:1280].split(64), strict=True)), (x[1280:], y[1280:])


def network(width: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))


def trained(seed: int, settings: Any, **arguments: Any) -> float:
    """Held-out loss of a wide network after ten epochs."""
    batches, (x, y) = digits()
    model, loss_fn, epochs = network(128, seed), nn.CrossEntropyLoss(), 10
    optimizer = SNGD(model, settings, **arguments)
    schedule = LrSchedule(optimizer, "warmup_cosine")
    for step, (inputs, targets) in enumerate(batches * epochs):
        schedule.at(step / (epochs * len(batches)))
        optimizer.zero_grad()
        loss_fn(model(inputs), targets).backward()
        optimizer.step()
    with torch.no_grad():
        return float(loss_fn(model(x), y))


@pytest.mark.slow
def test_settings_of_a_narrow_network_train_one_four_times_as_wide_as_well_as_the_default() -> None:
    narrow = select_settings(network(32, 0), nn.CrossEntropyLoss(), digits()[0], seconds=15, steps=200)
    found = transfer(narrow.record, network(128, 0), batch_size=64, steps=200, source_steps=200)
    losses = [(trained(seed, found, **found.optimizer), trained(seed, None)) for seed in range(1, 4)]
    assert sum(own for own, _ in losses) <= sum(default for _, default in losses)
