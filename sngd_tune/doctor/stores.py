"""Storage: of checkpoints and copies, from this machine and from each node of a cluster; and Optuna's."""

import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sngd_tune.cluster.nodes import Node, on_each
from sngd_tune.doctor.check import Check
from sngd_tune.doctor.machine import space_status
from sngd_tune.errors import ConfigurationError, SngdTuneError
from sngd_tune.redaction import redact
from sngd_tune.storage import open_place

__all__ = ["optuna_check", "storage_check", "storage_checks"]

_GB = 1e9
_ACCESS = "see that it exists, that this user may write there, and that its credentials are in the environment"
_SHARED = "name a folder that all nodes mount, or an object store such as s3://bucket/prefix"


def storage_check(uri: str) -> Check:
    """Write a file, over an older one, read it back and delete it, from this machine.

    Args:
        uri: as `open_place` takes it.
    """
    name = _fresh()
    try:
        free = _exchange(uri, name, {})
        open_place(uri).delete(name)
    except (ConfigurationError, OSError) as error:
        return Check("storage", "fail", f"{redact(uri)}: {_reason(error)}", _ACCESS)
    return _room("storage", uri, free)


def storage_checks(uri: str, nodes: Mapping[str, Node]) -> Iterator[Check]:
    """The same from each node; and whether it is one place for all: each must find what the others write.

    Args:
        uri: as `open_place` takes it.
        nodes: of a cluster, by the names under which they are shown. Ray is up.
    """
    names = {shown: _fresh() for shown in nodes}
    here = _fresh()
    try:
        open_place(uri).write(here, here.encode())
    except (ConfigurationError, OSError):
        return  # what `storage_check` has said
    try:
        for shown, node in nodes.items():
            (found,) = on_each([node], _exchange, uri, names[shown], {here: here})
            yield _finding(f"{shown}: storage", uri, found, names[shown])
    finally:
        _tidy(uri, [here, *names.values()])


def optuna_check(url: str) -> Check:
    """Whether Optuna's storage can be opened.

    Args:
        url: as `search.optuna.storage` takes it.
    """
    from sngd_tune.search.stores import open_storage

    try:
        with open_storage(url):
            return Check("optuna storage", "ok", f"{redact(url)}: answers")
    except SngdTuneError as error:
        return Check("optuna storage", "fail", str(error), "start the server, or mend SNGD_TUNE_OPTUNA_STORAGE")


def _fresh() -> str:
    """A name that nobody else uses."""
    return f".sngd-tune-doctor-{uuid.uuid4().hex}"


def _exchange(uri: str, name: str, others: Mapping[str, str]) -> int | None:
    """Write a file twice, read it and those of others; bytes that are free, where the place knows.

    Raises:
        OSError: there is no such folder, something of it fails, or what is read is not what was written.
    """
    place = open_place(uri)
    if place.local and not Path(place.root).is_dir():
        raise NotADirectoryError(f"{place.root}: no folder, or not mounted")
    for content in ("old", name):
        place.write(name, content.encode())
    for each, content in {**others, name: name}.items():
        if place.read(each).decode() != content:
            raise OSError(f"{each}: what was read is not what was written")
    return shutil.disk_usage(place.root).free if place.local else None


def _finding(name: str, uri: str, found: Any, wrote: str) -> Check:
    cause = getattr(found, "cause", found)
    if isinstance(cause, FileNotFoundError):
        return Check(name, "fail", f"{redact(uri)}: does not hold what the driver wrote there", _SHARED)
    if isinstance(cause, Exception):
        return Check(name, "fail", f"{redact(uri)}: {_reason(cause)}", _ACCESS)
    try:
        open_place(uri).read(wrote)
    except FileNotFoundError:
        return Check(name, "fail", f"{redact(uri)}: what it writes is not seen from the driver", _SHARED)
    return _room(name, uri, found)


def _room(name: str, uri: str, free: int | None) -> Check:
    if free is None:
        return Check(name, "ok", f"{redact(uri)}: writes, reads and deletes")
    status = space_status(free / _GB)
    detail = f"{redact(uri)}: writes, reads and deletes, {free / _GB:.1f} GB free"
    return Check(name, status, detail, "" if status == "ok" else "free some space")


def _tidy(uri: str, names: Sequence[str]) -> None:
    place = open_place(uri)
    for name in names:
        place.delete(name)


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return redact(lines[-1]) if lines else type(error).__name__
