"""`fashion_cnn`: a small convolutional network on Fashion-MNIST (Xiao, Rasul and Vollgraf 2017)."""

from pathlib import Path

from torch import nn

from sngd_tune.records.target import Target
from sngd_tune.workloads.classification import ClassificationWorkload
from sngd_tune.workloads.images import image_splits
from sngd_tune.workloads.networks import small_cnn
from sngd_tune.workloads.workload import Split, Splits

__all__ = ["FashionCnn"]


class FashionCnn(ClassificationWorkload):
    """Convolutions of 16, 32 and 64 channels; pixels in [0, 1]; the last 10,000 training images validate."""

    target = Target(
        metric="validation_loss",
        value=0.3,
        provenance="what tuned AdamW, the better of SGD and AdamW (10 trials each), has after 75 % of 16 s a training:"
        " median of 3 fresh seeds, rounded; 2 shared CPU cores, November 2026",
    )

    def load(self, data_dir: Path | None) -> Splits:
        splits = image_splits(data_dir, "fashion_mnist")
        parts = (splits.train, splits.validation, splits.test)
        return Splits(*(Split(part.inputs.reshape(-1, 1, 28, 28), part.targets) for part in parts))

    def model(self) -> nn.Module:
        return small_cnn((16, 32, 64))
