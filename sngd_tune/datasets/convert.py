"""Original files to Parquet: all are read and checked before the first file is written."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from sngd_tune.datasets.catalogue import DataSet, Part, find_set
from sngd_tune.datasets.checksums import difference
from sngd_tune.datasets.originals import Content, read_originals
from sngd_tune.datasets.write import refuse_existing, write_table
from sngd_tune.errors import ConfigurationError

__all__ = ["Converted", "convert"]


@dataclass(frozen=True)
class Converted:
    """A file that was written; `strangers` says which of its originals are not the published ones, and how."""

    path: Path
    rows: int
    strangers: tuple[str, ...]


def convert(name: str, source: Path, data_dir: Path, *, strict: bool = False, force: bool = False) -> list[Converted]:
    """Convert the original files of a set to ``<data_dir>/<name>/<split>.parquet``.

    Args:
        name: of the set, in `SETS`.
        source: folder or tar archive of the original files.
        data_dir: made where it does not exist.
        strict: refuse files whose checksum is not the published one.
        force: replace files that are there.

    Raises:
        ConfigurationError: there is no such set, a file to write exists, or an original is missing, damaged, of another
            kind or, if `strict`, not the published one. Nothing has been written.
        SngdTuneError: a file cannot be written.
    """
    dataset = find_set(name)
    paths = [part.path(data_dir, name) for part in dataset.parts]
    if not force:
        for path in paths:
            refuse_existing(path)
    found = read_originals(source, [file for part in dataset.parts for file in part.originals])
    tables = [_table(name, dataset, part, found) for part in dataset.parts]
    strangers = [_strangers(part, found) for part in dataset.parts]
    if strict and any(strangers):
        raise ConfigurationError(
            "\n".join(f"{text}; fetch it, or leave out --strict" for part in strangers for text in part)
        )
    for path, table in zip(paths, tables, strict=True):
        write_table(path, table)
    return [Converted(p, t.num_rows, s) for p, t, s in zip(paths, tables, strangers, strict=True)]


def _strangers(part: Part, found: Mapping[str, Content]) -> tuple[str, ...]:
    differences = {found[name].where: difference(found[name].data, known) for name, known in part.originals.items()}
    return tuple(f"{where}: {text}" for where, text in differences.items() if text)


def _table(name: str, dataset: DataSet, part: Part, found: Mapping[str, Content]) -> pa.Table:
    """The table of one split, with what is known of it as metadata of its schema."""
    files = [found[file] for file in part.originals]
    table = dataset.layout.read(files)
    metadata = {
        "name": name,
        "split": part.split,
        "rows": str(table.num_rows),
        **dataset.layout.facts(),
        "source_repository": dataset.published,
        "source_file": ", ".join(part.originals),
        "licence": dataset.licence,
        **dataset.layout.source_checksums(files),
        **dataset.layout.checksums(table),
    }
    return table.replace_schema_metadata(metadata)
