"""Workloads that name a likelihood: a right one, and several that do not fit their loss."""

import torch
from torch import Tensor, nn

from tests.examples.faults import AlwaysRaises
from tests.examples.moons import Moons


class MoonsWithLikelihood(Moons):
    likelihood = "softmax"


class Smoothed(MoonsWithLikelihood):
    """The targets move, the curvature does not."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets, label_smoothing=0.1)


class Doubled(MoonsWithLikelihood):
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return 2 * super().loss(outputs, targets)


class MeanSquare(Moons):
    """Over two outputs of unit variance it is the negative logarithm itself."""

    likelihood = "gaussian"

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - nn.functional.one_hot(targets, 2)).square().mean()


class SumOfSquares(MeanSquare):
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - nn.functional.one_hot(targets, 2)).square().sum()


class Misnamed(Moons):
    likelihood = "bernoulli"


class Unknown(Moons):
    likelihood = "poisson"


class Absolute(MeanSquare):
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - nn.functional.one_hot(targets, 2)).abs().sum(-1).mean()


class Weighted(MoonsWithLikelihood):
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets, torch.tensor([1.0, 5.0]))


class Flat(MoonsWithLikelihood):
    """One logit an example, without a dimension of its own."""

    likelihood = "bernoulli"

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))


class RaisesInLoss(AlwaysRaises):
    likelihood = "softmax"
