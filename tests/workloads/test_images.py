"""Reading images: what is wrong with a data directory is said, with the file, before anything starts."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sngd_tune.errors import ConfigurationError
from sngd_tune.workloads.images import image_splits, read_images, read_jpegs


def write(folder: Path, **columns: pa.Array) -> Path:
    path = folder / "mnist" / "train.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def images(count: int = 3, size: int = 4) -> pa.Array:
    return pa.array([bytes(range(i, i + size)) for i in range(count)], pa.binary(size))


def jpeg(side: int, colour: tuple[int, int, int] = (250, 5, 5)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(content, "JPEG")
    return content.getvalue()


LABELS = pa.array([0, 1, 2], pa.int8())


def test_pixels_come_as_shares_of_255(tmp_path: Path) -> None:
    write(tmp_path, image=pa.array([bytes([0, 51, 102, 255])], pa.binary(4)), label=pa.array([7], pa.int8()))
    inputs, labels = read_images(tmp_path, "mnist", "train", 4)
    np.testing.assert_allclose(inputs, [[0, 0.2, 0.4, 1]], rtol=1e-6)
    assert (inputs.dtype, labels.dtype, labels.tolist()) == (np.float32, np.int64, [7])


def test_columns_of_other_names_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path, note=pa.array(["a", "b", "c"]), label=LABELS, image=images())
    assert read_images(tmp_path, "mnist", "train", 4)[0].shape == (3, 4)


def test_no_directory_named() -> None:
    with pytest.raises(ConfigurationError, match="mnist: needs a data directory; name it with --data-dir"):
        read_images(None, "mnist", "train", 784)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"mnist/train\.parquet: not found; is the data directory right\?"):
        read_images(tmp_path, "mnist", "train", 784)


@pytest.mark.parametrize("missing", ["image", "label"])
def test_missing_column(tmp_path: Path, missing: str) -> None:
    columns = {"image": images(), "label": LABELS}
    write(tmp_path, **{"pixels" if name == missing else name: column for name, column in columns.items()})
    with pytest.raises(ConfigurationError, match=f"has no column '{missing}'; it has .*pixels"):
        read_images(tmp_path, "mnist", "train", 4)


def test_another_image_size(tmp_path: Path) -> None:
    write(tmp_path, image=images(), label=LABELS)
    with pytest.raises(ConfigurationError, match=r"mnist/train\.parquet: holds images of 4 bytes; each must have 784"):
        read_images(tmp_path, "mnist", "train", 784)


@pytest.mark.parametrize(
    "columns",
    [
        {"image": pa.array(["a", "b", "c"]), "label": LABELS},
        {"image": pa.array([1, 2, 3]), "label": LABELS},
        {"image": pa.array([b"abcd", None, b"abcd"]), "label": LABELS},
        {"image": images(), "label": pa.array(["one", "two", "three"])},
        {"image": images(), "label": pa.array([0, None, 2], pa.int8())},
        {"image": pa.array([], pa.binary(4)), "label": pa.array([], pa.int8())},
        {"image": pa.array([b"ab", b"abcdef", b"abcd"]), "label": LABELS},
    ],
    ids=["words as images", "numbers as images", "null image", "words as labels", "null label", "no rows", "uneven"],
)
def test_columns_of_another_kind(tmp_path: Path, columns: dict[str, pa.Array]) -> None:
    path = write(tmp_path, **columns)
    with pytest.raises(ConfigurationError) as caught:
        read_images(tmp_path, "mnist", "train", 4)
    assert "mnist/train.parquet" in str(caught.value), path


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "scrambled"])
def test_a_broken_file(tmp_path: Path, damage: str) -> None:
    path = write(tmp_path, image=images(), label=LABELS)
    content = bytearray(path.read_bytes())
    if damage == "empty":
        content.clear()
    elif damage == "text":
        content[:] = b"image,label\n"
    elif damage == "cut":
        del content[len(content) // 2 :]
    else:
        content[4:40] = b"\xff" * 36  # the data pages; the footer is whole
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="cannot be read as Parquet"):
        read_images(tmp_path, "mnist", "train", 4)


@pytest.mark.parametrize("label", [-1, 10])
def test_a_label_out_of_range(tmp_path: Path, label: int) -> None:
    write(tmp_path, image=images(), label=pa.array([0, label, 2], pa.int8()))
    with pytest.raises(ConfigurationError, match=r"mnist/train\.parquet: has labels from .*; they must be from 0 to 9"):
        read_images(tmp_path, "mnist", "train", 4)


def test_too_few_images_to_validate_on(tmp_path: Path) -> None:
    write(tmp_path, image=pa.array([bytes(784)] * 3), label=LABELS)
    with pytest.raises(ConfigurationError, match=r"mnist/train\.parquet: has 3 images; it must have more than 10000"):
        image_splits(tmp_path, "mnist")


def test_jpegs_are_decoded_by_channel(tmp_path: Path) -> None:
    write(tmp_path, image=pa.array([jpeg(8), jpeg(8, (0, 0, 255)), jpeg(8)]), label=LABELS)
    pixels, labels = read_jpegs(tmp_path, "mnist", "train", 8)
    assert (pixels.shape, pixels.dtype, labels.tolist()) == ((3, 3, 8, 8), np.uint8, [0, 1, 2])
    np.testing.assert_allclose(pixels[0, :, 0, 0], [250, 5, 5], atol=4)
    np.testing.assert_allclose(pixels[1, :, 0, 0], [0, 0, 255], atol=4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "image 1 cannot be decoded; it must be a JPEG file"),
        (b"no picture", "image 1 cannot be decoded; it must be a JPEG file"),
        (jpeg(8)[:-20], "image 1 cannot be decoded; it must be a JPEG file"),
        (jpeg(4), "image 1 has 4 × 4 pixels; each must have 8 × 8"),
    ],
    ids=["empty", "text", "cut", "small"],
)
def test_a_broken_jpeg(tmp_path: Path, content: bytes, message: str) -> None:
    write(tmp_path, image=pa.array([jpeg(8), content, jpeg(8)]), label=LABELS)
    with pytest.raises(ConfigurationError, match=rf"mnist/train\.parquet: {message}"):
        read_jpegs(tmp_path, "mnist", "train", 8)
