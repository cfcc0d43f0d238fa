"""What several parts of the suite share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before torch is imported, here and in what the tests start. The problems are tiny, and its threads would wait for each
# other: on a busy machine of two cores the suite takes five times as long with two.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before any import of Ray, which reads them once. A cluster of the tests takes no token from the home directory.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `data` are skipped where the data sets are not."""
    folder = os.environ.get("SNGD_TUNE_DATA")
    if folder is None or not Path(folder).is_dir():
        skip = pytest.mark.skip(reason="SNGD_TUNE_DATA names no folder of data sets")
        for item in items:
            if item.get_closest_marker("data") is not None:
                item.add_marker(skip)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No variable of the developer's own, a working directory to spoil, and a cache of costs that is ours."""
    for name in ("DATA", "RUNS", "TRACKING_URI"):
        monkeypatch.delenv(f"SNGD_TUNE_{name}", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A local Ray of two CPUs for the whole session."""
    import ray

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()
