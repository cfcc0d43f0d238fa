"""`sngd-tune doctor`: is this machine ready for a study? Each check says what it found and what would help."""

import importlib.metadata
import os
import platform
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sngd_tune.errors import SngdTuneError

__all__ = ["Check", "port_is_free", "run_checks"]

_GB = 1e9
#: Extras whose packages a study needs; the rest is checked by the tools that bring it.
_EXTRAS = ("", "tune", "mlflow")


@dataclass(frozen=True)
class Check:
    """One finding; `remedy` is empty where nothing is to do."""

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    remedy: str = ""


def run_checks(
    *, data_dir: Path | None, runs: Path, tracking_uri: str | None, port: int, start_ray: bool = False
) -> Iterator[Check]:
    """All checks, one after another as they are done; only `start_ray` starts anything.

    Args:
        data_dir: folder of the data sets, or None where none was named.
        runs: folder of the run directories; it need not exist.
        tracking_uri: MLflow store or server; None: SQLite in `runs`.
        port: that `sngd-tune ui` would listen on.
        start_ray: whether to start a local Ray and stop it again (some seconds).
    """
    yield _python()
    yield from _packages()
    yield _torch()
    yield _data(data_dir)
    yield _runs(runs)
    yield _shared_memory(Path("/dev/shm"))
    yield _mlflow(tracking_uri or f"sqlite:///{runs.absolute() / 'mlflow.db'}")
    yield _port(port)
    if start_ray:
        yield _ray()


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _python() -> Check:
    from packaging.specifiers import SpecifierSet

    wanted = importlib.metadata.metadata("sngd_tune")["Requires-Python"] or ""
    have = platform.python_version()
    fits = SpecifierSet(wanted).contains(have, prereleases=True)
    return Check(
        "python", "ok" if fits else "fail", f"{have}, needs {wanted}", "" if fits else f"install Python {wanted}"
    )


def _packages() -> Iterator[Check]:
    """Versions against the ranges of pyproject.toml, as the installed package's metadata has them."""
    from packaging.requirements import Requirement

    seen: set[str] = set()  # psutil, for one, is named by two extras
    for requirement in map(Requirement, importlib.metadata.requires("sngd_tune") or ()):
        marker = requirement.marker
        extra = next((e for e in _EXTRAS if marker is None or marker.evaluate({"extra": e})), None)
        if extra is not None and requirement.name not in seen:
            seen.add(requirement.name)
            yield _package(requirement.name, str(requirement.specifier), requirement.specifier.contains, extra)


def _package(name: str, wanted: str, fits: object, extra: str) -> Check:
    install = f"pip install 'sngd_tune[{extra}]'" if extra else "pip install sngd_tune"
    try:
        have = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Check(name, "fail" if extra != "mlflow" else "warn", f"not installed, needs {wanted}", install)
    good = callable(fits) and fits(have, prereleases=True)
    return Check(name, "ok" if good else "fail", f"{have}, needs {wanted or 'any'}", "" if good else install)


def _torch() -> Check:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Check("torch devices", "fail", f"torch cannot be imported: {error}", "install torch again")
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    cores = os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count()
    return Check(
        "torch devices", "ok", f"{torch.get_num_threads()} threads, {cores} cores, {', '.join(devices) or 'no GPU'}"
    )


def _data(data_dir: Path | None) -> Check:
    remedy = "name one with --data-dir or SNGD_TUNE_DATA; the digits studies need none"
    if data_dir is None:
        return Check("data", "warn", "no data directory named", remedy)
    if not data_dir.is_dir():
        return Check("data", "fail", f"{data_dir}: not a directory", remedy)
    sets = sorted({path.parent.name for name in ("train", "all") for path in data_dir.glob(f"*/{name}.parquet")})
    status: Literal["ok", "warn"] = "ok" if sets else "warn"
    found = ", ".join(sets) or "no data set (no */train.parquet, no */all.parquet)"
    return Check("data", status, f"{data_dir}: {found}", "" if sets else remedy)


def _runs(runs: Path) -> Check:
    """Writable, with room: a study takes megabytes, its checkpoints as much as the models."""
    existing = next(path for path in (runs.absolute(), *runs.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Check(
            "runs", "fail", f"{runs}: cannot be written ({error.strerror})", "name another with SNGD_TUNE_RUNS or --dir"
        )
    free = shutil.disk_usage(existing).free / _GB
    status: Literal["ok", "warn", "fail"] = "ok" if free >= 1 else "warn" if free >= 0.1 else "fail"
    return Check("runs", status, f"{runs}: writable, {free:.1f} GB free", "" if status == "ok" else "free some space")


def _shared_memory(path: Path) -> Check:
    """Ray keeps its object store there, and falls back to the disk where it is small."""
    if not path.is_dir():
        return Check("shared memory", "ok", f"no {path} on this system")
    size = shutil.disk_usage(path).total / _GB
    good = size >= 1
    return Check(
        "shared memory", "ok" if good else "warn", f"{path}: {size:.1f} GB", "" if good else "docker run --shm-size=2g"
    )


def _mlflow(tracking_uri: str) -> Check:
    from sngd_tune.tracking.client import connect, mirror_errors
    from sngd_tune.tracking.redaction import redact

    shown = redact(tracking_uri)
    if tracking_uri.startswith("sqlite:///") and not Path(tracking_uri.removeprefix("sqlite:///")).exists():
        return Check("mlflow store", "ok", f"{shown}: not there yet; the first study makes it")
    try:
        client = connect(tracking_uri)
        with mirror_errors(tracking_uri):
            client.search_experiments(max_results=1)
    except SngdTuneError as error:
        return Check("mlflow store", "warn", str(error), "studies run without it; `sngd-tune sync` catches up later")
    return Check("mlflow store", "ok", f"{shown}: answers")


def _port(port: int) -> Check:
    free = port_is_free(port)
    remedy = "" if free else "sngd-tune ui --port with another number"
    return Check("ui port", "ok" if free else "warn", f"127.0.0.1:{port} is {'free' if free else 'in use'}", remedy)


def _ray() -> Check:
    from sngd_tune.cluster import ray_session

    try:
        with ray_session():
            import ray

            resources = ray.cluster_resources()
    except (SngdTuneError, OSError, RuntimeError, ValueError) as error:
        return Check("ray", "fail", f"does not start: {error}", "see the logs under /tmp/ray/session_latest/logs")
    return Check("ray", "ok", f"starts: {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs")
