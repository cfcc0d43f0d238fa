"""What several parts of the suite share."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.postgres import Server, binaries, running
from tests.s3 import CREDENTIALS, S3Server, serving

# Before torch is imported, here and in what the tests start. The problems are tiny, and its threads would wait for each
# other: on a busy machine of two cores the suite takes five times as long with two.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Programs of the environment that the tests run in, whether it is activated or not.
os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
# Before any import of Ray, which reads them once. A cluster of the tests takes no token from the home directory.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
# A script that starts the suite in the background has it ignore Ctrl-C, and all that the tests start as well.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Nobody's: no test reaches a real store, and the workers of Ray have those of ours.
os.environ.update(CREDENTIALS)


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
    for name in ("DATA", "RUNS", "TRACKING_URI", "OPTUNA_STORAGE", "STORAGE"):
        monkeypatch.delenv(f"SNGD_TUNE_{name}", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL for the whole session; tests make databases of their own in it."""
    if binaries() is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    pytest.importorskip("psycopg", reason="psycopg is not installed (pip install 'sngd_tune[postgresql]')")
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """An S3 server for the whole session; each test has a prefix of its own in the bucket."""
    pytest.importorskip("moto", reason="moto is not installed (pip install 'sngd_tune[dev]')")
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A local Ray of two CPUs for the whole session."""
    import ray

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Wait until a condition holds, at most 20 s."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come to hold within 20 s"
            time.sleep(0.02)

    return wait
