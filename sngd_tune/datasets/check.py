"""Parquet files of a data directory against their own checksums and those of the published files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from sngd_tune.datasets.catalogue import DataSet, Part, select_sets
from sngd_tune.datasets.checksums import difference
from sngd_tune.datasets.layout import Layout
from sngd_tune.errors import ConfigurationError

__all__ = ["Finding", "check_files"]

_Status = Literal["published", "not published", "damaged"]


@dataclass(frozen=True)
class Finding:
    """What one file is: `rows` is None where it cannot be read, `detail` is empty where it is the published one."""

    file: str
    rows: int | None
    status: _Status
    detail: str = ""


def check_files(data_dir: Path, name: str | None = None) -> list[Finding]:
    """A finding for each file that is there, of one set or of all.

    Raises:
        ConfigurationError: there is no such set, or none of its files is there.
    """
    wanted = [(title, dataset, part) for title, dataset in select_sets(name).items() for part in dataset.parts]
    there = [(path, dataset, part) for title, dataset, part in wanted if (path := part.path(data_dir, title)).exists()]
    if not there:
        sets = ", ".join(select_sets(name))
        raise ConfigurationError(f"{data_dir}: has no file of {sets}; is the data directory right?")
    return [_check(path, dataset, part) for path, dataset, part in there]


def _check(path: Path, dataset: DataSet, part: Part) -> Finding:
    file = f"{path.parent.name}/{path.name}"
    try:
        stored = pq.ParquetFile(path).read()
        stored.validate(full=True)  # such as text that is none
    except (pa.ArrowException, OSError) as error:
        return Finding(file, None, "damaged", f"cannot be read as Parquet ({error})")
    try:
        table = stored.select(dataset.layout.schema.names).cast(dataset.layout.schema)
    except (KeyError, ValueError, pa.ArrowException):
        found, wanted = (_columns(schema) for schema in (stored.schema, dataset.layout.schema))
        return Finding(file, stored.num_rows, "damaged", f"has the columns {found}; it must have {wanted}")
    return Finding(file, table.num_rows, *_compare(dataset.layout, part, table, stored.schema.metadata or {}))


def _compare(layout: Layout, part: Part, table: pa.Table, metadata: dict[bytes, bytes]) -> tuple[_Status, str]:
    recorded = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in metadata.items()}
    checksums = layout.checksums(table)
    wrong = {key: found for key, found in checksums.items() if recorded.get(key, found) != found}
    if wrong:
        return "damaged", "; ".join(
            f"{key} is {found}, its metadata says {recorded[key]}" for key, found in wrong.items()
        )
    rebuilt = zip(part.originals.items(), layout.rebuild(table, len(part.originals)), strict=True)
    strangers = [f"{name}: {text}" for (name, known), content in rebuilt if (text := difference(content, known))]
    unknown = [f"metadata has no {key}" for key in checksums if key not in recorded]
    return ("not published", "; ".join([*strangers, *unknown])) if strangers else ("published", "")


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{column.name} ({column.type})" for column in schema)
