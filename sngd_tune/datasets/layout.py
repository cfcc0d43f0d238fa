"""What every kind of original file has to tell: its columns, the way there, and the way back."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import pyarrow as pa

from sngd_tune.datasets.checksums import md5, sha256
from sngd_tune.datasets.originals import Content

__all__ = ["Layout"]


class Layout(ABC):
    """A kind of original file, as columns. ``rebuild(read(files), len(files))`` are the published files again."""

    schema: pa.Schema

    @abstractmethod
    def read(self, files: Sequence[Content]) -> pa.Table:
        """The original files of one split as a table of `schema`, with at least one row.

        Raises:
            ConfigurationError: a file is not of this kind, is cut off, or does not go with the others; names it.
        """

    @abstractmethod
    def rebuild(self, table: pa.Table, count: int) -> list[bytes]:
        """The `count` original files of a table of `schema`."""

    @abstractmethod
    def checksums(self, table: pa.Table) -> dict[str, str]:
        """Key of the metadata → sha256 of what the table holds, in hexadecimal."""

    def facts(self) -> dict[str, str]:
        """What else the metadata says of the columns."""
        return {}

    def source_checksums(self, files: Sequence[Content]) -> dict[str, str]:
        """Key of the metadata → checksum of the original files."""
        content = b"".join(file.data for file in files)
        return {"sha256_source": sha256(content), "md5_source": md5(content), "bytes_source": str(len(content))}
