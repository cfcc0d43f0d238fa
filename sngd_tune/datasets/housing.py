"""California housing as comma-separated values: a header with the ten names, then a district a line."""

import csv
import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv

from sngd_tune.datasets.checksums import sha256
from sngd_tune.datasets.layout import Layout
from sngd_tune.datasets.originals import Content
from sngd_tune.errors import ConfigurationError

__all__ = ["HousingCsv"]

_NUMBERS = (
    *("longitude", "latitude", "housing_median_age", "total_rooms", "total_bedrooms"),
    *("population", "households", "median_income", "median_house_value"),
)
_MAY_BE_EMPTY = "total_bedrooms"


class HousingCsv(Layout):
    """Nine columns of numbers, one of words. Empty cells are nulls; only `total_bedrooms` may have some."""

    schema = pa.schema([*((name, pa.float64()) for name in _NUMBERS), ("ocean_proximity", pa.string())])

    def read(self, files: Sequence[Content]) -> pa.Table:
        (file,) = files
        table = _parse(file, self.schema)
        if sorted(table.column_names) != sorted(self.schema.names):
            message = f"{file.where}: has the columns {', '.join(table.column_names)}"
            raise ConfigurationError(f"{message}; it must have {', '.join(self.schema.names)}, each once")
        if not table.num_rows:
            raise ConfigurationError(f"{file.where}: has no rows below its header; it must have at least one")
        for name in self.schema.names:
            _check(file.where, name, table[name])
        return table.select(self.schema.names).cast(self.schema)

    def rebuild(self, table: pa.Table, count: int) -> list[bytes]:
        """Numbers in the shortest form that reads back as the same, as the published file has them."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(table.column_names)
        writer.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))
        return [text.getvalue().encode("utf-8")]

    def checksums(self, table: pa.Table) -> dict[str, str]:
        (content,) = self.rebuild(table, 1)
        return {"sha256_values": sha256(content)}

    def facts(self) -> dict[str, str]:
        note = "of the rows as comma-separated values, numbers in their shortest form"
        return {"target": "median_house_value", "sha256_values_note": note}


def _parse(file: Content, schema: pa.Schema) -> pa.Table:
    one_thread = pv.ReadOptions(use_threads=False)  # so that messages have the row
    empty_is_null = pv.ConvertOptions(column_types=schema, null_values=[""], strings_can_be_null=True)
    try:
        return pv.read_csv(io.BytesIO(file.data), read_options=one_thread, convert_options=empty_is_null)
    except pa.ArrowException as error:
        raise ConfigurationError(f"{file.where}: cannot be read as comma-separated values ({error})") from error


def _check(where: str, name: str, column: pa.ChunkedArray) -> None:
    if column.null_count and name != _MAY_BE_EMPTY:
        message = f"{where}: column {name!r} has {column.null_count} empty cells"
        raise ConfigurationError(f"{message}; only {_MAY_BE_EMPTY!r} may have some")
    if pa.types.is_floating(column.type) and pc.any(pc.invert(pc.is_finite(column))).as_py():
        raise ConfigurationError(f"{where}: column {name!r} has NaN or infinite values; all must be finite")
