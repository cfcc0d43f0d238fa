"""Small original files, written as their formats say and not by what is tested."""

import gzip
import io
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sngd_tune.datasets.originals import Content

HOUSING = (
    "longitude,latitude,housing_median_age,total_rooms,total_bedrooms,population,households,median_income,"
    "median_house_value,ocean_proximity\n"
    "-122.23,37.88,41.0,880.0,129.0,322.0,126.0,8.3252,452600.0,NEAR BAY\n"
    "-122.22,37.86,21.0,7099.0,,2401.0,1138.0,8.3014,358500.0,<1H OCEAN\n"
)


def idx_images(images: np.ndarray) -> bytes:
    return struct.pack(">IIII", 2051, *images.shape) + images.tobytes()


def idx_labels(labels: np.ndarray) -> bytes:
    return struct.pack(">II", 2049, len(labels)) + labels.tobytes()


def mnist(count: int = 3, seed: int = 0) -> dict[str, bytes]:
    """Both splits, with as many images each."""
    random = np.random.default_rng(seed)
    files = {}
    for prefix in ("train", "t10k"):
        files[f"{prefix}-images-idx3-ubyte"] = idx_images(random.integers(0, 256, (count, 28, 28), np.uint8))
        files[f"{prefix}-labels-idx1-ubyte"] = idx_labels(random.integers(0, 10, count, np.uint8))
    return files


def cifar(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    """From ``[n, 3, 32, 32]`` and ``[n]``."""
    return b"".join(
        bytes([label]) + image.tobytes() for label, image in zip(labels.tolist(), pixels.astype(np.uint8), strict=True)
    )


def cifar10(count: int = 2, seed: int = 0) -> dict[str, bytes]:
    """All six batches, with as many images each."""
    random = np.random.default_rng(seed)
    names = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
    return {
        name: cifar(random.integers(0, 256, (count, 3, 32, 32), np.uint8), random.integers(0, 10, count, np.uint8))
        for name in names
    }


def put(folder: Path, files: Mapping[str, bytes], packed: bool = False) -> Path:
    """Write files into a folder, as they are or each as ``.gz``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(content, 1) if packed else content)
    return folder


def pack(path: Path, files: Mapping[str, bytes]) -> Path:
    """A compressed tar archive with the files in a folder."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./batches/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def contents(*files: bytes) -> list[Content]:
    """As read from files named a, b, …"""
    return [Content(chr(ord("a") + i), data) for i, data in enumerate(files)]
