"""All checks, in the order in which they are shown."""

from collections.abc import Iterator
from pathlib import Path

from sngd_tune.doctor.check import Check
from sngd_tune.doctor.cluster import cluster_checks
from sngd_tune.doctor.machine import (
    data_check,
    mlflow_check,
    port_check,
    ray_check,
    runs_check,
    shared_memory_check,
    torch_check,
)
from sngd_tune.doctor.packages import package_checks, python_check
from sngd_tune.doctor.stores import optuna_check, storage_check

__all__ = ["run_checks"]


def run_checks(
    *,
    data_dir: Path | None,
    runs: Path,
    tracking_uri: str | None,
    port: int,
    start_ray: bool = False,
    address: str | None = None,
    storage: str | None = None,
    optuna_storage: str | None = None,
) -> Iterator[Check]:
    """All checks, one after another as they are done; only `start_ray` starts anything.

    Args:
        data_dir: folder of the data sets, or None where none was named.
        runs: folder of the run directories; it need not exist.
        tracking_uri: MLflow store or server; None: SQLite in `runs`.
        port: that `sngd-tune ui` would listen on.
        start_ray: whether to start a local Ray and stop it again (some seconds).
        address: of a Ray cluster, whose nodes are looked at as well.
        storage: where studies keep checkpoints and copies: a file is written there, read and deleted.
        optuna_storage: where Optuna keeps studies.
    """
    yield python_check()
    yield from package_checks()
    yield torch_check()
    yield data_check(data_dir)
    yield runs_check(runs)
    yield shared_memory_check(Path("/dev/shm"))
    yield mlflow_check(tracking_uri or f"sqlite:///{runs.absolute() / 'mlflow.db'}")
    if optuna_storage is not None:
        yield optuna_check(optuna_storage)
    yield port_check(port)
    if storage is not None:
        yield storage_check(storage)
    if start_ray:
        yield ray_check()
    if address is not None:
        yield from cluster_checks(address, storage)
