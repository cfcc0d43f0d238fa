"""`digits_mlp`: scikit-learn's 1,797 digits of 8 × 8 pixels (Alpaydin and Kaynak 1998), embedded: the demo."""

from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

import numpy as np
from torch import nn

from sngd_tune.errors import MissingDependencyError
from sngd_tune.records.target import Target
from sngd_tune.workloads.classification import ClassificationWorkload
from sngd_tune.workloads.workload import Split, Splits

__all__ = ["DigitsMlp"]

_TRAIN, _VALIDATION = 1197, 300  # and 300 to test


class DigitsMlp(ClassificationWorkload):
    """64-64-32-10 with tanh; pixels in [0, 1]; a fixed random partition of 1,197, 300 and 300 examples.

    Scaled: `depth` hidden layers of `width`, the last of half of it.
    """

    axes = MappingProxyType({"width": 64, "depth": 2})

    target = Target(
        metric="validation_loss",
        value=0.07,
        provenance="what tuned SGD, the better of SGD and AdamW (10 trials each), has after 75 % of 1 s a training:"
        " median of 3 fresh seeds, rounded; 2 shared CPU cores, November 2026",
    )

    def load(self, data_dir: Path | None) -> Splits:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise MissingDependencyError("digits_mlp needs scikit-learn: pip install 'sngd_tune[tune]'") from error
        pixels, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(labels))
        inputs, targets = (pixels[order] / 16).astype(np.float32), labels[order].astype(np.int64)
        ends = np.split(np.arange(len(labels)), [_TRAIN, _TRAIN + _VALIDATION])
        return Splits(*(Split(inputs[part], targets[part]) for part in ends))

    def model(self) -> nn.Module:
        width, depth = self.axes["width"], self.axes["depth"]
        sizes = (64, *(width,) * (depth - 1), max(1, width // 2))
        hidden = [part for d_in, d_out in pairwise(sizes) for part in (nn.Linear(d_in, d_out), nn.Tanh())]
        return nn.Sequential(*hidden, nn.Linear(sizes[-1], 10))
