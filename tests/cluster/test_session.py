"""Ray: its token is nobody else's; a cluster is joined by its address, or the message says what is in the way."""

import json
import os
import stat
from pathlib import Path

import pytest

from sngd_tune.cluster.session import _protect_token, check_address, ray_session
from sngd_tune.errors import ConfigurationError
from tests.cluster.heads import Head
from tests.commands import invoke


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


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://head:10001", r"a study is driven from a node of the cluster.* `sngd-tune submit FILE --address"),
        ("http://head:8265", r"from outside use `sngd-tune submit FILE"),
        ("head", r"must be HOST:PORT of the head, such as 10\.0\.0\.1:6379, or auto"),
        ("head:port", r"must be HOST:PORT of the head"),
        ("127.0.0.1:9", r"no Ray cluster answers \(.*refused\); check it with `ray status --address 127\.0\.0\.1:9`"),
        ("127.0.0.1:99999", r"no Ray cluster answers"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused_at_once(address: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_address(address)


@pytest.mark.parametrize("address", [None, "auto"])
def test_an_address_that_ray_finds_itself_is_left_to_it(address: str | None) -> None:
    check_address(address)


def test_a_working_directory_is_for_a_cluster(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(user)
    code, _, err = invoke("run", "mine.yaml", "--working-dir", ".")
    assert code == 2
    assert "--working-dir .: is what travels to a cluster (--address)" in err
    code, _, err = invoke("run", "mine.yaml", "--continue")
    assert code == 2
    assert "--continue: goes by the run directory; name it with --dir" in err


@pytest.mark.slow
class TestOnACluster:
    def test_the_users_module_is_on_the_nodes(self, head: Head, user: Path, tmp_path: Path) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (user / "mine.yaml").rename(elsewhere / "mine.yaml")
        (user / "runs").mkdir()
        (user / "runs" / "large.bin").write_bytes(b"x" * 1000)
        options = ("--address", head.address, "--working-dir", str(user), "--dir", "out", "--format", "json")
        done = head.call(elsewhere, "run", "mine.yaml", *options, "--set", "search.trials=2")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["outcomes"] == {"completed": 2}

    def test_a_folder_that_is_too_large_to_travel_is_refused(self, head: Head, user: Path) -> None:
        (user / "large.bin").write_bytes(os.urandom(1 << 20))
        options = ("--address", head.address, "--dir", "out")
        done = head.call(user, "run", "mine.yaml", *options, RAY_max_grpc_message_size=str(1 << 19))
        assert done.returncode == 2
        assert f"working directory {user}: cannot travel to the cluster" in done.stderr
        assert "--working-dir, or list what is not needed in its .gitignore" in done.stderr
        assert not (user / "out").exists()

    def test_who_has_no_token_is_told_how_to_get_in(self, head: Head, user: Path) -> None:
        done = head.call(user, "run", "mine.yaml", "--address", head.address, RAY_AUTH_TOKEN_PATH=str(user / "none"))
        assert done.returncode == 2
        assert "does not let us in" in done.stderr
        assert "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE (mode 0600)" in done.stderr

    def test_another_version_of_ray_is_named(self, head: Head, user: Path) -> None:
        with head.claiming("2.59.0"):
            done = head.call(user, "run", "mine.yaml", "--address", head.address)
        assert done.returncode == 2
        assert "Version mismatch: The cluster was started with: Ray: 2.59.0" in done.stderr
        assert "install the cluster's versions here, or use `sngd-tune submit`" in done.stderr
