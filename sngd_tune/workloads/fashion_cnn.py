"""`fashion_cnn`: a small convolutional network on Fashion-MNIST (Xiao, Rasul and Vollgraf 2017)."""

from pathlib import Path

from torch import nn

from sngd_tune.workloads.classification import ClassificationWorkload
from sngd_tune.workloads.images import image_splits
from sngd_tune.workloads.networks import small_cnn
from sngd_tune.workloads.workload import Split, Splits

__all__ = ["FashionCnn"]


class FashionCnn(ClassificationWorkload):
    """Convolutions of 16, 32 and 64 channels; pixels in [0, 1]; the last 10,000 training images validate."""

    def load(self, data_dir: Path | None) -> Splits:
        splits = image_splits(data_dir, "fashion_mnist")
        parts = (splits.train, splits.validation, splits.test)
        return Splits(*(Split(part.inputs.reshape(-1, 1, 28, 28), part.targets) for part in parts))

    def model(self) -> nn.Module:
        return small_cnn((16, 32, 64))
