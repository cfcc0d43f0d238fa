"""Texts and tables: every line and every number comes back, and damage is refused with the file's name."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sngd_tune.datasets.housing import HousingCsv
from sngd_tune.datasets.text import TextLines
from sngd_tune.errors import ConfigurationError
from tests.datasets.files import HOUSING, contents

TEXT, TABLE = TextLines(), HousingCsv()
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(text=st.text())
def test_a_text_comes_back_byte_for_byte(text: str) -> None:
    content = f"{text}\n".encode()
    table = TEXT.read(contents(content))
    assert TEXT.rebuild(table, 1) == [content]
    assert table.num_rows == text.count("\n") + 1


def test_only_a_newline_ends_a_line_and_blanks_stay() -> None:
    table = TEXT.read(contents(b" a b \n\nc\rd\x0ce\r\n"))
    assert table["text"].to_pylist() == [" a b ", "", "c\rd\x0ce\r"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a: is empty; its last line must"),
        (b"one\ntw", "a: does not end with a newline; its last line must: it is cut off"),
        (b"one\n\xfftwo\n", r"a: is not UTF-8 text \(invalid start byte at byte 4\); it must be"),
        ("né\n".encode("utf-16"), "a: is not UTF-8 text"),
    ],
    ids=["empty", "cut", "bytes", "utf-16"],
)
def test_a_damaged_text(content: bytes, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{message}"):
        TEXT.read(contents(content))


@given(value=FINITE, rooms=st.none() | FINITE, word=st.text(st.characters(codec="ascii", categories="L"), min_size=1))
def test_a_number_comes_back_as_it_was(value: float, rooms: float | None, word: str) -> None:
    cells = [repr(value)] * 4 + ["" if rooms is None else repr(rooms)] + [repr(value)] * 4 + [word]
    content = f"{HOUSING.splitlines()[0]}\n{','.join(cells)}\n".encode()
    table = TABLE.read(contents(content))
    assert table.schema.equals(TABLE.schema)
    assert table["total_bedrooms"].to_pylist() == [rooms]
    assert math.copysign(1, table["longitude"][0].as_py()) == math.copysign(1, value)
    assert table["longitude"].to_pylist() == [value]
    assert TABLE.rebuild(table, 1) == [content]


def test_columns_get_their_order_and_whole_numbers_their_type() -> None:
    lines = [line.split(",") for line in HOUSING.replace(".0,", ",").splitlines()]
    turned = "".join(",".join(reversed(cells)) + "\n" for cells in lines)
    assert TABLE.read(contents(turned.encode())).equals(TABLE.read(contents(HOUSING.encode())))


HEADER, FIRST, SECOND = HOUSING.splitlines(keepends=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"a: cannot be read as comma-separated values \(.*[Ee]mpty"),
        (HEADER, "a: has no rows below its header; it must have at least one"),
        (HOUSING.replace("households", "homes"), "a: has the columns longitude, .*homes.*; it must have longitude, "),
        (
            "".join(line.rstrip("\n").rpartition(",")[0] + "\n" for line in HOUSING.splitlines()),
            "a: has the columns .*; it must have .*ocean_proximity, each once",
        ),
        (HOUSING.replace("latitude", "longitude"), "a: has the columns longitude, longitude, .*each once"),
        (HEADER + FIRST.replace("880.0", "many"), r"a: cannot be read .*\(.*[Rr]ow #2.*'many'"),
        (HEADER + FIRST.replace("880.0,", ""), r"a: cannot be read .*\(.*Expected 10 columns, got 9"),
        (HEADER + FIRST.replace("322.0", ""), "a: column 'population' has 1 empty cells; only 'total_bedrooms' may"),
        (HEADER + FIRST.replace("NEAR BAY", ""), "a: column 'ocean_proximity' has 1 empty cells"),
        (HEADER + FIRST.replace("322.0", "nan"), "a: column 'population' has NaN or infinite values"),
        (HEADER + FIRST.replace("129.0", "-inf"), "a: column 'total_bedrooms' has NaN or infinite values"),
    ],
    ids=["empty", "header", "renamed", "missing", "twice", "word", "short", "gap", "no word", "nan", "infinite"],
)
def test_a_damaged_table(content: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{message}"):
        TABLE.read(contents(content.encode()))


def test_a_table_that_is_no_text() -> None:
    with pytest.raises(ConfigurationError, match=r"^a: cannot be read as comma-separated values"):
        TABLE.read(contents(HOUSING.encode().replace(b"NEAR", b"\xff\xfe")))
