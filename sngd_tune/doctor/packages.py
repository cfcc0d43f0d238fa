"""Versions: Python's and the packages', against the ranges of pyproject.toml and against those of the driver."""

import importlib.metadata
import platform
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from sngd_tune.doctor.check import Check

if TYPE_CHECKING:
    from packaging.requirements import Requirement

__all__ = ["installed", "package_checks", "python_check", "unfit", "wanted"]

#: Extras whose packages a study needs; the rest is checked by the tools that bring it.
_EXTRAS = ("", "tune", "mlflow")
#: The same on driver and workers, to the last digit: pickles, checkpoints and Ray's own protocol go between them.
_SAME = ("python", "ray", "sngd_tune", "torch", "cloudpickle")


def wanted(requirements: Iterable[str] | None = None) -> dict[str, tuple["Requirement", str]]:
    """What a study needs: requirement and extra by package.

    Args:
        requirements: as in pyproject.toml; None: those of the installed sngd_tune.
    """
    from packaging.requirements import Requirement

    found: dict[str, tuple[Requirement, str]] = {}
    for requirement in map(
        Requirement, importlib.metadata.requires("sngd_tune") or () if requirements is None else requirements
    ):
        marker = requirement.marker
        extra = next((e for e in _EXTRAS if marker is None or marker.evaluate({"extra": e})), None)
        if extra is not None:
            found.setdefault(requirement.name, (requirement, extra))  # psutil, for one, is named by two extras
    return found


def installed(names: Iterable[str]) -> dict[str, str]:
    """The versions here of Python and of those packages that are installed."""
    versions = {"python": platform.python_version()}
    for name in (*names, *_SAME[1:]):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def python_check() -> Check:
    """Python's version against the one that is needed."""
    from packaging.specifiers import SpecifierSet

    needs = importlib.metadata.metadata("sngd_tune")["Requires-Python"] or ""
    have = platform.python_version()
    fits = SpecifierSet(needs).contains(have, prereleases=True)
    return Check(
        "python", "ok" if fits else "fail", f"{have}, needs {needs}", "" if fits else f"install Python {needs}"
    )


def package_checks(requirements: Iterable[str] | None = None) -> Iterator[Check]:
    """The packages of this machine, one by one. Arguments as in `wanted`."""
    needed = wanted(requirements)
    have = installed(needed)
    for name, (requirement, extra) in needed.items():
        needs, install = str(requirement.specifier), _install(extra)
        if name not in have:
            yield Check(name, "fail" if extra != "mlflow" else "warn", f"not installed, needs {needs}", install)
            continue
        good = requirement.specifier.contains(have[name], prereleases=True)
        yield Check(name, "ok" if good else "fail", f"{have[name]}, needs {needs or 'any'}", "" if good else install)


def unfit(there: Mapping[str, str], here: Mapping[str, str], requirements: Iterable[str] | None = None) -> list[str]:
    """What is wrong with a worker's packages: out of their range, missing, or another version than the driver has.

    Args:
        there: what `installed` says on the worker.
        here: what it says on the driver.
        requirements: as in `wanted`; MLflow is the driver's alone.
    """
    found = [
        f"{name} {there.get(name, 'missing')} (driver: {here[name]})"
        for name in _SAME
        if there.get(name) != here.get(name)
    ]
    for name, (requirement, extra) in wanted(requirements).items():
        if extra == "mlflow" or (name in _SAME and there.get(name) != here.get(name)):
            continue
        if name not in there:
            found.append(f"{name} missing, needs {requirement.specifier}")
        elif not requirement.specifier.contains(there[name], prereleases=True):
            found.append(f"{name} {there[name]}, needs {requirement.specifier}")
    return found


def _install(extra: str) -> str:
    return f"pip install 'sngd_tune[{extra}]'" if extra else "pip install sngd_tune"
