"""Tables from a data directory of Parquet files, read by pyarrow.

Layout: ``<data_dir>/<set>/<split>.parquet``. What is missing or of another kind is said with the file, before training.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sngd_tune.errors import ConfigurationError, MissingDependencyError

__all__ = ["read_table"]


def read_table(
    data_dir: Path | None, name: str, split: str, columns: Mapping[str, str], nullable: Collection[str] = ()
) -> tuple[Path, Any]:
    """Some columns of one file.

    Args:
        data_dir: the user's data directory.
        name: folder of the set, such as ``"mnist"``.
        split: ``"train"``, ``"test"`` or whatever the set has.
        columns: their names, each with what it must hold: ``"bytes"``, ``"integers"``, ``"numbers"`` or ``"text"``.
        nullable: those that may have nulls.

    Returns:
        the file, for messages, and the columns as a `pyarrow.Table` of at least one row.

    Raises:
        ConfigurationError: no directory was named, the file or a column is missing, or a column holds something else.
    """
    if data_dir is None:
        remedy = "name it with --data-dir, SNGD_TUNE_DATA or data_dir in the study file"
        raise ConfigurationError(f"{name}: needs a data directory; {remedy}")
    path = Path(data_dir) / name / f"{split}.parquet"
    table = _read(path, columns)
    for column, kind in columns.items():
        _check_column(path, table[column], column, kind, nullable)
    if not table.num_rows:
        raise ConfigurationError(f"{path}: has no rows; it must have at least one")
    return path, table


def _read(path: Path, columns: Mapping[str, str]) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependencyError("reading Parquet needs pyarrow: pip install 'sngd_tune[tune]'") from error
    try:
        file = pq.ParquetFile(path)
        for column in columns:
            if column not in file.schema_arrow.names:
                known = ", ".join(file.schema_arrow.names)
                raise ConfigurationError(f"{path}: has no column {column!r}; it has {known}")
        return file.read(list(columns))
    except FileNotFoundError as error:
        wanted = ", ".join(f"{column} ({kind})" for column, kind in columns.items())
        message = f"{path}: not found; is the data directory right? The file must have the columns {wanted}"
        raise ConfigurationError(f"{message}; `sngd-tune data --list` says where it comes from") from error
    except (pa.ArrowException, OSError) as error:
        raise ConfigurationError(f"{path}: cannot be read as Parquet ({error})") from error


def _check_column(path: Path, found: Any, column: str, wanted: str, nullable: Collection[str]) -> None:
    import pyarrow.types as kinds

    fits = {
        "bytes": kinds.is_binary(found.type) or kinds.is_fixed_size_binary(found.type),
        "integers": kinds.is_integer(found.type),
        "numbers": kinds.is_integer(found.type) or kinds.is_floating(found.type),
        "text": kinds.is_string(found.type) or kinds.is_large_string(found.type),
    }
    if not fits[wanted]:
        raise ConfigurationError(f"{path}: column {column!r} holds {found.type}; it must hold {wanted}")
    if found.null_count and column not in nullable:
        raise ConfigurationError(f"{path}: column {column!r} has {found.null_count} nulls; it must have none")
