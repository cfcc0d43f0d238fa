"""Images from a data directory of Parquet files, read by pyarrow.

Layout: ``<data_dir>/<set>/{train,test}.parquet`` with the columns ``image`` (height × width bytes, row-major, 0 to 255)
and ``label`` (integer).
"""

from pathlib import Path

import numpy as np

from sngd_tune.errors import ConfigurationError, MissingDependencyError

__all__ = ["read_images"]

_COLUMNS = {"image": "bytes", "label": "integers"}


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
        ConfigurationError: no directory was named, the file or a column is missing, or an image has another size.
    """
    if data_dir is None:
        remedy = "name it with --data-dir, SNGD_TUNE_DATA or data_dir in the study file"
        raise ConfigurationError(f"{name}: needs a data directory; {remedy}")
    path = Path(data_dir) / name / f"{split}.parquet"
    table = _read_table(path)
    images = table["image"].to_pylist()
    sizes = {len(image) for image in images}
    if sizes != {pixels}:
        found = f"images of {', '.join(map(str, sorted(sizes)[:5]))} bytes" if sizes else "no images"
        raise ConfigurationError(f"{path}: holds {found}; each must have {pixels}")
    inputs = np.frombuffer(b"".join(images), np.uint8).reshape(-1, pixels).astype(np.float32) / np.float32(255)
    return inputs, table["label"].to_numpy().astype(np.int64)


def _read_table(path: Path) -> "pyarrow.Table":  # type: ignore[name-defined]  # noqa: F821  imported below
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependencyError("reading Parquet needs pyarrow: pip install 'sngd_tune[tune]'") from error
    try:
        file = pq.ParquetFile(path)
        for column in _COLUMNS:
            if column not in file.schema_arrow.names:
                known = ", ".join(file.schema_arrow.names)
                raise ConfigurationError(f"{path}: has no column {column!r}; it has {known}")
        table = file.read(list(_COLUMNS))
        for column, wanted in _COLUMNS.items():
            _check_column(path, table, column, wanted)
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path}: not found; is the data directory right? See README, 'Data'") from error
    except (pa.ArrowException, OSError) as error:
        raise ConfigurationError(f"{path}: cannot be read as Parquet ({error})") from error
    return table


def _check_column(path: Path, table: "pyarrow.Table", column: str, wanted: str) -> None:  # type: ignore[name-defined]  # noqa: F821
    import pyarrow.types as kinds

    found = table[column]
    fits = {
        "bytes": kinds.is_binary(found.type) or kinds.is_fixed_size_binary(found.type),
        "integers": kinds.is_integer(found.type),
    }
    if not fits[wanted]:
        raise ConfigurationError(f"{path}: column {column!r} holds {found.type}; it must hold {wanted}")
    if found.null_count:
        raise ConfigurationError(f"{path}: column {column!r} has {found.null_count} nulls; it must have none")
