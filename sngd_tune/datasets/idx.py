"""MNIST's files, IDX: a magic number, the length of each dimension (big-endian, 4 bytes each), then unsigned bytes."""

import math
import struct
from collections.abc import Sequence

import pyarrow as pa

from sngd_tune.datasets.checksums import md5, sha256
from sngd_tune.datasets.images import ImageLayout
from sngd_tune.datasets.originals import Content
from sngd_tune.errors import ConfigurationError

__all__ = ["IdxImages"]

_UNSIGNED_BYTES = 0x800  # the magic number of a file of bytes; its last digit is the number of dimensions


class IdxImages(ImageLayout):
    """A file of images ``[n, 28, 28]`` and one of labels ``[n]``."""

    shape = (1, 28, 28)
    order = "HW row-major uint8"

    def read(self, files: Sequence[Content]) -> pa.Table:
        images, labels = files
        (count, *sides), pixels = _parse(images, dimensions=3)
        if tuple(sides) != self.shape[1:]:
            raise ConfigurationError(f"{images.where}: has images of {sides[0]} × {sides[1]}; they must be 28 × 28")
        (labelled,), classes = _parse(labels, dimensions=1)
        if count != labelled:
            found = f"{images.where}: has {count} images, and {labels.where} has {labelled} labels"
            raise ConfigurationError(f"{found}; there must be a label for each image: take both from one set")
        self._check_labels(labels.where, bytes(classes))
        return self._table(pa.py_buffer(pixels), bytes(classes))

    def rebuild(self, table: pa.Table, count: int) -> list[bytes]:
        lengths = (table.num_rows, *self.shape[1:])
        return [_header(lengths) + self._pixels(table), _header(lengths[:1]) + self._labels(table)]

    def source_checksums(self, files: Sequence[Content]) -> dict[str, str]:
        labels = files[1].data
        found = {"sha256_source_labels": sha256(labels), "md5_source_labels": md5(labels)}
        return super().source_checksums(files[:1]) | found


def _parse(file: Content, dimensions: int) -> tuple[tuple[int, ...], memoryview]:
    """Lengths and elements of an IDX file of unsigned bytes."""
    start = 4 * (1 + dimensions)
    magic = int.from_bytes(file.data[:4], "big")
    if len(file.data) >= 4 and magic != _UNSIGNED_BYTES + dimensions:
        wanted = f"0x{_UNSIGNED_BYTES + dimensions:08x} (IDX, unsigned bytes, dimensions: {dimensions})"
        raise ConfigurationError(f"{file.where}: begins with 0x{magic:08x}; it must begin with {wanted}")
    if len(file.data) < start:
        message = f"{file.where}: has {len(file.data)} bytes; the header of an IDX file has {start}"
        raise ConfigurationError(f"{message}: fetch it again")
    lengths = struct.unpack_from(f">{dimensions}I", file.data, 4)
    size = math.prod(lengths)
    if len(file.data) != start + size:
        shape = " × ".join(map(str, lengths))
        message = f"{file.where}: has {len(file.data)} bytes; {shape} elements and the header make {start + size}"
        raise ConfigurationError(f"{message}: it is cut off or damaged, fetch it again")
    if not size:
        raise ConfigurationError(f"{file.where}: has no elements; it must have at least one")
    return lengths, memoryview(file.data)[start:]


def _header(lengths: tuple[int, ...]) -> bytes:
    return struct.pack(f">{1 + len(lengths)}I", _UNSIGNED_BYTES + len(lengths), *lengths)
