"""One suite for every workload: the registered ones, and a user's own."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from sngd_tune.workloads.likelihood import check_likelihood
from sngd_tune.workloads.registry import WORKLOADS, find_workload, load_data
from sngd_tune.workloads.workload import Splits, Workload

#: Examples to train, validate and test; everything in `WORKLOADS` must be here.
SIZES = {
    "cifar10_resnet": (45_000, 5_000, 10_000),
    "cifar10_resnet_narrow": (45_000, 5_000, 10_000),
    "digits_mlp": (1197, 300, 300),
    "fashion_cnn": (50_000, 10_000, 10_000),
    "housing_mlp": (16_512, 2064, 2064),
    "mnist_mlp": (50_000, 10_000, 10_000),
    "mnist_autoencoder": (50_000, 10_000, 10_000),
    "ptb_lstm": (26_559, 2107, 2355),
    "shakespeare_transformer": (15_685, 871, 871),
    "tests.examples.counting:Counting": (250, 75, 75),
    "tests.examples.moons:Moons": (200, 100, 100),
}
EMBEDDED = {"digits_mlp"}  # the other registered ones read the data directory
SLOW = {"cifar10_resnet", "cifar10_resnet_narrow"}  # 60,000 JPEG files to decode
SHARED = {"ptb_lstm": 1}  # a standing notice of the newspaper's
STEPS_ON = {"cifar10_resnet": 8, "ptb_lstm": 16, "shakespeare_transformer": 16}  # examples, where 256 take too long


def marks(name: str) -> list[pytest.MarkDecorator]:
    needs_data = name in WORKLOADS and name not in EMBEDDED
    return [mark for mark, holds in ((pytest.mark.data, needs_data), (pytest.mark.slow, name in SLOW)) if holds]


PARAMETERS = [pytest.param(name, marks=marks(name)) for name in SIZES]
_loaded: dict[str, Splits] = {}


def data_dir() -> Path | None:
    """Where the real data sets are; without it `tests/conftest.py` skips what is marked `data`."""
    folder = os.environ.get("SNGD_TUNE_DATA")
    return Path(folder) if folder else None


@pytest.fixture(params=PARAMETERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def workload(name: str) -> Workload:
    return find_workload(name)


@pytest.fixture
def splits(name: str) -> Splits:
    if name not in _loaded:
        _loaded[name] = load_data(name, data_dir())
    return _loaded[name]


def batch(splits: Splits, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(splits.train.inputs[:size]), torch.tensor(splits.train.targets[:size])


def test_a_registered_workload_has_a_target_and_says_where_it_comes_from(name: str, workload: Workload) -> None:
    if name not in WORKLOADS:
        return
    assert workload.target is not None
    assert len(workload.target.provenance) > 40
    if workload.target.metric == "validation_accuracy":
        assert 0 < workload.target.value < 1
        assert type(workload).correct is not Workload.correct


def test_every_registered_workload_is_in_the_suite() -> None:
    assert set(WORKLOADS) <= set(SIZES)


def test_splits_have_their_sizes_and_types(name: str, splits: Splits) -> None:
    assert (len(splits.train), len(splits.validation), len(splits.test)) == SIZES[name]
    for split in (splits.train, splits.validation, splits.test):
        assert split.inputs.dtype in (np.float32, np.int64, np.uint8)  # numbers, tokens, pixels that the model scales
        assert split.targets.dtype in (np.int64, np.float32)
        assert np.isfinite(split.inputs).all()
        assert split.inputs.flags.c_contiguous


def test_no_example_is_in_two_splits(name: str, splits: Splits) -> None:
    def rows(inputs: np.ndarray) -> set[bytes]:
        return {row.tobytes() for row in inputs}

    train, validation, test = (rows(split.inputs) for split in (splits.train, splits.validation, splits.test))
    allowed = SHARED.get(name, 0)
    assert len(train & validation) <= allowed
    assert len(train & test) <= allowed
    assert not validation & test


def test_splits_cover_the_same_classes(splits: Splits) -> None:
    if splits.train.targets.dtype != np.int64 or splits.train.targets.ndim > 1:
        return  # a reconstruction has no classes, a text no need of all tokens
    classes = set(range(int(splits.train.targets.max()) + 1))
    assert all(set(split.targets.tolist()) == classes for split in (splits.train, splits.validation, splits.test))


def test_texts_go_on_by_one_token_and_use_those_of_training(splits: Splits) -> None:
    if splits.train.inputs.dtype != np.int64:
        return  # no text
    known = set(np.unique(splits.train.inputs)) | set(np.unique(splits.train.targets))
    assert known == set(range(len(known)))
    for split in (splits.train, splits.validation, splits.test):
        np.testing.assert_array_equal(split.inputs[:, 1:], split.targets[:, :-1])
        np.testing.assert_array_equal(split.inputs[1:, 0], split.targets[:-1, -1])
        assert set(np.unique(split.targets)) <= known


@pytest.mark.slow
def test_data_is_the_same_each_time(name: str, splits: Splits) -> None:
    again = load_data(name, data_dir())
    for one, other in zip(vars(splits).values(), vars(again).values(), strict=True):
        np.testing.assert_array_equal(one.inputs, other.inputs)
        np.testing.assert_array_equal(one.targets, other.targets)


def test_models_of_one_seed_are_equal_and_of_another_are_not(workload: Workload) -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([parameter.detach().flatten() for parameter in workload.model().parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_loss_is_the_mean_over_the_batch(workload: Workload, splits: Splits) -> None:
    torch.manual_seed(0)
    model, (inputs, targets) = workload.model().eval(), batch(splits)
    loss = workload.loss(model(inputs), targets)
    assert loss.shape == ()
    assert loss.isfinite()
    parts = [workload.loss(model(part), goal) for part, goal in zip(inputs.split(16), targets.split(16), strict=True)]
    torch.testing.assert_close(loss, torch.stack(parts).mean())


def test_accuracy_counts_what_is_right(workload: Workload, splits: Splits) -> None:
    torch.manual_seed(0)
    model, (inputs, targets) = workload.model().eval(), batch(splits)
    right = workload.correct(model(inputs), targets)
    if right is None:
        assert type(workload).correct is Workload.correct
        return
    outputs = model(inputs)
    hits = [output.argmax(-1) == target for output, target in zip(outputs, targets, strict=True)]
    expected = sum(float(hit.float().mean()) for hit in hits)  # an example of several positions: by their share
    assert float(right) == pytest.approx(expected)
    perfect = torch.nn.functional.one_hot(targets, outputs.shape[-1]).float()
    assert workload.correct(perfect, targets) == len(targets)


def test_the_likelihood_is_that_of_the_loss(workload: Workload, splits: Splits) -> None:
    if workload.likelihood is not None:
        check_likelihood(workload, splits.train)


@pytest.mark.slow
def test_a_few_steps_lower_the_loss(name: str, workload: Workload, splits: Splits) -> None:
    torch.manual_seed(0)
    model, (inputs, targets) = workload.model(), batch(splits, STEPS_ON.get(name, 256))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = workload.loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
