"""Ray: its resources are checked against the study's, its token is nobody else's."""

import stat
from pathlib import Path

import pytest

from sngd_tune.cluster import _protect_token, check_resources, ray_session, trial_slots
from sngd_tune.errors import ConfigurationError
from sngd_tune.records.study import ResourceConfig


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_a_token_is_made_for_the_user_alone(home: Path) -> None:
    _protect_token()
    token = home / ".ray" / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert len(token.read_text()) == 64
    first = token.read_text()
    token.chmod(0o644)  # as Ray itself writes it
    _protect_token()
    assert (token.read_text(), stat.S_IMODE(token.stat().st_mode)) == (first, 0o600)


@pytest.mark.parametrize("name", ["RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_the_users_own_authentication_is_left_alone(home: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "own")
    _protect_token()
    assert list(home.iterdir()) == []


@pytest.mark.usefixtures("ray_session")
def test_a_ray_that_is_connected_is_used_and_left() -> None:
    import ray

    before = ray.get_runtime_context().get_job_id()
    with ray_session():
        assert ray.get_runtime_context().get_job_id() == before
    assert ray.is_initialized()


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(("cpus", "slots"), [(0.25, 8), (0.5, 4), (0.7, 2), (1.0, 2), (1.5, 1), (2.0, 1)])
def test_slots_are_whole_trials(cpus: float, slots: int) -> None:
    resources = ResourceConfig(cpus=cpus)
    check_resources(resources)
    assert trial_slots(resources) == slots


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("resources", "message"),
    [
        (ResourceConfig(cpus=3), r"search\.resources\.cpus=3: the cluster has 2 CPUs; lower it"),
        (ResourceConfig(gpus=0.5), r"search\.resources\.gpus=0\.5: the cluster has 0 GPUs"),
    ],
)
def test_what_no_node_can_run_is_refused(resources: ResourceConfig, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_resources(resources)
