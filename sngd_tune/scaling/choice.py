"""Which candidate stands for a method where a parameter is tuned anew along an axis.

The best one is that with which most seeds reached the target; among these the one with the least median of steps to it;
then, and where there is no target, the one with the least mean validation loss at the end. What failed has missed.

To measure the best on the seeds that chose it would flatter: the least of several noisy values lies below the least of
their means. So each seed measures the candidate that the other seeds chose, as in leave-one-out cross-validation: its
own noise had no say. What a curve shows is the method with a choice by one seed less, and several candidates may stand
at one value. A lone seed chooses for itself, and the report says that this flatters.

All measures of a seed are of that one training. Times per step do not depend on a learning rate, and from the trainings
not taken they could be told more closely; but then time to a target and steps to it would be of different trainings.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sngd_tune.records.choice import Choice
from sngd_tune.records.scaling import PlannedPoint, ScalingConfig
from sngd_tune.records.strict import Scalar
from sngd_tune.records.target import Target
from sngd_tune.scaling.measures import Training

__all__ = ["choose"]

_Score = tuple[float, float]  # steps to the target, and validation loss at the end; infinite: missed, failed


def choose(
    config: ScalingConfig, points: Iterable[PlannedPoint], trainings: Iterable[Training], target: Target | None
) -> list[Choice]:
    """The choices of a study, as far as it is: a seed counts once all candidates of a point have ended on it.

    Args:
        config: of the study.
        points: all that were planned.
        trainings: that have begun.
        target: what is reached, or None.
    """
    points = list(points)
    scores = {
        (each.point.name, each.record.number): _score(each, target)
        for each in trainings
        if each.record.outcome.finished
    }
    return [
        _choice(config, axis, group, scores)
        for axis in config.axes
        for group in _groups(points, axis, {name for name, tuned in config.tune.items() if axis in tuned.axes})
    ]


def _groups(points: Sequence[PlannedPoint], axis: str, tuned: set[str]) -> Iterable[list[PlannedPoint]]:
    """Candidates by value and method."""
    groups: dict[tuple[Scalar, str], list[PlannedPoint]] = {}
    for point in points:
        if axis in point.axes and set(point.moved) <= {axis} and set(point.tuned) <= tuned:
            groups.setdefault((point.axes[axis], point.method), []).append(point)
    return (group for group in groups.values() if len(group) > 1)


def _choice(
    config: ScalingConfig, axis: str, group: Sequence[PlannedPoint], scores: Mapping[tuple[str, int], _Score]
) -> Choice:
    seeds = [seed for seed in range(config.seeds) if all((point.name, seed) in scores for point in group)]

    def best(voters: Sequence[int]) -> PlannedPoint:
        return min(group, key=lambda point: _rank([scores[point.name, seed] for seed in voters]))

    taken = best(seeds) if seeds else None
    factors = {name: taken.tuned.get(name, 1.0) for point in group for name in point.tuned} if taken else {}
    return Choice(
        axis=axis,
        value=group[0].axes[axis],
        method=group[0].method,
        taken=taken.name if taken else None,
        factors=factors,
        edges=tuple(name for name, factor in factors.items() if factor in _ends(config.tune[name].factors)),
        by_seed={seed: best([other for other in seeds if other != seed] or [seed]).name for seed in seeds},
    )


def _ends(factors: Sequence[float]) -> tuple[float, float]:
    return factors[0], factors[-1]


def _rank(scores: Sequence[_Score]) -> tuple[Any, ...]:
    """Less is better."""
    steps, losses = zip(*scores, strict=True)
    return -sum(map(math.isfinite, steps)), statistics.median(steps), statistics.fmean(losses)


def _score(training: Training, target: Target | None) -> _Score:
    first = target.first_reached(training.epochs) if target is not None and training.complete else None
    loss = training.epochs[-1].validation_loss if training.complete else math.inf
    return float(first.steps) if first is not None else math.inf, loss if math.isfinite(loss) else math.inf
