"""`mnist_mlp`: the network of the papers (arXiv 2412.07441), 784-80-80-80-10 on MNIST (LeCun et al. 1998)."""

from itertools import pairwise
from pathlib import Path

from torch import nn

from sngd_tune.workloads.classification import ClassificationWorkload
from sngd_tune.workloads.images import read_images
from sngd_tune.workloads.workload import Split, Splits

__all__ = ["MnistMlp", "mnist_splits"]

_VALIDATION = 10_000  # the last of the training file


class MnistMlp(ClassificationWorkload):
    """ReLU; pixels in [0, 1]; the last 10,000 training images validate, the test file tests."""

    def load(self, data_dir: Path | None) -> Splits:
        return mnist_splits(data_dir)

    def model(self) -> nn.Module:
        sizes = (784, 80, 80, 80)
        hidden = [part for d_in, d_out in pairwise(sizes) for part in (nn.Linear(d_in, d_out), nn.ReLU())]
        return nn.Sequential(*hidden, nn.Linear(80, 10))


def mnist_splits(data_dir: Path | None) -> Splits:
    """MNIST as 50,000 images to train, 10,000 to validate, 10,000 to test. Raises ConfigurationError."""
    images, labels = read_images(data_dir, "mnist", "train", 784)
    test = Split(*read_images(data_dir, "mnist", "test", 784))
    return Splits(
        Split(images[:-_VALIDATION], labels[:-_VALIDATION]), Split(images[-_VALIDATION:], labels[-_VALIDATION:]), test
    )
