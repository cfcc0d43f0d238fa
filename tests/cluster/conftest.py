"""One head for all tests of a session that want a real one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.heads import Head, started
from tests.users import write_user_folder


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    pytest.importorskip("aiohttp_cors", reason="ray[default] is not installed (pip install 'sngd_tune[cluster]')")
    with started() as running:
        yield running


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """A user's folder: own workload, study file, nothing of the repository."""
    folder = tmp_path / "user"
    folder.mkdir()
    write_user_folder(folder, trials=4, confirm_seeds=0)
    return folder
