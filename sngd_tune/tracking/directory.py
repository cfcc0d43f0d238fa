"""One live process per run directory."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sngd_tune.errors import ConfigurationError, StudyHeldError
from sngd_tune.tracking.lease import LEASE

__all__ = ["hold", "holder"]

_LOCK = ".lock"
_HOLDER = ".holder.json"


@contextmanager
def hold(directory: Path | str) -> Iterator[Path]:
    """Hold a run directory, which is made where it does not exist; the system lets go when the process dies.

    Raises:
        StudyHeldError: another live process holds it; the message names its PID and host.
        ConfigurationError: the directory cannot be made or written.
    """
    import filelock

    directory = Path(directory).absolute()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(directory / _LOCK)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise StudyHeldError(_held_message(directory)) from None
    except OSError as error:
        message = f"{directory}: cannot be used as a run directory ({error.strerror or error}); choose another"
        raise ConfigurationError(message) from error
    try:
        _write_holder(directory)
        yield directory
    finally:
        (directory / _HOLDER).unlink(missing_ok=True)
        lock.release()


def holder(directory: Path | str) -> dict[str, Any] | None:
    """Who holds the directory, or held it last and died: ``{"pid", "host", "since"}``; None where nobody is named.

    In a copy of it the lease tells, and ``"heard"`` is when its holder last said so (by the storage's clock).
    """
    directory = Path(directory)
    return _named(directory / _HOLDER) or _named(directory / LEASE)


def _named(path: Path) -> dict[str, Any] | None:
    try:
        values = json.loads(path.read_text())
        heard = {"heard": path.stat().st_mtime} if path.name == LEASE else {}
        return {key: values[key] for key in ("pid", "host", "since")} | heard
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_holder(directory: Path) -> None:
    named = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
    try:
        (directory / _HOLDER).write_text(json.dumps(named))
    except OSError as error:
        message = f"{directory}: cannot be written ({error.strerror or error}); free space or choose another directory"
        raise ConfigurationError(message) from error


def _held_message(directory: Path) -> str:
    named = holder(directory)
    who = f"process {named['pid']} on {named['host']}" if named else "another process"
    return f"{directory}: held by {who}; wait for it, stop it, or give this study another directory"
