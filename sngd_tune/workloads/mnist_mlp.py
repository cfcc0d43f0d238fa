"""`mnist_mlp`: the network of the papers (arXiv 2412.07441), 784-80-80-80-10 on MNIST (LeCun et al. 1998)."""

from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

from torch import nn

from sngd_tune.records.target import Target
from sngd_tune.workloads.classification import ClassificationWorkload
from sngd_tune.workloads.images import image_splits
from sngd_tune.workloads.workload import Splits

__all__ = ["MnistMlp"]


class MnistMlp(ClassificationWorkload):
    """ReLU; pixels in [0, 1]; the last 10,000 training images validate, the test file tests.

    Scaled: `depth` hidden layers of `width`.
    """

    axes = MappingProxyType({"width": 80, "depth": 3})

    target = Target(
        metric="validation_accuracy",
        value=0.977,
        provenance="what tuned SGD, the better of SGD and AdamW (10 trials each), has after 75 % of 6 s a training:"
        " median of 3 fresh seeds, rounded; 2 shared CPU cores, November 2026",
    )

    def load(self, data_dir: Path | None) -> Splits:
        return image_splits(data_dir, "mnist")

    def model(self) -> nn.Module:
        sizes = (784, *(self.axes["width"],) * self.axes["depth"])
        hidden = [part for d_in, d_out in pairwise(sizes) for part in (nn.Linear(d_in, d_out), nn.ReLU())]
        return nn.Sequential(*hidden, nn.Linear(sizes[-1], 10))
