"""How the gradient noise scale goes in the trainings of one point, from what their epochs have measured.

It grows while the loss falls, by a factor of ten and more. What a critical batch size is held against is therefore its
mean up to the target, as the steps to there are what a critical batch size is of: geometric, over the epochs in which
it was measured. A training in which one of them was drowned in noise has no mean; more batches help.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.records.target import Target
from sngd_tune.scaling.regression import geometric_mean

__all__ = ["NoiseCourse", "NoiseStage", "noise_course", "noise_to_target"]


@dataclass(frozen=True, kw_only=True)
class NoiseStage:
    """At one stage of the trainings of a point; examples, and ratios of them.

    Each is the geometric mean over the seeds with its 95 % interval, which is open with a single seed; infinite where
    noise drowned the gradient of one of them; None where it was not measured.

    Attributes:
        epoch: after which; None: the mean up to the target.
        steps, loss: on average; the loss is that of training.
        plain: the scale of the gradient as it is.
        own: that in the coordinates of the method.
        ratio: `own` over `plain` of the same models.
        seeds: trainings.
    """

    epoch: int | None
    steps: float
    loss: float
    plain: tuple[float, float, float] | None
    own: tuple[float, float, float] | None
    ratio: tuple[float, float, float] | None
    seeds: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what is open is null."""
        triples = {"plain": self.plain, "own": self.own, "ratio": self.ratio}
        head = {"epoch": self.epoch, "steps": self.steps, "training_loss": self.loss, "seeds": self.seeds}
        return {**head, **{name: _plain(found) for name, found in triples.items()}}


@dataclass(frozen=True, kw_only=True)
class NoiseCourse:
    """Of one method at the base point.

    Attributes:
        method: its label.
        stages: epoch by epoch.
        to_target: the mean up to the epoch in which the target was reached, or over all where there is none.
    """

    method: str
    stages: tuple[NoiseStage, ...]
    to_target: NoiseStage

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        stages = [each.to_dict() for each in self.stages]
        return {"method": self.method, "stages": stages, "to_target": self.to_target.to_dict()}


def noise_to_target(epochs: Sequence[EpochMetrics], target: Target | None) -> dict[str, float]:
    """The scales of one training up to the target, by the names of `scaling.measures.MEASURES`.

    Args:
        epochs: all of it.
        target: what is reached; None, or one that is missed: all epochs count.

    Returns:
        ``noise_scale``, ``plain_noise_scale``, ``noise_scale_ratio``, of which infinite is what a measured epoch does
        not tell; without what was not measured.
    """
    counted = _to_target(epochs, target)
    own = [each.noise_scale for each in counted if each.noise_scale is not None]
    plain = [each.plain_noise_scale for each in counted if each.plain_noise_scale is not None]
    found = {name: _mean(each) for name, each in (("noise_scale", own), ("plain_noise_scale", plain)) if each}
    if len(found) == 2:
        told = all(map(math.isfinite, found.values()))
        found["noise_scale_ratio"] = found["noise_scale"] / found["plain_noise_scale"] if told else math.inf
    return found


def noise_course(method: str, trainings: Iterable[Sequence[EpochMetrics]], target: Target | None) -> NoiseCourse | None:
    """The course of a point; None where nothing was measured.

    Args:
        method: label of the method.
        trainings: the epochs of each, of one setting.
        target: what is reached, or None.
    """
    measured = [epochs for epochs in trainings if _measured(epochs)]
    if not measured:
        return None
    by_epoch: dict[int, list[EpochMetrics]] = {}
    for each in itertools.chain.from_iterable(map(_measured, measured)):
        by_epoch.setdefault(each.epoch, []).append(each)
    stages = [_stage(n, found, [noise_to_target([each], None) for each in found]) for n, found in by_epoch.items()]
    ends = [_to_target(epochs, target)[-1] for epochs in measured]
    whole = _stage(None, ends, [noise_to_target(epochs, target) for epochs in measured])
    return NoiseCourse(method=method, stages=tuple(sorted(stages, key=lambda each: each.steps)), to_target=whole)


def _measured(epochs: Iterable[EpochMetrics]) -> list[EpochMetrics]:
    return [each for each in epochs if each.plain_noise_scale is not None]


def _to_target(epochs: Sequence[EpochMetrics], target: Target | None) -> list[EpochMetrics]:
    """The measured epochs that count: the first one at the least."""
    first = target.first_reached(epochs) if target is not None else None
    measured = _measured(epochs)
    return [each for each in measured if first is None or each.epoch <= first.epoch] or measured[:1]


def _stage(epoch: int | None, at: Sequence[EpochMetrics], scales: Sequence[Mapping[str, float]]) -> NoiseStage:
    def over_seeds(name: str) -> tuple[float, float, float] | None:
        found = [each[name] for each in scales if name in each]
        if not all(map(math.isfinite, found)):
            return math.inf, 0.0, math.inf
        return geometric_mean(found) if found else None

    return NoiseStage(
        epoch=epoch,
        steps=math.fsum(each.steps for each in at) / len(at),
        loss=math.fsum(each.training_loss for each in at) / len(at),
        plain=over_seeds("plain_noise_scale"),
        own=over_seeds("noise_scale"),
        ratio=over_seeds("noise_scale_ratio"),
        seeds=len(at),
    )


def _mean(scales: Sequence[float]) -> float:
    """Geometric; infinite where one tells nothing."""
    if not all(0 < each < math.inf for each in scales):
        return math.inf
    return math.exp(math.fsum(map(math.log, scales)) / len(scales))


def _plain(found: tuple[float, float, float] | None) -> dict[str, float | None] | None:
    if found is None:
        return None
    return {key: x if math.isfinite(x) else None for key, x in zip(("mean", "low", "high"), found, strict=True)}
