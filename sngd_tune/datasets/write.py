"""Parquet files that are there whole or not at all."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sngd_tune.atomic import replacing
from sngd_tune.errors import ConfigurationError, SngdTuneError

__all__ = ["refuse_existing", "write_table"]

_ROWS_PER_GROUP = 10_000


def refuse_existing(path: Path) -> None:
    """Raises ConfigurationError where there is a file already."""
    if path.exists():
        raise ConfigurationError(f"{path}: exists already; nothing was written: --force replaces it")


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table, and its folder where there is none, in one step that a crash cannot halve.

    Raises:
        SngdTuneError: it cannot be written; what was there before is untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            pq.write_table(table, file, compression="zstd", row_group_size=_ROWS_PER_GROUP)
    except OSError as error:
        reason = error.strerror or error
        raise SngdTuneError(f"{path}: cannot be written ({reason}); free space or fix the permissions") from error
