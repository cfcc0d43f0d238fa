"""CIFAR-10's binary batches, from the records to the workload that reads them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sngd_tune.datasets.cifar import CifarBatches
from sngd_tune.datasets.convert import convert
from sngd_tune.errors import ConfigurationError
from sngd_tune.workloads.cifar10_resnet import Cifar10Resnet
from sngd_tune.workloads.images import read_pixels
from tests.datasets.files import cifar, cifar10, contents, pack, put

LAYOUT = CifarBatches([str(number) for number in range(10)])


@given(data=st.data(), count=st.integers(1, 3))
def test_round_trip(data: st.DataObject, count: int) -> None:
    batches = []
    for _ in range(2):
        pixels = data.draw(arrays(np.uint8, (count, 3, 32, 32), fill=st.integers(0, 255)))
        batches.append(cifar(pixels, data.draw(arrays(np.uint8, count, elements=st.integers(0, 9)))))
    table = LAYOUT.read(contents(*batches))
    assert table.schema.equals(LAYOUT.schema)
    assert table.num_rows == 2 * count
    assert table["label"].to_pylist() == [record for batch in batches for record in batch[::3073]]
    assert LAYOUT.rebuild(table, 2) == batches


@pytest.mark.parametrize("size", [0, 1, 3072, 3074, 2 * 3073 - 1])
def test_a_batch_that_is_cut_off(size: int) -> None:
    with pytest.raises(ConfigurationError, match=f"^b: has {size} bytes; it must have 3073 for each image"):
        LAYOUT.read(contents(bytes(3073), bytes(size)))


def test_a_label_out_of_range_names_its_batch() -> None:
    with pytest.raises(ConfigurationError, match=r"^b: has the label 10; labels must be from 0 to 9"):
        LAYOUT.read(contents(bytes(3073), bytes([10]) + bytes(3072)))


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_the_reader_finds_the_pixels_by_channel(tmp_path: Path, packed: bool) -> None:
    files = cifar10(count=2)
    source = pack(tmp_path / "cifar-10-binary.tar.gz", files) if packed else put(tmp_path / "source", files)
    written = convert("cifar10", source, tmp_path / "data")
    assert [(file.path.name, file.rows) for file in written] == [("train.parquet", 10), ("test.parquet", 2)]
    pixels, labels = read_pixels(tmp_path / "data", "cifar10", "train", 32)
    records = np.frombuffer(b"".join(files[f"data_batch_{i}.bin"] for i in range(1, 6)), np.uint8).reshape(10, 3073)
    np.testing.assert_array_equal(labels, records[:, 0])
    np.testing.assert_array_equal(pixels, records[:, 1:].reshape(10, 3, 32, 32))
    assert pixels.flags.writeable  # torch warns of arrays that are not


def test_images_of_another_size_are_refused_by_the_reader(tmp_path: Path) -> None:
    convert("cifar10", put(tmp_path / "source", cifar10(count=1)), tmp_path)
    with pytest.raises(
        ConfigurationError, match=r"cifar10/test\.parquet: holds images of 3072 bytes; each must have 192"
    ):
        read_pixels(tmp_path, "cifar10", "test", 8)


def test_the_workload_prefers_the_lossless_copy(tmp_path: Path) -> None:
    (tmp_path / "cifar10_jpeg").mkdir()  # which it would otherwise find empty
    files = cifar10(count=1001)
    convert("cifar10", put(tmp_path / "source", files), tmp_path)
    splits = Cifar10Resnet().load(tmp_path)
    assert [len(split) for split in (splits.train, splits.validation, splits.test)] == [5, 5000, 1001]
    assert splits.train.inputs[0].tobytes() == files["data_batch_1.bin"][1:3073]
    assert splits.test.targets.tolist() == list(files["test_batch.bin"][::3073])


@pytest.mark.parametrize(
    ("folders", "wanted"),
    [
        ([], "cifar10"),
        (["cifar10"], "cifar10"),
        (["cifar10_jpeg"], "cifar10_jpeg"),
        (["cifar10", "cifar10_jpeg"], "cifar10"),
    ],
)
def test_both_splits_come_from_one_copy(tmp_path: Path, folders: list[str], wanted: str) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir()
    with pytest.raises(ConfigurationError, match=f"/{wanted}/train.parquet: not found"):
        Cifar10Resnet().load(tmp_path)


def test_too_few_images_to_validate_on(tmp_path: Path) -> None:
    convert("cifar10", put(tmp_path / "source", cifar10(count=1)), tmp_path)
    with pytest.raises(ConfigurationError, match=r"cifar10/train\.parquet: has 5 images; it must have more than 5000"):
        Cifar10Resnet().load(tmp_path)


def test_no_directory_named() -> None:
    with pytest.raises(ConfigurationError, match="cifar10: needs a data directory"):
        Cifar10Resnet().load(None)
