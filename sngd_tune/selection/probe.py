"""The probe: a short training of a copy of the model, and what its layers show at the end of it.

At initialization gradients are all signal and mostly one direction; what matters in the long run is seen after some
hundred steps (measured: on an autoencoder's first layer the best rank is 1 after 20 steps, and 16 after 200, as in
whole trainings). So the copy is trained first, by `SNGD` with a unit root scale, whose learning rate fits any scale of
features. Then its parameters stand still while three samples of batches are taken: one to fit, two to judge.
Samples taken on the way tell how fast roots age.
"""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from sngd_tune.core.account import Match, matches
from sngd_tune.core.optimizer import SNGD
from sngd_tune.errors import ConfigurationError, FisherError
from sngd_tune.selection.observation import Observation, observe
from sngd_tune.selection.sample import LayerSample, Sampler
from sngd_tune.selection.source import Batch, Batches, LossFunction, loss_of
from sngd_tune.settings import FisherSettings

__all__ = ["AGES", "LayerEvidence", "Probe", "ProbePlan", "run_probe"]

#: Of roots, in steps, whose gain is looked at.
AGES = (10, 40)

_TRAINING = FisherSettings(root_scale="unit", relative_damping=0.1)
_LR = 5e-3


@dataclass(frozen=True, kw_only=True)
class ProbePlan:
    """How much the probe does.

    Attributes:
        steps: of the short training, > the largest of `AGES`; 0: the model is looked at as it is, ages are not known.
        batches: of the sample to fit, ≥ 2, about what the running average of ``G`` remembers; as many again to judge.
        seconds: after which the short training ends early.
        seed: of what is drawn.
    """

    steps: int = 150
    batches: int = 16
    seconds: float = 15.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.steps == 0 or self.steps > max(AGES)):
            raise ConfigurationError(f"steps={self.steps!r}: must be 0, or > {max(AGES)} to see how roots age; try 150")
        if self.batches < 2:
            raise ConfigurationError(f"batches={self.batches!r}: must be ≥ 2; try 16")


@dataclass(frozen=True)
class LayerEvidence:
    """What was seen of one layer.

    Attributes:
        match: the layer in the probed copy.
        fit: the sample that candidates are fitted to.
        judges: two others.
        earlier: by age in steps: samples from so long before; empty where there was no training.
        share: of the layer's parameters that the samples look at.
        seen: one batch, for measuring what candidates cost.
    """

    match: Match
    fit: LayerSample
    judges: tuple[LayerSample, LayerSample]
    earlier: dict[int, LayerSample]
    share: float
    seen: Observation


@dataclass(frozen=True)
class Probe:
    """A probed model.

    Attributes:
        layers: those that the batches reached, in the order of the model.
        model: the copy, as it stands after the short training.
        losses: of the batches, before and after the training.
        steps: of the training.
        seconds: that the probe took.
    """

    layers: tuple[LayerEvidence, ...]
    model: nn.Module
    losses: tuple[float, float]
    steps: int
    seconds: float

    @property
    def batch_size(self) -> float:
        """Examples of a batch, on average."""
        return self.layers[0].fit.examples


def run_probe(model: nn.Module, loss_fn: LossFunction, batches: Batches, plan: ProbePlan) -> Probe:
    """Probe a copy of `model`; the model itself, its gradients and the random generators stay as they are.

    Raises:
        ReconstructionError: the model has no layer that can get a local Fisher layer.
        ConfigurationError: the batches end early, or are not what they should be.
        NonFiniteError: a loss is NaN or infinite.
    """
    began = time.perf_counter()
    probed = copy.deepcopy(model).train()
    matches(probed, _TRAINING)  # says which layers there are where none can have one
    first = float(loss_of(probed, loss_fn, batches.take()).detach())
    earlier, steps = _train(probed, loss_fn, batches, plan)
    found = matches(probed, _TRAINING)
    fit, _ = _gather(probed, found, loss_fn, batches, plan.batches, plan.seed)
    halves = [_gather(probed, found, loss_fn, batches, max(plan.batches // 2, 2), plan.seed) for _ in range(2)]
    last, seen = halves[1][1]
    layers = tuple(
        LayerEvidence(
            match,
            fit[match.name].sample(),
            (halves[0][0][match.name].sample(), halves[1][0][match.name].sample()),
            {age: samplers[match.name].sample() for age, samplers in earlier.items()},
            fit[match.name].share,
            seen[match.name],
        )
        for match in found
        if match.name in seen
    )
    if not layers:
        raise ConfigurationError("batches: no layer takes part in the loss; is loss_fn that of the model?")
    return Probe(layers, probed, (first, last), steps, time.perf_counter() - began)


Samplers = dict[str, Sampler]


def _train(
    model: nn.Module, loss_fn: LossFunction, batches: Batches, plan: ProbePlan
) -> tuple[dict[int, Samplers], int]:
    """The short training; samples by the age that they have at its end, and the steps that it had."""
    optimizer = SNGD(model, _TRAINING, base="adamw", lr=_LR, seed=plan.seed)
    snapshots: dict[int, Samplers] = {}
    deadline, planned, step = time.perf_counter() + plan.seconds, plan.steps, 0
    while step < planned:
        if time.perf_counter() > deadline and planned - step > max(AGES):
            planned = step + max(AGES)  # what follows is needed to see how roots age
        if planned - step in AGES:
            still = copy.deepcopy(model)  # the optimizer does not observe it
            count = max(plan.batches // 2, 2)
            snapshots[planned - step] = _gather(still, matches(still, _TRAINING), loss_fn, batches, count, plan.seed)[0]
        optimizer.zero_grad()
        loss_of(model, loss_fn, batches.take()).backward()
        optimizer.step()
        step += 1
    optimizer.detach()
    if optimizer.skipped_steps:
        raise FisherError(f"{optimizer.skipped_steps} gradients of the probe were not finite; look at the model's loss")
    return snapshots, step


def _gather(
    model: nn.Module, found: Sequence[Match], loss_fn: LossFunction, batches: Batches, count: int, seed: int
) -> tuple[Samplers, tuple[float, dict[str, Observation]]]:
    """Samplers that have seen `count` batches, and the last batch with its loss."""
    samplers = {
        match.name: Sampler(match.site.shape, match.parameters[0].device, seed + i) for i, match in enumerate(found)
    }
    last: tuple[float, dict[str, Observation]] = (0.0, {})
    for _ in range(count):
        last = _observed(model, found, loss_fn, batches.take())
        for name, seen in last[1].items():
            samplers[name].add(seen)
    return samplers, last


def _observed(
    model: nn.Module, found: Sequence[Match], loss_fn: LossFunction, batch: Batch
) -> tuple[float, dict[str, Observation]]:
    return observe(model, found, lambda: loss_of(model, loss_fn, batch))
