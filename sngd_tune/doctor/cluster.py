"""A Ray cluster: who may enter it, and whether each of its nodes is fit for trials."""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from sngd_tune.cluster.nodes import Node, alive_nodes, on_each
from sngd_tune.cluster.session import ray_session
from sngd_tune.doctor.check import Check, Status, worst
from sngd_tune.doctor.packages import installed, unfit, wanted
from sngd_tune.doctor.stores import storage_checks
from sngd_tune.errors import SngdTuneError
from sngd_tune.gpu import Gpu, read_gpus

__all__ = ["Survey", "cluster_checks", "gpu_check", "survey_check"]

_LOOPBACK = ("127.", "localhost", "::1")
#: Seconds by which a clock may be off: leases of run directories and the ledger's times go by clocks.
_SKEW = 1.0
_PINGS = 3
_STRANGER_SECONDS = 60.0
_GB = 1e9


@dataclass(frozen=True)
class Survey:
    """What a node says of itself.

    Attributes:
        versions: of Python and packages (`packages.installed`).
        gpus: as NVML sees them.
        token: path and mode of the file with the cluster's token; None where there is none.
        dashboard: ``HOST:PORT`` on which this cluster's dashboard listens; None on nodes without one.
    """

    versions: dict[str, str]
    gpus: list[Gpu]
    token: tuple[str, int] | None
    dashboard: str | None


def cluster_checks(
    address: str | None, storage: str | None = None, requirements: Sequence[str] | None = None
) -> Iterator[Check]:
    """Join a cluster, and look at it and at each node.

    Args:
        address: as `ray_session` takes it.
        storage: a place that all nodes should see.
        requirements: of the nodes' packages, as in `packages.wanted`.
    """
    try:
        with ray_session(address):
            yield from _connected(storage, requirements)
    except SngdTuneError as error:
        yield Check("cluster", "fail", str(error), "start it with `ray start --head`, or mend --address")


def _connected(storage: str | None, requirements: Sequence[str] | None) -> Iterator[Check]:
    import ray

    nodes = _by_name(alive_nodes())
    cpus, gpus = sum(node.cpus for node in nodes.values()), sum(node.gpus for node in nodes.values())
    yield Check("cluster", "ok", f"{len(nodes)} nodes, {cpus:g} CPUs, {gpus:g} GPUs")
    gcs = ray.get_runtime_context().gcs_address
    strangers = _lets_in(gcs)
    yield _authentication(gcs, strangers)
    here = installed(wanted(requirements))
    found = on_each(list(nodes.values()), _survey, list(wanted(requirements)), gcs)
    for (shown, node), survey in zip(nodes.items(), found, strict=True):
        if isinstance(survey, Survey):
            yield survey_check(shown, survey, here, strangers, requirements)
            yield from gpu_check(shown, node, survey.gpus)
        else:
            yield Check(f"{shown}: node", "fail", _brief(survey), "install sngd_tune there, as on the driver")
    for shown, node in nodes.items():
        yield _clock(shown, node)
    if storage is not None:
        yield from storage_checks(storage, nodes)


def survey_check(
    shown: str, survey: Survey, here: Mapping[str, str], strangers: bool, requirements: Sequence[str] | None = None
) -> Check:
    """Versions, token and dashboard of a node.

    Args:
        shown: name of the node.
        survey: what it says.
        here: versions of the driver.
        strangers: whether the cluster lets in who has no token.
        requirements: as in `packages.wanted`.
    """
    wrong: list[tuple[Status, str, str]] = []
    if packages := unfit(survey.versions, here, requirements):
        wrong.append(("fail", "; ".join(packages), "give all nodes one image or one environment"))
    if survey.token is not None and survey.token[1] & 0o077:
        path, mode = survey.token
        wrong.append(("fail", f"{path}: mode {mode:04o}, others may read the token", f"chmod 600 {path}"))
    if survey.dashboard is not None and not survey.dashboard.startswith(_LOOPBACK):
        remedy = "start the head with --dashboard-host=127.0.0.1, and reach it through ssh -L 8265:127.0.0.1:8265"
        wrong.append(("fail" if strangers else "warn", f"the dashboard listens on {survey.dashboard}", remedy))
    if not wrong:
        versions = ", ".join(f"{name} {survey.versions[name]}" for name in ("python", "ray", "sngd_tune"))
        return Check(f"{shown}: node", "ok", f"{versions}, as on the driver")
    statuses, details, remedies = zip(*wrong, strict=True)
    return Check(f"{shown}: node", worst(*statuses), "; ".join(details), "; ".join(remedies))


def gpu_check(shown: str, node: Node, gpus: Sequence[Gpu]) -> Iterator[Check]:
    """The health of a node's GPUs; nothing where it has none.

    Args:
        shown: name of the node.
        node: what Ray gives out of it.
        gpus: what NVML tells.
    """
    if not gpus:
        if node.gpus:
            detail = f"Ray gives out {node.gpus:g}, and NVML tells of none"
            yield Check(
                f"{shown}: GPUs", "warn", detail, "pip install 'sngd_tune[gpu]' there; `nvidia-smi` must answer"
            )
        return
    for gpu in gpus:
        detail = f"{gpu.name}, {gpu.free / _GB:.1f} of {gpu.total / _GB:.1f} GB free, {len(gpu.processes)} processes"
        status, remedy = _health(gpu)
        yield Check(f"{shown}: GPU {gpu.index}", status, detail, remedy)


def _health(gpu: Gpu) -> tuple[Status, str]:
    if gpu.uncorrected:
        return "fail", f"{gpu.uncorrected} uncorrected ECC errors: reset the GPU, and replace it if they come back"
    if gpu.slowed:
        return "warn", "its clock is slowed by heat or power: timings will not compare; see to its cooling"
    if not gpu.processes and gpu.free < 0.9 * gpu.total:
        return "warn", "memory is held that no process owns: end leftover processes, or reset the GPU"
    return "ok", ""


def _survey(names: list[str], gcs: str) -> Survey:
    return Survey(installed(names), read_gpus(), _token(), _dashboard(gcs))


def _token() -> tuple[str, int] | None:
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        return str(path), stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None


def _dashboard(gcs: str) -> str | None:
    """Where the dashboard of the cluster with that GCS listens, by the arguments of its process."""
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
        except psutil.Error:
            continue
        if any(part.endswith("dashboard.py") for part in line) and any(gcs in part for part in line):
            given = dict(part.lstrip("-").partition("=")[::2] for part in line if part.startswith("--"))
            return f"{given.get('host', '')}:{given.get('port', '')}"
    return None


def _lets_in(gcs: str) -> bool:
    """Whether the cluster answers somebody without a token. Asked by a process of its own: ours has one."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH_")} | {"RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", gcs]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=_STRANGER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _authentication(gcs: str, strangers: bool) -> Check:
    if not strangers:
        return Check("authentication", "ok", f"{gcs} refuses whoever has no token")
    status: Status = "warn" if gcs.startswith(_LOOPBACK) else "fail"
    remedy = (
        "`ray get-auth-token --generate`, then RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH (mode 0600) on every node"
        " before `ray start`; and keep the ports inside a private network"
    )
    return Check("authentication", status, f"{gcs} lets in whoever reaches the port, to run any code", remedy)


def _clock(shown: str, node: Node) -> Check:
    """How far the node's clock is from ours: certain to half of the round trip."""
    offset, doubt = min((_ping(node) for _ in range(_PINGS)), key=lambda found: found[1])
    detail = f"{offset:+.2f} ± {doubt:.2f} s from the driver's"
    good = abs(offset) - doubt <= _SKEW
    return Check(f"{shown}: clock", "ok" if good else "warn", detail, "" if good else "run an NTP client on every node")


def _ping(node: Node) -> tuple[float, float]:
    start = time.time()
    (there,) = on_each([node], _now)
    end = time.time()
    return (there - (start + end) / 2, (end - start) / 2) if isinstance(there, float) else (0.0, float("inf"))


def _now() -> float:
    return time.time()


def _by_name(nodes: Sequence[Node]) -> dict[str, Node]:
    """Nodes by address; those that share one are told apart by the beginning of their id."""
    addresses = [node.address for node in nodes]
    return {
        node.address if addresses.count(node.address) == 1 else f"{node.address} ({node.id[:6]})": node
        for node in nodes
    }


def _brief(error: object) -> str:
    lines = str(getattr(error, "cause", None) or error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
