"""Files that are there whole or not at all, even after a power cut."""

import os
import uuid
from pathlib import Path

from sngd_tune.errors import LedgerError

__all__ = ["make_directory", "replace_file"]


def make_directory(path: Path) -> None:
    """Make a directory and its parents where they are missing. Raises LedgerError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerError(f"{path}: cannot be made ({error.strerror}); choose another run directory") from error


def replace_file(path: Path, content: bytes, mode: int = 0o644) -> Path:
    """Write a file, in the place of an older one. Raises LedgerError."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)  # noqa: PTH105 - Path.replace would hide that this is the atomic step
            _sync_directory(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise LedgerError(
            f"{path}: cannot be written ({error.strerror or error}); earlier trials are intact: free space or fix the "
            "permissions, then `sngd-tune resume`"
        ) from error
    return path


def _sync_directory(directory: Path) -> None:
    """Make a rename durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
