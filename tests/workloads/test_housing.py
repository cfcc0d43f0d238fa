"""House values: what fills the gaps, what is left as it is, and what a wrong file is told."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sngd_tune.errors import ConfigurationError
from sngd_tune.workloads.housing_mlp import HousingMlp

NUMBERS = (
    *("longitude", "latitude", "housing_median_age", "total_rooms", "total_bedrooms"),
    *("population", "households", "median_income", "median_house_value"),
)


def write(folder: Path, **changes: Any) -> None:
    rows = 40
    columns: dict[str, Any] = {name: 1000.0 * i + np.arange(rows) for i, name in enumerate(NUMBERS)}
    columns["ocean_proximity"] = ["INLAND", "NEAR BAY"] * (rows // 2)
    (folder / "california_housing").mkdir(exist_ok=True)
    table = pa.table({name: pa.array(column) for name, column in (columns | changes).items() if column is not None})
    pq.write_table(table, folder / "california_housing" / "all.parquet")


def test_features_keep_their_scale_and_gaps_get_the_median_of_training(tmp_path: Path) -> None:
    bedrooms: list[float | None] = [float(i) for i in range(40)]
    for gap in range(0, 40, 4):
        bedrooms[gap] = None
    write(tmp_path, total_bedrooms=bedrooms)
    splits = HousingMlp().load(tmp_path)
    parts = (splits.train, splits.validation, splits.test)
    assert [part.inputs.shape for part in parts] == [(32, 13), (4, 13), (4, 13)]
    row = splits.train.inputs[:, 0].astype(int)  # the longitude numbers the rows
    np.testing.assert_array_equal(splits.train.inputs[:, 3], 3000 + row)
    median = np.median([bedrooms[i] for i in row if bedrooms[i] is not None])
    for part in parts:
        row = part.inputs[:, 0].astype(int)
        np.testing.assert_array_equal(part.inputs[:, 4], [median if i % 4 == 0 else i for i in row])
        np.testing.assert_array_equal(part.inputs[:, 8:].argmax(1), np.where(row % 2, 3, 1))
        np.testing.assert_allclose(part.targets[:, 0], (8000 + row) / 100_000, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"households": None}, "has no column 'households'; it has longitude"),
        ({"households": ["1"] * 40}, "column 'households' holds string; it must hold numbers"),
        ({"households": [None, *[1.0] * 39]}, "column 'households' has 1 nulls; it must have none"),
        ({"households": [np.inf, *[1.0] * 39]}, "column 'households' has NaN or infinite values; all must be finite"),
        ({"total_bedrooms": [np.nan, *[1.0] * 39]}, "column 'total_bedrooms' has NaN or infinite values"),
        ({"ocean_proximity": ["LAKE"] * 40}, "ocean_proximity has 'LAKE'; it must be one of <1H OCEAN, INLAND"),
    ],
)
def test_a_wrong_file(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write(tmp_path, **changes)
    with pytest.raises(ConfigurationError, match=rf"california_housing/all\.parquet: {message}"):
        HousingMlp().load(tmp_path)


def test_all_bedrooms_missing(tmp_path: Path) -> None:
    write(tmp_path, total_bedrooms=pa.array([None] * 40, pa.float64()))
    with pytest.raises(ConfigurationError, match="column 'total_bedrooms' has no value among the training rows"):
        HousingMlp().load(tmp_path)


def test_few_rows(tmp_path: Path) -> None:
    write(tmp_path, **{name: [1.0, 2.0] for name in NUMBERS}, ocean_proximity=["INLAND"] * 2)
    with pytest.raises(ConfigurationError, match="has 2 rows; it must have at least 10"):
        HousingMlp().load(tmp_path)
