"""Original files, in a folder (plain or as ``.gz``) or in a tar archive, which is read and never unpacked."""

import gzip
import lzma
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sngd_tune.errors import ConfigurationError

__all__ = ["Content", "read_originals"]

_UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError)


@dataclass(frozen=True)
class Content:
    """What an original file holds, uncompressed, and where it was, for messages."""

    where: str
    data: bytes


def read_originals(source: Path, names: Sequence[str]) -> dict[str, Content]:
    """The named files of a source.

    Args:
        source: a folder that holds them, each under its name or with ``.gz`` after it, or a tar archive (compressed or
            not) that holds them in any folder.
        names: of the files, without ``.gz``.

    Raises:
        ConfigurationError: there is no such source, a file is missing, or one cannot be read or unpacked.
    """
    if source.is_dir():
        found = {name: content for name in names if (content := _from_folder(source, name)) is not None}
    elif source.is_file():
        found = _from_archive(source, names)
    else:
        raise ConfigurationError(f"{source}: not found; name the folder or the tar archive of the original files")
    missing = [name for name in names if name not in found]
    if missing:
        message = f"{source}: has no {', '.join(missing)}; it must hold {', '.join(names)}"
        raise ConfigurationError(f"{message}; name the folder or the tar archive that does")
    return found


def _from_folder(folder: Path, name: str) -> Content | None:
    plain, packed = folder / name, folder / f"{name}.gz"
    path = plain if plain.is_file() else packed
    if not path.is_file():
        return None
    try:
        return Content(str(path), plain.read_bytes() if path is plain else gzip.decompress(packed.read_bytes()))
    except _UNREADABLE as error:
        kind = "" if path is plain else " as gzip"
        raise ConfigurationError(f"{path}: cannot be read{kind} ({error}); fetch it again") from error


def _from_archive(path: Path, names: Sequence[str]) -> dict[str, Content]:
    """In one pass: going back in a compressed archive means to unpack it again from its beginning."""
    found = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = Path(member.name).name
                if name in names and (file := archive.extractfile(member)) is not None:
                    found[name] = Content(f"{path}: {member.name}", file.read())
    except (*_UNREADABLE, KeyError) as error:  # KeyError: a link to nothing
        reason = str(error).partition(":\n")[0]  # without what each method of compression says
        raise ConfigurationError(f"{path}: cannot be read as a tar archive ({reason}); fetch it again") from error
    return found
