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


def tuned(**factors: list[float]) -> dict[str, object]:
    """Along the width, which `config` has."""
    return {"tune": {name: {"factors": found, "axes": ["width"]} for name, found in factors.items()}}


def test_candidates_stand_beside_the_base_and_each_point_of_the_axis_along_which_a_parameter_is_tuned() -> None:
    axes = {"batch_size": [25, 50, 200], "width": [32]}
    lr = {"factors": [2, 0.5, 1], "axes": ["batch_size"]}
    found = points(axes=axes, tune={"lr": lr}, follow={"lr": {"batch_size": 0.5}})
    assert [name for name in found if name.endswith(".sgd")] == [
        *("base.sgd", "lr=0.05.sgd", "lr=0.2.sgd"),
        *("batch_size=25.sgd", "batch_size=25,lr=0.03536.sgd", "batch_size=25,lr=0.1414.sgd"),
        *("batch_size=200.sgd", "batch_size=200,lr=0.1.sgd", "batch_size=200,lr=0.4.sgd"),
        "width=32.sgd",  # nothing is tuned along the width
    ]
    far = found["batch_size=200,lr=0.4.sgd"]
    assert (far.tuned, far.moved, far.axes) == ({"lr": 2.0}, ("batch_size",), {"batch_size": 200, "width": 64})
    assert far.parameters["lr"] == pytest.approx(0.4)  # after `follow`
    trial = TrialConfig.from_flat(far.parameters, workload="digits_mlp", epochs=1, seed=0)
    assert trial.optimizer.lr == far.parameters["lr"]


def test_several_tuned_parameters_are_combined_and_a_method_is_tuned_only_in_what_it_has() -> None:
    found = points(axes={"width": [64]}, **tuned(lr=[1, 2], relative_damping=[0.1, 1]))
    assert {name: point.tuned for name, point in found.items() if point.tuned} == {
        "lr=0.2.sngd": {"lr": 2.0},
        "relative_damping=0.01.sngd": {"relative_damping": 0.1},
        "lr=0.2,relative_damping=0.01.sngd": {"lr": 2.0, "relative_damping": 0.1},
        "lr=0.2.sgd": {"lr": 2.0},
    }


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
        (tuned(lr_=[1, 2]), "tune.lr_: must be a parameter that is a real number; did you mean 'lr'"),
        (tuned(batch_size=[1, 2]), "tune.batch_size: must be a parameter that is a real number"),
        (tuned(lr=[0.5, 2]), "1 must be among them: it is the file's own value; add it"),
        (tuned(lr=[0, 1]), "greater than 0"),
        (tuned(lr=[1, 1.001]), "1 % above the one before"),
        ({"tune": {"lr": {"factors": [1, 2], "axes": ["widht"]}}}, "widht: not among the axes; did you mean 'width'"),
        ({"tune": {"lr": {"factors": [1, 2], "axes": ["width"]}}, "axes": {"lr": [0.1]}}, "tune.lr: is an axis"),
        ({**tuned(lr=[1, 2]), "axes": {"width": [1], "depth": [1]}, "grid": True}, "tune: is for one axis at a time"),
        (tuned(weight_decay=[1, 2]), "point base.sngd: weight_decay=0.0: no factor changes it"),
        ({**tuned(relative_damping=[1, 2]), "methods": {"sgd": {}}}, "tune.relative_damping: has no meaning for any"),
        (tuned(lr=[1, 2], momentum=[1, 20]), "momentum="),
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
    lr = {"factors": [1, 2], "axes": ["workers"]}
    study = config(axes={"width": [32, 64], "batch_size": [10, 50], "workers": [1, 2]}, tune={"lr": lr})
    planned = list(points(axes=study.axes, tune={"lr": lr}).values())
    names = {point.name: scaled_name(study.workload, point.sizes) for point in planned}
    variants = {variant.name: variant for variant in plan_variants(study, planned, names)}
    assert list(variants) == ["base", "width-32", "workers-2"]
    assert variants["base"].points == (
        *("base.sngd", "lr=0.2.sngd", "base.sgd", "lr=0.2.sgd", "batch_size=10.sngd", "batch_size=10.sgd"),
    )
    assert variants["width-32"].study.workload == "digits_mlp?width=32"
    assert variants["workers-2"].study.search.resources.workers == 2


def test_a_manifest_comes_back_as_it_was(tmp_path: Path) -> None:
    manifest = check_scaling(config(axes={"width": [32, 64], "training_examples": [100]}, **tuned(lr=[0.5, 1])))
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
