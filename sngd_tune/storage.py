"""Places that outlive a machine: folders and object stores, by one interface (`pyarrow.fs`).

A place is named by a path or a URI: ``/shared/runs``, ``file:///shared/runs``, ``s3://bucket/prefix``,
``gs://bucket/prefix``. Credentials come from the environment or the machine's role, never from the URI. What Arrow
takes as options stands in the query: ``s3://bucket/runs?scheme=http&endpoint_override=127.0.0.1:9000``.

A file appears whole or not at all: a folder gets it under another name first, an object store is atomic by itself.
"""

import posixpath
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sngd_tune.errors import ConfigurationError

__all__ = ["Place", "open_place"]


@dataclass(frozen=True)
class Place:
    """A folder of a filesystem, local or not. Its methods raise OSError where the storage does.

    Attributes:
        uri: how it was named.
        filesystem: a `pyarrow.fs.FileSystem`.
        root: path of the folder in it.
    """

    uri: str
    filesystem: Any
    root: str

    @property
    def local(self) -> bool:
        """Whether it is a folder of this machine's (or one that is mounted here)."""
        return bool(self.filesystem.type_name == "local")

    def below(self, *parts: str) -> "Place":
        """A folder inside."""
        base, question, query = self.uri.partition("?")
        uri = posixpath.join(base, *parts) + question + query
        return Place(uri, self.filesystem, posixpath.join(self.root, *parts))

    def write(self, name: str, content: bytes) -> None:
        """Write a file, over an older one of that name; folders below this one are made where they are missing.

        A local place that does not exist is none to write to: it may be a mount that is away for a moment.
        """
        path = posixpath.join(self.root, name)
        if not self.local:
            with self._stream(path) as stream:
                stream.write(content)
            return
        self._make_below(posixpath.dirname(path))
        temporary = posixpath.join(posixpath.dirname(path), f".{posixpath.basename(path)}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            with self._stream(temporary) as stream:
                stream.write(content)
            self.filesystem.move(temporary, path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise

    def read(self, name: str) -> bytes:
        """The content of a file. Raises FileNotFoundError where there is none."""
        with self.filesystem.open_input_stream(posixpath.join(self.root, name), compression=None) as stream:
            content: bytes = stream.read()
        return content

    def names(self) -> list[str]:
        """Paths of all files below it, relative to it, sorted; unfinished ones (``.*.tmp``) left out."""
        from pyarrow.fs import FileSelector, FileType

        found = self.filesystem.get_file_info(FileSelector(self.root, allow_not_found=True, recursive=True))
        paths = [posixpath.relpath(info.path, self.root) for info in found if info.type == FileType.File]
        return sorted(path for path in paths if not path.endswith(".tmp"))

    def modified(self, name: str) -> float | None:
        """When a file was written, by the storage's own clock (Unix seconds); None where there is none."""
        modified: float | None = self.filesystem.get_file_info(posixpath.join(self.root, name)).mtime_ns
        return None if modified is None else modified / 1e9

    def delete(self, name: str) -> None:
        """Remove a file; one that is not there is none."""
        try:
            self.filesystem.delete_file(posixpath.join(self.root, name))
        except FileNotFoundError:
            return

    def make(self) -> None:
        """Make the folder, and those above it, where it is missing; an object store needs none."""
        if self.local:
            self.filesystem.create_dir(self.root, recursive=True)

    def clear(self) -> None:
        """Remove the folder with all that is in it; one that is not there is none."""
        try:
            self.filesystem.delete_dir(self.root)
        except FileNotFoundError:
            return

    def _make_below(self, path: str) -> None:
        """Make a folder and those above it, but none above this place, nor the place itself."""
        if path != self.root:
            self._make_below(posixpath.dirname(path))
            Path(path).mkdir(exist_ok=True)

    @contextmanager
    def _stream(self, path: str) -> Iterator[Any]:
        with self.filesystem.open_output_stream(path, compression=None) as stream:
            yield stream


def open_place(uri: str | Path) -> Place:
    """The place that a path or URI names; nothing is made or asked there yet.

    Raises:
        ConfigurationError: no filesystem of Arrow's serves the URI.
    """
    from pyarrow import ArrowException
    from pyarrow.fs import FileSystem

    text = str(uri)
    try:
        filesystem, root = FileSystem.from_uri(text if "://" in text else str(Path(text).absolute()))
    except (ArrowException, OSError, ValueError) as error:
        rule = "a folder, or a URI such as s3://bucket/prefix or gs://bucket/prefix"
        raise ConfigurationError(f"storage={text!r}: must be {rule} ({error})") from error
    return Place(text, filesystem, root)
