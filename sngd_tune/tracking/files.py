"""The files of a run directory: written whole, with errors that say what is safe and how to go on."""

import errno
import json
import logging
import time
from pathlib import Path
from typing import Any

from sngd_tune.atomic import replacing
from sngd_tune.errors import ConfigurationError, LedgerError, SchemaVersionError

__all__ = ["PATIENCE_SECONDS", "make_directory", "read_versioned", "replace_file"]

_log = logging.getLogger(__name__)

#: For how long storage may be away.
PATIENCE_SECONDS = 60.0
_AWAY = {
    errno.ENOENT, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH,
    errno.ECONNRESET,
}  # fmt: skip


def make_directory(path: Path) -> None:
    """Make a directory and its parents where they are missing. Raises LedgerError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerError(f"{path}: cannot be made ({error.strerror}); choose another run directory") from error


def read_versioned(path: Path, kind: str, key: str, version: int) -> dict[str, Any]:
    """The values of a JSON manifest of this version.

    Args:
        path: of the manifest, in the directory it is about.
        kind: what the directory is of, such as ``"study"``, for messages.
        key: of the version, such as ``"ledger_version"``.
        version: what it has to be.

    Raises:
        ConfigurationError: none is there.
        SchemaVersionError: another version of sngd_tune wrote it.
        LedgerError: it is damaged.
    """
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = values[key]
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigurationError(f"{path.parent}: no {kind} there (no {path.name}); check the path") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LedgerError(f"{path}: not a readable manifest ({error}); restore it from a backup") from error
    if found != version:
        raise SchemaVersionError(
            f"{path.parent}: written with {key.replace('_', ' ')} {found!r}, this sngd_tune reads {version}; use the "
            f"version that wrote it ({values.get('code_version', 'unknown')})"
        )
    return values


def replace_file(path: Path, content: bytes, mode: int = 0o644) -> Path:
    """Write a file, in the place of an older one.

    A file server or a mount that is away is waited for, a minute at most: trials train on meanwhile. No folder is made
    for it, as one in the place of a mount would hide what is written there.

    Raises:
        LedgerError: it cannot be written; a full disk is not waited for.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    waiting = False
    while True:
        try:
            with replacing(path, mode) as file:
                file.write(content)
            return path
        except OSError as error:
            if error.errno not in _AWAY or time.monotonic() > deadline:
                raise LedgerError(
                    f"{path}: cannot be written ({error.strerror or error}); earlier trials are intact: free space or "
                    "fix the permissions, then `sngd-tune resume`"
                ) from error
            if not waiting:
                _log.warning("%s: away (%s); waiting for it", path.parent, error.strerror)
            waiting = True
            time.sleep(0.5)
