"""IDX files: what is read is what was written, and what is no such file is refused with its name."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sngd_tune.datasets.idx import IdxImages
from sngd_tune.errors import ConfigurationError
from tests.datasets.files import contents, idx_images, idx_labels

LAYOUT = IdxImages([str(digit) for digit in range(10)])
COUNTS = st.integers(1, 5)
IMAGES = idx_images(np.arange(3 * 784, dtype=np.uint8).reshape(3, 28, 28))
LABELS = idx_labels(np.array([7, 0, 9], np.uint8))


@given(data=st.data(), count=COUNTS)
def test_round_trip(data: st.DataObject, count: int) -> None:
    images = data.draw(arrays(np.uint8, (count, 28, 28)))
    labels = data.draw(arrays(np.uint8, count, elements=st.integers(0, 9)))
    files = [idx_images(images), idx_labels(labels)]
    table = LAYOUT.read(contents(*files))
    assert table.schema.equals(LAYOUT.schema)
    assert table["image"].to_pylist() == [image.tobytes() for image in images]
    assert table["label"].to_pylist() == labels.tolist()
    assert LAYOUT.rebuild(table, 2) == files


@given(size=st.integers(0, len(IMAGES) - 1))
def test_images_cut_off_anywhere_are_refused(size: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"^a: has {size} bytes; .*fetch it again"):
        LAYOUT.read(contents(IMAGES[:size], LABELS))


@given(size=st.integers(0, len(LABELS) - 1))
def test_labels_cut_off_anywhere_are_refused(size: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"^b: has {size} bytes; .*fetch it again"):
        LAYOUT.read(contents(IMAGES, LABELS[:size]))


@given(content=st.binary(max_size=40))
def test_other_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(ConfigurationError, match=r"^a: "):
        LAYOUT.read(contents(content, LABELS))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (LABELS, IMAGES, r"a: begins with 0x00000801; it must begin with 0x00000803 \(IDX, unsigned bytes, dim"),
        (b"\x1f\x8b" + IMAGES, LABELS, "a: begins with 0x1f8b0000; it must begin with 0x00000803"),
        (IMAGES, IMAGES, "b: begins with 0x00000803; it must begin with 0x00000801"),
        (IMAGES + b"\0", LABELS, "a: has 2369 bytes; 3 × 28 × 28 elements and the header make 2368"),
        (IMAGES, LABELS[:-1], "b: has 10 bytes; 3 elements and the header make 11: it is cut off"),
        (IMAGES, idx_labels(np.zeros(2, np.uint8)), "a: has 3 images, and b has 2 labels; there must be a label for"),
        (IMAGES, idx_labels(np.array([1, 10, 2], np.uint8)), "b: has the label 10; labels must be from 0 to 9"),
        (idx_images(np.zeros((3, 32, 32), np.uint8)), LABELS, "a: has images of 32 × 32; they must be 28 × 28"),
        (struct.pack(">IIII", 2051, 0, 28, 28), LABELS, "a: has no elements; it must have at least one"),
    ],
    ids=["swapped", "packed", "twice", "too long", "cut", "counts", "label", "sides", "empty"],
)
def test_other_files(images: bytes, labels: bytes, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{message}"):
        LAYOUT.read(contents(images, labels))


def test_lengths_beyond_memory_are_only_compared() -> None:
    with pytest.raises(ConfigurationError, match=r"4294967295 × 4294967295 × 4294967295 elements"):
        LAYOUT.read(contents(struct.pack(">IIII", 2051, *[2**32 - 1] * 3), LABELS))
