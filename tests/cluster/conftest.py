"""One head for all tests of a session that want a real one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.heads import Head, started
from tests.studies import ROOT

_SLOW = """

class Slow(Moons):
    def loss(self, outputs, targets):
        import time

        time.sleep(0.2 if outputs.requires_grad else 0.0)
        return super().loss(outputs, targets)
"""

_STUDY = {
    "schema": 1,
    "name": "mine",
    "workload": "my_moons:Slow",
    "epochs": 3,
    "fixed": {"batch_size": 100},
    "space": {"lr": {"low": 0.01, "high": 0.2, "log": True}},
    "search": {"trials": 4, "scheduler": {"name": "none"}},
    "confirm": {"seeds": 0},
    "mlflow": {"enabled": False},
}


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
    (folder / "my_moons.py").write_text((ROOT / "tests" / "examples" / "moons.py").read_text() + _SLOW)
    (folder / "mine.yaml").write_text(yaml.safe_dump(_STUDY))
    return folder
