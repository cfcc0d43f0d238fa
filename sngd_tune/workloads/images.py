"""Images from a data directory of Parquet files.

Layout: ``<data_dir>/<set>/{train,test}.parquet`` with the columns ``image`` (a byte a pixel, 0 to 255, by channels,
rows and columns; or a JPEG file, `read_jpegs`) and ``label`` (integer, 0 to 9).
"""

import io
from pathlib import Path
from typing import Any

import numpy as np

from sngd_tune.errors import ConfigurationError, MissingDependencyError
from sngd_tune.workloads.parquet import read_table
from sngd_tune.workloads.workload import Split, Splits

__all__ = ["image_splits", "read_images", "read_jpegs", "read_pixels"]

_COLUMNS = {"image": "bytes", "label": "integers"}
_CLASSES = 10
_PIXELS = 784
_VALIDATION = 10_000  # the last of the training file


def image_splits(data_dir: Path | None, name: str) -> Splits:
    """MNIST or a set of its format: the last 10,000 training images validate. Raises ConfigurationError."""
    images, labels = read_images(data_dir, name, "train", _PIXELS)
    if len(images) <= _VALIDATION:
        found = f"{Path(str(data_dir)) / name / 'train.parquet'}: has {len(images)} images"
        raise ConfigurationError(f"{found}; it must have more than {_VALIDATION}, of which the last validate")
    test = Split(*read_images(data_dir, name, "test", _PIXELS))
    return Splits(
        Split(images[:-_VALIDATION], labels[:-_VALIDATION]), Split(images[-_VALIDATION:], labels[-_VALIDATION:]), test
    )


def read_images(data_dir: Path | None, name: str, split: str, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """One file of an image set.

    Args:
        data_dir: the user's data directory.
        name: folder of the set, such as ``"mnist"``.
        split: ``"train"`` or ``"test"``.
        pixels: bytes per image.

    Returns:
        images ``[n, pixels]`` (float32, in [0, 1]) and labels ``[n]`` (int64).

    Raises:
        ConfigurationError: no directory was named, the file or a column is missing, an image has another size, or a
            label is not from 0 to 9.
    """
    path, table = read_table(data_dir, name, split, _COLUMNS)
    return _bytes(path, table, pixels).astype(np.float32) / np.float32(255), _labels(path, table)


def read_pixels(data_dir: Path | None, name: str, split: str, side: int) -> tuple[np.ndarray, np.ndarray]:
    """One file of a set of square colour images, each stored as its red bytes, then the green, then the blue.

    Returns:
        images ``[n, 3, side, side]`` (uint8: a quarter of the memory) and labels ``[n]`` (int64).

    Raises:
        ConfigurationError: as `read_images`.
    """
    path, table = read_table(data_dir, name, split, _COLUMNS)
    return _bytes(path, table, 3 * side * side).reshape(-1, 3, side, side), _labels(path, table)


def read_jpegs(data_dir: Path | None, name: str, split: str, side: int) -> tuple[np.ndarray, np.ndarray]:
    """One file of a set of square colour images, each stored as a JPEG file.

    Returns:
        as `read_pixels`.

    Raises:
        ConfigurationError: as `read_images`, or an image is no picture that Pillow can decode.
        MissingDependencyError: there is no Pillow.
    """
    path, table = read_table(data_dir, name, split, _COLUMNS)
    images = np.empty((table.num_rows, side, side, 3), np.uint8)
    for row, content in enumerate(table["image"].to_pylist()):
        images[row] = _decoded(path, row, content, side)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), _labels(path, table)


def _bytes(path: Path, table: Any, size: int) -> np.ndarray:
    """All images ``[n, size]`` (uint8, writable)."""
    images = table["image"].to_pylist()
    sizes = {len(image) for image in images}
    if sizes != {size}:
        found = f"images of {', '.join(map(str, sorted(sizes)[:5]))} bytes"
        raise ConfigurationError(f"{path}: holds {found}; each must have {size}")
    return np.frombuffer(bytearray().join(images), np.uint8).reshape(-1, size)


def _decoded(path: Path, row: int, content: bytes, side: int) -> np.ndarray:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError("decoding JPEG images needs Pillow: pip install 'sngd_tune[tune]'") from error
    try:
        pixels = np.asarray(Image.open(io.BytesIO(content), formats=["JPEG"]).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ConfigurationError(f"{path}: image {row} cannot be decoded; it must be a JPEG file ({error})") from error
    if pixels.shape != (side, side, 3):
        found = " × ".join(map(str, pixels.shape[:2]))
        raise ConfigurationError(f"{path}: image {row} has {found} pixels; each must have {side} × {side}")
    return pixels


def _labels(path: Path, table: Any) -> np.ndarray:
    labels: np.ndarray = table["label"].to_numpy().astype(np.int64)
    if labels.min() < 0 or labels.max() >= _CLASSES:
        found = f"labels from {labels.min()} to {labels.max()}"
        raise ConfigurationError(f"{path}: has {found}; they must be from 0 to {_CLASSES - 1}")
    return labels
