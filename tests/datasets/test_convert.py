"""From original files to what the workloads read, and to what `--check` says of it."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sngd_tune.datasets.catalogue import SETS, find_set, list_files
from sngd_tune.datasets.check import check_files
from sngd_tune.datasets.convert import convert
from sngd_tune.datasets.write import write_table
from sngd_tune.errors import ConfigurationError, SngdTuneError
from sngd_tune.workloads.housing_mlp import HousingMlp
from sngd_tune.workloads.images import read_images
from sngd_tune.workloads.language import read_lines
from tests.datasets.files import HOUSING, mnist, put

#: Sets whose published files can be made again from the Parquet files at hand.
AT_HAND = sorted(set(SETS) - {"cifar10"})


def metadata(path: Path) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in pq.read_schema(path).metadata.items()}


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return put(tmp_path / "source", mnist())


@pytest.fixture
def converted(tmp_path: Path, source: Path) -> Path:
    convert("mnist", source, tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_reader_gets_the_pixels_and_the_metadata_says_what_they_are(tmp_path: Path, name: str) -> None:
    files = mnist()
    first, second = convert(name, put(tmp_path / "source", files, packed=True), tmp_path)
    assert (first.path, first.rows) == (tmp_path / name / "train.parquet", 3)
    assert (second.path, second.rows) == (tmp_path / name / "test.parquet", 3)
    inputs, labels = read_images(tmp_path, name, "train", 784)
    pixels = files["train-images-idx3-ubyte"][16:]
    assert (inputs * 255).round().astype(np.uint8).tobytes() == pixels
    assert labels.astype(np.uint8).tobytes() == files["train-labels-idx1-ubyte"][8:]
    facts = metadata(first.path)
    assert (facts["name"], facts["split"], facts["rows"]) == (name, "train", "3")
    assert (facts["channels"], facts["height"], facts["width"]) == ("1", "28", "28")
    assert len(json.loads(facts["class_names"])) == int(facts["num_classes"]) == 10
    assert facts["sha256_pixels"] == hashlib.sha256(pixels).hexdigest()
    assert facts["sha256_source"] == hashlib.sha256(files["train-images-idx3-ubyte"]).hexdigest()
    assert facts["md5_source_labels"] == hashlib.md5(files["train-labels-idx1-ubyte"]).hexdigest()


def test_texts_and_houses_load(tmp_path: Path) -> None:
    put(tmp_path / "source", {f"ptb.{split}.txt": f" the {split} \n".encode() for split in ("train", "valid", "test")})
    put(tmp_path / "source", {"input.txt": b"To be\n\nor not\n"})
    put(tmp_path / "source", {"housing.csv": (HOUSING + HOUSING.partition("\n")[2] * 9).encode()})
    for name in ("ptb", "tiny_shakespeare", "california_housing"):
        convert(name, tmp_path / "source", tmp_path)
    assert read_lines(tmp_path, "ptb", "valid")[1] == [" the valid "]
    assert read_lines(tmp_path, "tiny_shakespeare", "all")[1] == ["To be", "", "or not"]
    assert HousingMlp().load(tmp_path).train.inputs.shape == (16, 13)
    assert {finding.status for finding in check_files(tmp_path)} == {"not published"}


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", AT_HAND)
def test_published_files_become_the_parquet_files_at_hand(tmp_path: Path, name: str) -> None:
    """The originals are made again by `rebuild`; their published checksums, which `strict` asks, vouch for that."""
    shared, dataset = Path(os.environ["SNGD_TUNE_DATA"]), SETS[name]
    for part in dataset.parts:
        files = dataset.layout.rebuild(pq.read_table(part.path(shared, name)), len(part.originals))
        put(tmp_path / "source", dict(zip(part.originals, files, strict=True)))
    written = convert(name, tmp_path / "source", tmp_path, strict=True)
    for file, part in zip(written, dataset.parts, strict=True):
        theirs = part.path(shared, name)
        assert (file.rows, file.strangers) == (part.rows, ())
        assert pq.read_table(file.path).equals(pq.read_table(theirs))
        assert pq.read_schema(file.path).equals(pq.read_schema(theirs))
        ours, given = metadata(file.path), metadata(theirs)
        same = {"name", "split", "rows", "sha256_source", "md5_source"} | {key for key in given if "sha256_" in key}
        assert {key: ours[key] for key in same} == {key: given[key] for key in same}
    for folder in (tmp_path, shared):
        assert {finding.status for finding in check_files(folder, name)} == {"published"}


def test_strangers_are_named_with_both_checksums_and_refused_if_strict(tmp_path: Path, source: Path) -> None:
    path = source / "train-images-idx3-ubyte"
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    text = (
        f"{path}: not the published file: has the sha256 {found}, the published one "
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
    )
    with pytest.raises(ConfigurationError) as caught:
        convert("mnist", source, tmp_path / "data", strict=True)
    assert f"{text}; fetch it, or leave out --strict" in str(caught.value).splitlines()
    assert not (tmp_path / "data").exists()
    train, test = convert("mnist", source, tmp_path / "data")
    assert train.strangers[0] == text
    assert len(train.strangers) == len(test.strangers) == 2


def test_what_is_there_stays_unless_forced(tmp_path: Path, source: Path, converted: Path) -> None:
    before = contents(converted)
    (converted / "mnist" / "train.parquet").unlink()
    with pytest.raises(ConfigurationError, match=r"mnist/test\.parquet: exists already; nothing was written: --force"):
        convert("mnist", source, converted)
    assert not (converted / "mnist" / "train.parquet").exists()
    convert("mnist", put(tmp_path / "other", mnist(seed=1)), converted, force=True)
    after = contents(converted)
    assert after.keys() == before.keys()
    assert all(after[path] != before[path] for path in before)


def test_one_bad_file_and_nothing_is_written(tmp_path: Path, source: Path) -> None:
    path = source / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigurationError, match="t10k-labels-idx1-ubyte: has 10 bytes; 3 elements and the header"):
        convert("mnist", source, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path, source: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(SngdTuneError, match=r"mnist/train\.parquet: cannot be written \(Not a directory\)"):
        convert("mnist", source, tmp_path / "data")


def test_a_write_that_fails_leaves_what_was_there(converted: Path) -> None:
    path = converted / "mnist" / "train.parquet"
    table = pq.read_table(path)
    path.unlink()
    path.mkdir()  # no file takes its place
    (path / "kept").write_bytes(b"kept")
    before = contents(converted)
    with pytest.raises(SngdTuneError, match=r"train\.parquet: cannot be written \(Is a directory\); free space or fix"):
        write_table(path, table)
    assert contents(converted) == before  # no half-written file beside it either
    train, _ = check_files(converted)
    assert train.status == "damaged"


def test_an_unknown_set(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match="minst: no such data set; must be one of mnist, fashion_mnist, cifar10"
    ):
        convert("minst", tmp_path, tmp_path)


def test_checking_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="has no file of mnist; is the data directory right"):
        check_files(tmp_path, "mnist")


def test_check_tells_not_published_from_damaged(converted: Path) -> None:
    path = converted / "mnist" / "train.parquet"
    assert {finding.status for finding in check_files(converted)} == {"not published"}
    table = pq.read_table(path)
    labels = pa.array([(label + 1) % 10 for label in table["label"].to_pylist()], pa.int8())
    pq.write_table(table.set_column(1, table.schema.field("label"), labels), path)
    train, test = check_files(converted)
    assert (train.file, train.rows, train.status, test.status) == ("mnist/train.parquet", 3, "damaged", "not published")
    assert train.detail.startswith("sha256_labels is ")
    assert "sha256_pixels" not in train.detail


@pytest.mark.parametrize("size", [0, 4, 200, -1])
def test_check_finds_a_file_that_is_cut_off(converted: Path, size: int) -> None:
    path = converted / "mnist" / "train.parquet"
    path.write_bytes(path.read_bytes()[:size])
    train, _ = check_files(converted)
    assert (train.rows, train.status) == (None, "damaged")
    assert train.detail.startswith("cannot be read as Parquet (")


@pytest.mark.parametrize(
    "columns",
    [
        {"label": pa.array([1], pa.int8())},
        {"image": pa.array([bytes(783)], pa.binary(783)), "label": pa.array([1], pa.int8())},
        {"image": pa.array([None], pa.binary(784)), "label": pa.array([1], pa.int8())},
        {"image": pa.array([bytes(784)], pa.binary(784)), "label": pa.array([300])},
    ],
    ids=["column", "size", "null", "label"],
)
def test_check_finds_another_layout(converted: Path, columns: dict[str, pa.Array]) -> None:
    pq.write_table(pa.table(columns), converted / "mnist" / "train.parquet")
    train, _ = check_files(converted)
    assert (train.rows, train.status) == (1, "damaged")
    assert "it must have image (fixed_size_binary[784]), label (int8)" in train.detail


def test_check_says_when_a_file_carries_no_checksum(converted: Path) -> None:
    path = converted / "mnist" / "train.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    train, _ = check_files(converted)
    assert train.status == "not published"
    assert train.detail.endswith("metadata has no sha256_pixels; metadata has no sha256_labels")


def test_the_catalogue_has_each_file_once_with_a_checksum_of_its_kind(tmp_path: Path) -> None:
    rows = list(list_files(tmp_path))
    assert len({row["file"] for row in rows}) == len(rows) == sum(len(dataset.parts) for dataset in SETS.values())
    lengths = {"sha256": 64, "md5": 32}
    for name in SETS:
        for part in find_set(name).parts:
            for published in part.originals.values():
                kind, _, digest = published.partition(":")
                assert len(bytes.fromhex(digest)) * 2 == lengths[kind]
