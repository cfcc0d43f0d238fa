"""The published spaces, one a method: each makes a valid study with every workload."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from sngd_tune.records.study import StudyConfig
from sngd_tune.records.trial import TrialConfig
from sngd_tune.search.document import read_document
from sngd_tune.search.load import parse_study
from sngd_tune.search.space import SearchSpace
from sngd_tune.workloads.registry import WORKLOADS
from tests.search.studies import SEARCH_SPACES

FILES = sorted((SEARCH_SPACES / "methods").glob("*.yaml"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def read(path: Path) -> dict[str, Any]:
    return dict(read_document(path.read_text(), path.name, ()).data)


def study(path: Path, workload: str = "digits_mlp", **fixed: Any) -> StudyConfig:
    method = read(path)
    name = method.pop("method")
    method["fixed"] = {**method["fixed"], **fixed}
    composed = {"schema": 1, "name": f"{workload}-{name}", "workload": workload, "epochs": 2, **method}
    return parse_study(yaml.safe_dump(composed), path.name)


def test_there_is_one_for_each_method() -> None:
    expected = ["adamw", "exact_ngd", "kfac", "muon", "nadamw", "sgd", "sngd", "soap"]
    assert [path.stem for path in FILES] == expected


def test_it_has_these_keys_and_its_own_name(path: Path) -> None:
    values = read(path)
    assert list(values) == ["schema", "method", "fixed", "space", "start"]
    assert values["method"] == path.stem
    assert "batch_size" not in {*values["fixed"], *values["space"]}


@pytest.mark.parametrize("workload", WORKLOADS)
def test_it_is_a_valid_study_with_every_workload(path: Path, workload: str) -> None:
    assert study(path, workload, batch_size=50).workload == workload


def test_it_is_searched_with_equal_care(path: Path) -> None:
    config = study(path)
    for entry in config.space["lr"]:
        assert entry.log
        assert entry.low is not None
        assert entry.high is not None
        assert entry.high / entry.low == pytest.approx(1e3)
    assert config.space["lr_schedule"][0].choices == ("constant", "cosine", "warmup_cosine")
    assert config.space["weight_decay"][0].log
    assert 2 <= len(config.start) <= 4


def test_a_starting_point_leaves_nothing_to_chance(path: Path) -> None:
    """Every parameter that is searched beside its values has one in it."""
    config = study(path)
    space = SearchSpace(config)
    for point in space.start_points():
        whole = {**config.fixed, **point}
        assert set(space.labelled(whole)) == set(space.distributions(whole))


def test_proposals_are_trials(path: Path) -> None:
    config = study(path)
    for parameters in SearchSpace(config).samples(20, seed=0):
        trial = TrialConfig.from_flat(parameters, workload=config.workload, epochs=2, seed=0)
        assert trial.parameters == parameters
