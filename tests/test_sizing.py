"""Sizes: the largest trial is found by the cost model, and what it takes is what trials then take."""

from pathlib import Path
from typing import Any

import pytest

from sngd_tune.cluster.resources import check_resources
from sngd_tune.core.memory import predicted_memory
from sngd_tune.errors import ConfigurationError
from sngd_tune.launch import load_splits
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.trial import TrialConfig
from sngd_tune.search.load import load_study
from sngd_tune.search.space import SearchSpace
from sngd_tune.sizing.largest import largest_trials
from sngd_tune.sizing.resources import MARGIN, resolve_resources, settle_resources, share_of_gpu
from sngd_tune.workloads.registry import find_workload
from tests.studies import ROOT, run, study

GB = 10**9
DIGITS = ROOT / "search_spaces" / "digits_mlp.yaml"


def sized(**resources: Any) -> StudyConfig:
    return study(search={"resources": resources})


@pytest.mark.parametrize(
    ("needed", "capacity", "share"),
    [(10, 80, 0.1666), (33, 80, 0.5), (34, 80, 1.0), (60, 80, 1.0), (0.5, 80, 0.125)],
)
def test_a_gpu_is_shared_by_as_many_trials_as_fit_with_a_margin(needed: float, capacity: int, share: float) -> None:
    found = share_of_gpu(int(needed * GB), capacity * GB)
    assert found == share
    assert found * capacity >= needed * MARGIN * 0.999 or found == 1.0


def test_a_trial_that_fits_no_gpu_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"takes 70\.0 GB \(1\.2 times that.*smallest GPU has 80\.0 GB"):
        share_of_gpu(70 * GB, 80 * GB)


def test_the_largest_trial_has_the_dearest_matrices_the_largest_batch_and_the_largest_rank() -> None:
    config = study(
        fixed={},
        space={
            "granularity": {"choices": ["diagonal", "input", "unit"]},
            "batch_size": {"choices": [16, 128, 64]},
            "rank": {"low": 2, "high": 12, "when": {"granularity": "input"}},
        },
    )
    (largest,) = largest_trials(config, find_workload(config.workload))
    assert (largest.parameters["granularity"], largest.batch_size) == ("unit", 128)
    narrow = study(fixed={"granularity": "input"}, space={"rank": {"low": 2, "high": 64}})
    assert [trial.parameters["rank"] for trial in largest_trials(narrow, find_workload(narrow.workload))] == [64]


def test_each_method_has_its_largest_trial_and_each_worker_its_part_of_a_batch() -> None:
    space = {"optimizer": {"choices": ["sngd", "adamw"]}, "batch_size": {"choices": [30, 102]}}
    config = study(fixed={}, space=space, search={"resources": {"workers": 2}})
    found = {
        trial.optimizer.method: trial.batch_size for trial in largest_trials(config, find_workload(config.workload))
    }
    assert found == {"sngd": 51, "adamw": 51}


def test_no_sampled_trial_is_predicted_larger_than_the_largest() -> None:
    config = load_study(DIGITS)
    workload = find_workload(config.workload)
    model = workload.model()

    def predicted(trial: TrialConfig) -> int:
        layers = predicted_memory(model, trial.fisher, form=trial.optimizer.base).values()
        return sum(layer.kept for layer in layers) + max(layer.peak for layer in layers)

    (largest,) = largest_trials(config, workload)
    drawn = [
        TrialConfig.from_flat(v, workload="digits_mlp", epochs=1, seed=0) for v in SearchSpace(config).samples(40, 1)
    ]
    assert predicted(largest) >= max(map(predicted, drawn))


def test_numbers_are_left_as_they_are() -> None:
    config = sized(cpus=2, gpus=0.5, memory_gb=3)
    said: list[str] = []
    assert resolve_resources(config, load_splits(config), said.append) == config.search.resources
    assert said == []


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_auto_becomes_numbers_and_without_a_gpu_the_cpu() -> None:
    config = sized(gpus="auto", memory_gb="auto")
    said: list[str] = []
    settled = settle_resources(config, load_splits(config), say=said.append).search.resources
    assert settled.gpus == 0
    assert isinstance(settled.memory_gb, float)
    assert 0.2 <= settled.memory_gb <= 2.0
    check_resources(settled)
    assert settled.model_copy(update={"gpus": "auto", "memory_gb": "auto"}) == config.search.resources
    assert len(said) == 2
    assert f"memory_gb={settled.memory_gb:g}" in said[1]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_what_is_reserved_is_what_the_largest_trial_takes_within_a_half(tmp_path: Path) -> None:
    """Of main memory: on a GPU nothing has been measured."""
    config = load_study(DIGITS, ["search.resources.memory_gb=auto"])
    reserved = resolve_resources(config, load_splits(config)).memory_gb
    (largest,) = largest_trials(config, find_workload(config.workload))
    alone = study(
        workload="digits_mlp",
        epochs=2,
        fixed={name: value for name, value in largest.parameters.items() if name != "lr"},
        space={"lr": {"low": 1e-3, "high": 2e-3}},
        search={"trials": 1},
    )
    _, ledger = run(alone, tmp_path / "run")
    taken = max(metrics.peak_memory_bytes for _, _, metrics in ledger.epoch_metrics()) / GB
    assert isinstance(reserved, float)
    assert taken <= reserved <= 1.5 * MARGIN * taken, (taken, reserved)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_a_trial_that_cannot_be_tried_is_refused_with_its_reason(tmp_path: Path) -> None:
    config = study(workload="tests.examples.faults:AlwaysRaises", search={"resources": {"memory_gb": "auto"}})
    with pytest.raises(ConfigurationError, match="could not be tried"):
        resolve_resources(config, load_splits(config))
