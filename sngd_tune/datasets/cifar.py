"""CIFAR-10's binary version: records of a label and 3 × 32 × 32 pixels, a byte each (Krizhevsky 2009)."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from sngd_tune.datasets.images import ImageLayout
from sngd_tune.datasets.originals import Content
from sngd_tune.errors import ConfigurationError

__all__ = ["CifarBatches"]

_RECORD = 1 + 3 * 32 * 32


class CifarBatches(ImageLayout):
    """Batches of records, one after another; an image is its red pixels by rows, then the green, then the blue."""

    shape = (3, 32, 32)
    order = "CHW row-major uint8"

    def read(self, files: Sequence[Content]) -> pa.Table:
        for file in files:
            if not file.data or len(file.data) % _RECORD:
                message = f"{file.where}: has {len(file.data)} bytes; it must have {_RECORD} for each image"
                raise ConfigurationError(f"{message}: it is cut off, or not of CIFAR-10's binary version")
            self._check_labels(file.where, file.data[::_RECORD])
        records = np.frombuffer(b"".join(file.data for file in files), np.uint8).reshape(-1, _RECORD)
        return self._table(pa.py_buffer(np.ascontiguousarray(records[:, 1:])), records[:, 0].tobytes())

    def rebuild(self, table: pa.Table, count: int) -> list[bytes]:
        labels = np.frombuffer(self._labels(table), np.uint8)[:, None]
        pixels = np.frombuffer(self._pixels(table), np.uint8).reshape(-1, _RECORD - 1)
        return [batch.tobytes() for batch in np.array_split(np.concatenate([labels, pixels], 1), count)]

    def source_checksums(self, files: Sequence[Content]) -> dict[str, str]:
        note = "checksums of the files one after another, in the order of source_file"
        return super().source_checksums(files) | {"sha256_source_note": note}
