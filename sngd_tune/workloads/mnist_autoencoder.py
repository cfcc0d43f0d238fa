"""`mnist_autoencoder`: a deep autoencoder on MNIST, the classic test of second-order methods.

After Hinton and Salakhutdinov 2006 and Martens 2010, at a size that two cores can do.
"""

from itertools import pairwise
from pathlib import Path

from torch import Tensor, nn

from sngd_tune.records.target import Target
from sngd_tune.workloads.images import image_splits
from sngd_tune.workloads.workload import Split, Splits, Workload

__all__ = ["MnistAutoencoder"]

_SIZES = (784, 200, 100, 30, 100, 200, 784)


class MnistAutoencoder(Workload):
    """784-200-100-30-100-200-784; sigmoid units around a linear code of 30; targets are the inputs."""

    target = Target(
        metric="validation_loss",
        value=103.0,
        provenance="what tuned AdamW, the better of SGD and AdamW (10 trials each), has after 75 % of 12 s a training:"
        " median of 3 fresh seeds, rounded; 2 shared CPU cores, November 2026",
    )

    likelihood = "bernoulli"

    def load(self, data_dir: Path | None) -> Splits:
        splits = image_splits(data_dir, "mnist")
        return Splits(*(Split(split.inputs, split.inputs) for split in (splits.train, splits.validation, splits.test)))

    def model(self) -> nn.Module:
        layers: list[nn.Module] = []
        for d_in, d_out in pairwise(_SIZES):
            layers += [nn.Linear(d_in, d_out), nn.Sigmoid()]
        del layers[5], layers[-1]  # the code is linear, and the loss takes logits
        return nn.Sequential(*layers)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy of the pixels, summed over the 784 of an image, averaged over images (nats)."""
        return nn.functional.binary_cross_entropy_with_logits(outputs, targets, reduction="sum") / len(outputs)
