"""The machine itself: its devices, its folders, its ports, and the MLflow store."""

import os
import shutil
import socket
import tempfile
from pathlib import Path

from sngd_tune.doctor.check import Check, Status
from sngd_tune.errors import SngdTuneError

__all__ = [
    "data_check",
    "mlflow_check",
    "port_check",
    "port_is_free",
    "ray_check",
    "runs_check",
    "shared_memory_check",
    "space_status",
    "torch_check",
]

_GB = 1e9


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def torch_check() -> Check:
    """Whether torch loads, and on what it would train."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return Check("torch devices", "fail", f"torch cannot be imported: {error}", "install torch again")
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    cores = os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count()
    return Check(
        "torch devices", "ok", f"{torch.get_num_threads()} threads, {cores} cores, {', '.join(devices) or 'no GPU'}"
    )


def data_check(data_dir: Path | None) -> Check:
    """The data sets in the data directory."""
    remedy = "name one with --data-dir or SNGD_TUNE_DATA; the digits studies need none"
    if data_dir is None:
        return Check("data", "warn", "no data directory named", remedy)
    if not data_dir.is_dir():
        return Check("data", "fail", f"{data_dir}: not a directory", remedy)
    sets = sorted({path.parent.name for name in ("train", "all") for path in data_dir.glob(f"*/{name}.parquet")})
    status: Status = "ok" if sets else "warn"
    found = ", ".join(sets) or "no data set (no */train.parquet, no */all.parquet)"
    return Check("data", status, f"{data_dir}: {found}", "" if sets else remedy)


def runs_check(runs: Path) -> Check:
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
    status = space_status(free)
    return Check("runs", status, f"{runs}: writable, {free:.1f} GB free", "" if status == "ok" else "free some space")


def space_status(gigabytes: float) -> Status:
    """Whether there is room for a study."""
    return "ok" if gigabytes >= 1 else "warn" if gigabytes >= 0.1 else "fail"


def shared_memory_check(path: Path) -> Check:
    """Ray keeps its object store there, and falls back to the disk where it is small."""
    if not path.is_dir():
        return Check("shared memory", "ok", f"no {path} on this system")
    size = shutil.disk_usage(path).total / _GB
    good = size >= 1
    return Check(
        "shared memory", "ok" if good else "warn", f"{path}: {size:.1f} GB", "" if good else "docker run --shm-size=2g"
    )


def mlflow_check(tracking_uri: str) -> Check:
    """Whether the MLflow store answers; a study does without."""
    from sngd_tune.redaction import redact
    from sngd_tune.tracking.client import connect, mirror_errors

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


def port_check(port: int) -> Check:
    """Whether `sngd-tune ui` could listen."""
    free = port_is_free(port)
    remedy = "" if free else "sngd-tune ui --port with another number"
    return Check("ui port", "ok" if free else "warn", f"127.0.0.1:{port} is {'free' if free else 'in use'}", remedy)


def ray_check() -> Check:
    """Whether a local Ray starts; it is stopped again."""
    from sngd_tune.cluster.session import ray_session

    try:
        with ray_session():
            import ray

            resources = ray.cluster_resources()
    except (SngdTuneError, OSError, RuntimeError, ValueError) as error:
        return Check("ray", "fail", f"does not start: {error}", "see the logs under /tmp/ray/session_latest/logs")
    return Check("ray", "ok", f"starts: {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs")
