"""Images and their labels as columns: what the layouts of IDX and CIFAR have in common."""

import json
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from sngd_tune.datasets.checksums import sha256
from sngd_tune.datasets.layout import Layout
from sngd_tune.errors import ConfigurationError

__all__ = ["ImageLayout"]


class ImageLayout(Layout):
    """``image`` (channels × height × width bytes, 0 to 255) and ``label`` (place of its name in `class_names`)."""

    shape: ClassVar[tuple[int, int, int]]  # channels, height, width
    order: ClassVar[str]  # of an image's bytes

    def __init__(self, class_names: Sequence[str]):
        self.class_names = tuple(class_names)
        channels, height, width = self.shape
        fields = [("image", pa.binary(channels * height * width)), ("label", pa.int8())]
        self.schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields])

    def checksums(self, table: pa.Table) -> dict[str, str]:
        return {"sha256_pixels": sha256(self._pixels(table)), "sha256_labels": sha256(self._labels(table))}

    def facts(self) -> dict[str, str]:
        numbers = dict(zip(("channels", "height", "width"), map(str, self.shape), strict=True))
        names = {"num_classes": str(len(self.class_names)), "class_names": json.dumps(self.class_names)}
        return {**names, **numbers, "layout": self.order, "lossless": "true"}

    def _table(self, pixels: Any, labels: bytes) -> pa.Table:
        """From the bytes of all images (a buffer) and a byte for each label."""
        images = pa.FixedSizeBinaryArray.from_buffers(self.schema.field("image").type, len(labels), [None, pixels])
        return pa.table([images, pa.array(np.frombuffer(labels, np.int8))], schema=self.schema)

    def _check_labels(self, where: str, labels: bytes) -> None:
        classes = len(self.class_names)
        if max(labels) >= classes:
            raise ConfigurationError(f"{where}: has the label {max(labels)}; labels must be from 0 to {classes - 1}")

    @staticmethod
    def _pixels(table: pa.Table) -> bytes:
        return b"".join(table["image"].to_pylist())

    @staticmethod
    def _labels(table: pa.Table) -> bytes:
        labels: np.ndarray = table["label"].to_numpy()
        return labels.astype(np.uint8).tobytes()
