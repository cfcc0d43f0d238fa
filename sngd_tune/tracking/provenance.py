"""Which code, which packages and which machine a study ran with."""

import functools
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

import sngd_tune.errors
from sngd_tune.records.machine import Machine, processor_name

__all__ = ["code_version", "git_commit", "package_versions", "this_machine"]

_PACKAGES = ("sngd_tune", "torch", "ray", "optuna", "mlflow", "pyarrow", "numpy")
_SOURCE = Path(sngd_tune.errors.__file__)


@functools.cache
def git_commit() -> str | None:
    """The commit that sngd_tune runs from, ``+dirty`` where tracked files differ; None outside a repository."""
    # An installed copy may lie inside somebody else's repository (a virtual environment in a project's folder): only a
    # repository that tracks this very file speaks for it.
    if _git("ls-files", "--error-unmatch", _SOURCE.name) is None:
        return None
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".")
    return f"{commit}+dirty" if commit and changed else commit


@functools.cache
def code_version() -> str:
    """Version of sngd_tune, followed by the short commit where there is one: ``"0.1.0+g2c30894"``."""
    commit = git_commit()
    if commit is None:
        return version("sngd_tune")
    return f"{version('sngd_tune')}+g{commit[:7]}{'.dirty' if commit.endswith('+dirty') else ''}"


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result; those not installed are left out."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def this_machine() -> Machine:
    """What this process runs on."""
    return Machine(
        cpu=processor_name(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        gpus=_gpu_names(),
        system=f"{platform.system()} {platform.release()}",
    )


def _gpu_names() -> tuple[str, ...]:
    """Of NVIDIA's GPUs, from their driver: torch would take seconds to ask."""
    output = _output(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"])
    return tuple(line.strip() for line in (output or "").splitlines() if line.strip())


def _git(*arguments: str) -> str | None:
    """Output of a git command in the package's folder; None where git is missing, slow or says no."""
    return _output(["git", "-C", str(_SOURCE.parent), *arguments])


def _output(command: list[str]) -> str | None:
    """Output of a command; None where it is missing, slow or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
