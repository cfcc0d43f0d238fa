"""What a workload is: the contract of the built-in ones and of a user's own."""

import copy
import dataclasses
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.parameters import nearest
from sngd_tune.records.target import Target

__all__ = ["Split", "Splits", "Workload"]


@dataclass(frozen=True)
class Split:
    """Examples as arrays, first dimension the example: ``inputs: [n, ...]``, ``targets: [n, ...]``.

    Arrays and not tensors, as Ray's object store shares arrays between the processes of a node without a copy.
    """

    inputs: np.ndarray
    targets: np.ndarray

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets) or not len(self.inputs):
            found = f"{len(self.inputs)} inputs and {len(self.targets)} targets"
            raise ValueError(f"{found}: must be equally many, and at least one")

    def __len__(self) -> int:
        return len(self.inputs)

    def first(self, examples: int) -> "Split":
        """Its first `examples`, or all where there are fewer; a view."""
        return Split(self.inputs[:examples], self.targets[:examples])

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Inputs and targets: views of the arrays on the CPU, which nobody may write to, copies on another device."""
        with warnings.catch_warnings():
            # Arrays in Ray's object store are read-only, which torch cannot express.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(self.inputs).to(device), torch.from_numpy(self.targets).to(device)


@dataclass(frozen=True)
class Splits:
    """A fixed partition: settings are chosen on `validation`; `test` is seen by confirmations only."""

    train: Split
    validation: Split
    test: Split

    def with_training(self, examples: int | None) -> "Splits":
        """The same with the first `examples` of the training set alone; None: all of them."""
        return self if examples is None else dataclasses.replace(self, train=self.train.first(examples))

    def with_validation(self, examples: int | None) -> "Splits":
        """The same with the first `examples` of the validation set alone; None: all of them."""
        return self if examples is None else dataclasses.replace(self, validation=self.validation.first(examples))


class Workload(ABC):
    """A problem to train on. Subclass it, and name it as ``module:Class`` to `sngd-tune` and in study files.

    The class must be importable in a worker process, and `model` must draw its initial weights from torch's global
    generator, which is seeded before.

    Attributes:
        likelihood: of which `loss` is the negative logarithm (``"softmax"``, ``"bernoulli"`` or ``"gaussian"``, as
            `sngd_tune.observe_outputs` takes them); None where it is of none. Fisher matrices over the model's own
            targets (``fisher: sampled`` and ``exact``, ``optimizer: exact_ngd``) need it.
        target: what a training has to reach on the validation set, as a comparison asks; None: its file says so.
        evaluation_batch: examples that are evaluated at once; smaller where the outputs of an example are large.
        axes: sizes that may be changed, such as ``width``, with their values; `model` and `load` go by them.
    """

    likelihood: ClassVar[str | None] = None
    target: ClassVar[Target | None] = None
    evaluation_batch: ClassVar[int] = 2000
    axes: Mapping[str, int] = MappingProxyType({})

    def scaled(self, **sizes: int) -> Self:
        """The same problem with other sizes; `find_workload` has them as ``mnist_mlp?width=256&depth=2``.

        Raises:
            ConfigurationError: it has no such axis, or a size is below 1.
        """
        for axis, size in sizes.items():
            if axis not in self.axes:
                known = nearest(axis, self.axes) if self.axes else "; it has no axes"
                raise ConfigurationError(f"{axis}={size}: not an axis of {type(self).__name__}{known}")
            if size < 1:
                raise ConfigurationError(f"{axis}={size}: must be ≥ 1")
        made = copy.copy(self)
        made.axes = MappingProxyType({**self.axes, **sizes})
        return made

    @abstractmethod
    def load(self, data_dir: Path | None) -> Splits:
        """Read the data, once per study.

        Args:
            data_dir: the user's data directory, or None where none was named.

        Raises:
            ConfigurationError: the data is missing or not as expected; the message says what to do.
        """

    @abstractmethod
    def model(self) -> nn.Module:
        """A fresh model on the CPU; it maps a batch of inputs to outputs."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss over the batch, a scalar."""

    def correct(self, outputs: Tensor, targets: Tensor) -> Tensor | None:
        """How many of the batch are right, a scalar; None where the task has no accuracy.

        An example of several predictions counts as the share of them that are right, so that the accuracy is theirs.
        """
        return None
