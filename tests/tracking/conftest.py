"""An MLflow store that is ready: making one takes 2 s of migrations, a copy of it a millisecond."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def migrated_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sngd_tune.tracking.client import connect

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    connect(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def runs_dir(tmp_path: Path, migrated_store: Path) -> Path:
    """A runs directory with an MLflow store in its usual place; `samples.new_ledger(tmp_path)` puts its study there."""
    runs = tmp_path / "runs"
    runs.mkdir()
    shutil.copy(migrated_store, runs / "mlflow.db")
    return runs
