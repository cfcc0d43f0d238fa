"""`cifar10_resnet` and `cifar10_resnet_narrow`: residual networks (He et al. 2016) on CIFAR-10 (Krizhevsky 2009).

On the original pixels where the data directory has `cifar10`, else on JPEG copies, `cifar10_jpeg`: compare accuracies
with others on the same copy only. Images are not augmented.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.target import Target
from sngd_tune.workloads.classification import ClassificationWorkload
from sngd_tune.workloads.images import read_jpegs, read_pixels
from sngd_tune.workloads.workload import Split, Splits

__all__ = ["Cifar10Resnet", "Cifar10ResnetNarrow"]

_VALIDATION = 5_000  # the last of the training file
_SIDE = 32


class Cifar10Resnet(ClassificationWorkload):
    """ResNet-18 for images of 32 × 32 (11.2 million parameters): for a GPU. 45,000, 5,000 and 10,000 images."""

    target = Target(
        metric="validation_accuracy",
        value=0.93,
        provenance="SGD's test accuracy in arXiv 2412.07441, 93.02 %, on the lossless images; not measured here",
    )

    def load(self, data_dir: Path | None) -> Splits:
        name, read = _copy(data_dir)
        images, labels = read(data_dir, name, "train", _SIDE)
        if len(images) <= _VALIDATION:
            found = f"{Path(str(data_dir)) / name / 'train.parquet'}: has {len(images)} images"
            raise ConfigurationError(f"{found}; it must have more than {_VALIDATION}, of which the last validate")
        return Splits(
            Split(images[:-_VALIDATION], labels[:-_VALIDATION]),
            Split(images[-_VALIDATION:], labels[-_VALIDATION:]),
            Split(*read(data_dir, name, "test", _SIDE)),
        )

    def model(self) -> nn.Module:
        return _resnet((64, 128, 256, 512), blocks=2)


class Cifar10ResnetNarrow(Cifar10Resnet):
    """The same with one block a stage and an eighth of the width (78 thousand parameters): for a CPU."""

    target = Target(
        metric="validation_accuracy",
        value=0.59,
        provenance="what AdamW has after 75 % of 40 s, the best of three settings of SGD and AdamW tried by hand (rate"
        " 0.003, cosine with warm-up, batches of 64, JPEG copies), rounded; one shared core, November 2026",
    )

    def model(self) -> nn.Module:
        return _resnet((8, 16, 32, 64), blocks=1)


def _copy(data_dir: Path | None) -> tuple[str, Callable[..., tuple[np.ndarray, np.ndarray]]]:
    """Folder and reader: both splits come from one copy, the lossless one unless there are JPEG files alone."""
    folders = (Path(data_dir or "") / name for name in ("cifar10", "cifar10_jpeg"))
    lossless, lossy = (data_dir is not None and folder.is_dir() for folder in folders)
    return ("cifar10_jpeg", read_jpegs) if lossy and not lossless else ("cifar10", read_pixels)


class _Scaled(nn.Module):
    """Bytes to numbers from −1 to 1, in the model, so that the data keeps a byte a pixel."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float() / 127.5 - 1


class _Block(nn.Module):
    """Two 3 × 3 convolutions beside a shortcut, which is a 1 × 1 convolution where the shape changes."""

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()),
            *(nn.Conv2d(c_out, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out)),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or c_in != c_out:
            self.shortcut.extend([nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out)])

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.layers(x) + self.shortcut(x))


def _resnet(widths: tuple[int, ...], blocks: int) -> nn.Module:
    """``[n, 3, 32, 32]`` (uint8) ``→ [n, 10]``; each stage but the first halves the sides."""
    width = widths[0]
    layers: list[nn.Module] = [
        *(_Scaled(), nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    ]
    for stage, c_out in enumerate(widths):
        for block in range(blocks):
            layers.append(_Block(width, c_out, 2 if stage and not block else 1))
            width = c_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
