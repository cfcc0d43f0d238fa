"""The files of a run directory: written whole, with errors that say what is safe and how to go on."""

from pathlib import Path

from sngd_tune.atomic import replacing
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
    try:
        with replacing(path, mode) as file:
            file.write(content)
    except OSError as error:
        raise LedgerError(
            f"{path}: cannot be written ({error.strerror or error}); earlier trials are intact: free space or fix the "
            "permissions, then `sngd-tune resume`"
        ) from error
    return path
