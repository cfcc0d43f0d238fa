"""Scaling files, their points, and the sizes of workloads."""

import os
from pathlib import Path

import pytest

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.trial import TrialConfig
from sngd_tune.scaling_check import check_scaling
from sngd_tune.search.scaling import load_scaling, plan_points, plan_variants
from sngd_tune.sizing.room import predicted_bytes
from sngd_tune.tracking.scaling import ScalingManifest
from sngd_tune.workloads.registry import find_workload, scaled_name
from tests.scaling.scaled import config, points
from tests.studies import MOONS, ROOT

FILES = sorted((ROOT / "search_spaces" / "scaling").glob("*.yaml"))


@pytest.mark.parametrize("name", ["digits_mlp", "mnist_mlp", "ptb_lstm", "shakespeare_transformer"])
def test_a_workload_of_its_own_sizes_is_the_one_without(name: str) -> None:
    plain = find_workload(name)
    same = find_workload(scaled_name(name, dict(plain.axes)))
    wide = find_workload(scaled_name(name, {"width": 2 * plain.axes["width"], "depth": 1}))
    shapes = [[tuple(p.shape) for p in workload.model().parameters()] for workload in (plain, same, wide)]
    assert shapes[0] == shapes[1] != shapes[2]
    assert find_workload(name).axes == plain.axes


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digits_mlp?widht=3", "widht=3: not an axis of DigitsMlp; did you mean 'width'"),
        ("digits_mlp?width=0", "width=0: must be ≥ 1"),
        ("digits_mlp?width=wide", "sizes are whole numbers"),
        ("digits_mlp?width", "sizes are whole numbers"),
        ("fashion_cnn?width=3", "not an axis of FashionCnn; it has no axes"),
        (f"{MOONS}?width=3", "not an axis of Moons"),
    ],
)
def test_sizes_that_a_workload_has_not_are_refused(name: str, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected.replace("?", r"\?")):
        find_workload(name)


def test_one_axis_at_a_time_leaves_the_base_point() -> None:
    found = points(axes={"width": [32, 64], "fisher_interval": [10, 50], "workers": [1, 2]})
    assert list(found) == [
        *("base.sngd", "base.sgd", "width=32.sngd", "width=32.sgd"),
        *("fisher_interval=10.sngd", "workers=2.sngd", "workers=2.sgd"),  # sgd has no interval
    ]
    assert found["width=32.sngd"].sizes == {"width": 32}
    assert found["fisher_interval=10.sngd"].parameters["fisher_interval"] == 10
    assert found["base.sngd"].axes == {"width": 64, "fisher_interval": 50, "workers": 1}
    assert found["workers=2.sgd"].workers == 2


def test_parameters_that_follow_go_with_the_power_of_the_axis_and_weak_workers_grow_the_batch() -> None:
    axes = {"batch_size": [25, 50, 200], "weak_workers": [1, 2]}
    found = points(axes=axes, follow={"lr": {"batch_size": 0.5, "weak_workers": 1}})
    assert found["batch_size=200.sgd"].parameters["lr"] == pytest.approx(0.2)
    assert found["base.sgd"].parameters["lr"] == 0.1
    weak = found["weak_workers=2.sgd"]
    assert (weak.workers, weak.parameters["batch_size"], weak.parameters["lr"]) == (2, 100, pytest.approx(0.2))


def test_a_moved_granularity_drops_what_it_leaves_without_a_meaning() -> None:
    methods = {"sngd": {"optimizer": "sngd", "rank": 8}}
    found = points(methods=methods, axes={"granularity": ["input", "kron"]})
    assert found["base.sngd"].parameters["rank"] == 8
    assert "rank" not in found["granularity=kron.sngd"].parameters


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"axes": {"widht": [1]}}, "widht: neither a size of digits_mlp nor an axis; did you mean 'width'"),
        ({"axes": {"batch_size": [2000]}}, "batch_size=2000: is more than the 1000 training examples"),
        ({"axes": {"training_examples": [5000]}}, "training_examples=5000: digits_mlp has 1000; lower it"),
        ({"axes": {"workers": [3]}}, "batch_size=50: must be a multiple of workers=3"),
        ({"axes": {"fisher_interval": [0]}}, "fisher_interval=0: must be ≥ 1"),
        ({"methods": {"x": {"optimizer": "sgd", "rank": 3}}}, "point base.x: rank=3: has a meaning only where"),
        ({"sizes": {"batch_size": 3}}, "batch_size: neither a size of digits_mlp"),
        ({"grid": True}, "combines two axes, and there are 1"),
        ({"axes": {"width": [3, 3]}}, "has a value twice"),
        ({"axes": {"workers": [0.5]}}, "must be whole numbers ≥ 1"),
        ({"follow": {"lr": {"depth": 1.0}}}, "follow.lr.depth: not among the axes"),
        ({"follow": {"granularity": {"width": 1.0}}}, "must be a parameter that is a number"),
        ({"resources": {"gpus": "auto"}}, "name gpus and memory_gb in numbers"),
        ({"epochs": 1_000_000}, "name the length of a training"),
    ],
)
def test_points_that_cannot_be_trained_are_refused(changes: dict[str, object], expected: str) -> None:
    with (
        pytest.raises(ValueError, match=expected)
        if _by_schema(changes)
        else pytest.raises(ConfigurationError, match=expected)
    ):
        points(**changes)


def _by_schema(changes: dict[str, object]) -> bool:
    try:
        config(**changes)
    except ValueError:
        return True
    return False


def test_points_of_one_model_and_number_of_workers_share_a_variant() -> None:
    study = config(axes={"width": [32, 64], "batch_size": [10, 50], "workers": [1, 2]})
    planned = list(points(axes=study.axes).values())
    names = {point.name: scaled_name(study.workload, point.sizes) for point in planned}
    variants = {variant.name: variant for variant in plan_variants(study, planned, names)}
    assert list(variants) == ["base", "width-32", "workers-2"]
    assert variants["base"].points == ("base.sngd", "base.sgd", "batch_size=10.sngd", "batch_size=10.sgd")
    assert variants["width-32"].study.workload == "digits_mlp?width=32"
    assert variants["workers-2"].study.search.resources.workers == 2


def test_a_manifest_comes_back_as_it_was(tmp_path: Path) -> None:
    manifest = check_scaling(config(axes={"width": [32, 64], "training_examples": [100]}))
    manifest.write(tmp_path)
    assert ScalingManifest.read(tmp_path) == manifest
    with pytest.raises(ConfigurationError, match="a scaling study is there already; continue it with"):
        ScalingManifest.check_absent(tmp_path)


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_the_committed_files_are_valid(file: Path) -> None:
    study = load_scaling(file)
    workload = find_workload(study.workload)
    assert plan_points(study, workload.axes, training_examples=1197)
    assert set(study.sizes) <= set(workload.axes)


@pytest.mark.data
def test_a_model_that_cannot_have_a_size_is_refused_before_anything_starts() -> None:
    study = config(workload="shakespeare_transformer", data_dir=os.environ["SNGD_TUNE_DATA"], axes={"width": [30]})
    with pytest.raises(ConfigurationError, match=r"width=30'?: making its model failed .*divisible by num_heads"):
        check_scaling(study)


def test_bytes_are_predicted_without_allocating_them() -> None:
    trial = TrialConfig.from_flat({"granularity": "input", "root": "eigh"}, workload="mnist_mlp", epochs=1, seed=0)
    small, large = (predicted_bytes(trial, find_workload(f"mnist_mlp?width={width}")) for width in (100, 100_000))
    assert small < 50e6
    assert large > 5e11
