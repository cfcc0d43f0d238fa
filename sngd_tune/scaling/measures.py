"""From the ledgers of a scaling study to the points of its curves. Pure: it takes records, and opens nothing.

Times are those of training. They leave out the first tenth of the epochs, and the first one at the least where there
are others: code is loaded and memory is mapped then, and a new Fisher matrix is refreshed at steps 1, 2, 4, …
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sngd_tune.records.choice import Choice
from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.scaling import Measurement, PlannedPoint
from sngd_tune.records.target import Target
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.scaling.noise_course import noise_to_target

__all__ = ["MEASURES", "Measure", "Training", "Use", "means", "measure", "measurements", "use_of"]

_PARTS = ("forward_backward", "statistics", "refresh", "update", "communication")


@dataclass(frozen=True)
class Measure:
    """What a measure is.

    Attributes:
        unit: ``"1"`` for a ratio.
        doc: a line.
        fitted: whether a power law is sought in it.
    """

    unit: str
    doc: str
    fitted: bool = True


MEASURES: dict[str, Measure] = {
    "step_seconds": Measure("s", "a step, on average"),
    "forward_backward_seconds": Measure("s", "of a step: batch, forward and backward passes"),
    "statistics_seconds": Measure("s", "of a step: running averages of G"),
    "refresh_seconds": Measure("s", "of a step: new roots, spread over the steps between them"),
    "update_seconds": Measure("s", "of a step: preconditioning and parameter update"),
    "communication_seconds": Measure(
        "s", "of a step: what it waits for other workers, slower ones included, and no computing hides"
    ),
    "overhead_seconds": Measure("s", "of a step: all but the forward and backward passes and communication"),
    "examples_per_second": Measure("1/s", "of all workers together"),
    "peak_memory_bytes": Measure(
        "B", "of a worker: GPU memory, or its resident set, which libraries and earlier trials are in"
    ),
    "steps": Measure("count", "of the whole training", fitted=False),
    "steps_to_target": Measure("count", "infinite where the target was missed"),
    "examples_to_target": Measure("count", "as steps_to_target"),
    "seconds_to_target": Measure("s", "as steps_to_target"),
    "reached": Measure("share", "of trainings that reached the target", fitted=False),
    "loss_at_budget": Measure("loss", "validation loss after seconds that all along the axis had", fitted=False),
    "final_loss": Measure("loss", "validation loss at the end", fitted=False),
    "joules_per_step": Measure("J", "where all trainings have it from one source"),
    "noise_scale": Measure(
        "examples", "gradient noise scale up to the target, in the method's own coordinates", fitted=False
    ),
    "plain_noise_scale": Measure("examples", "the same of the gradient as it is", fitted=False),
    "noise_scale_ratio": Measure("1", "noise_scale over plain_noise_scale", fitted=False),
    "trial_seconds": Measure("s", "from its start to its end, evaluation and all else included", fitted=False),
}


@dataclass(frozen=True)
class Training:
    """A trial as the ledger has it."""

    point: PlannedPoint
    record: TrialRecord
    epochs: Sequence[EpochMetrics]

    @property
    def complete(self) -> bool:
        """Whether it counts; what failed is named and not measured."""
        return self.record.outcome is Outcome.COMPLETED and bool(self.epochs)


@dataclass(frozen=True)
class Use:
    """How well the trials of a variant used the machine.

    Attributes:
        trials: that ended.
        at_a_time: how many ran at once.
        seconds: in which at least one of them ran.
        trials_per_hour: of these seconds.
        idle_share: of ``at_a_time × seconds``, what no training took: preparation, evaluation, an empty place.
    """

    trials: int
    at_a_time: int
    seconds: float
    trials_per_hour: float
    idle_share: float


def measurements(
    trainings: Iterable[Training],
    axes: Iterable[str],
    target: Target | None,
    *,
    grid: bool = False,
    choices: Iterable[Choice] = (),
) -> list[Measurement]:
    """The points of all curves.

    One axis at a time, a training lies on the curve of the axis that was moved, at the base point on all of them; in a
    grid it lies on a curve of each axis, beside the value of the other.

    Args:
        trainings: of a study; those that did not complete are passed over.
        axes: of the study.
        target: what is reached, or None.
        grid: whether both axes were moved at once.
        choices: `scaling.choice.choose`; of candidates, only those that were taken lie on a curve.
    """
    complete = [training for training in trainings if training.complete]
    joules = len({training.epochs[-1].energy_source for training in complete}) == 1
    taken = {(each.axis, each.value, each.method): each.by_seed for each in choices}
    found = []
    for axis in axes:
        on_axis = (training for training in complete if _lies_along(training.point, axis, grid))
        along = [training for training in on_axis if _stands(training, axis, taken)]
        budget = min((training.epochs[-1].training_seconds for training in along), default=0.0)
        for training in along:
            values = measure(training, target, joules=joules)
            found.append(_along(training, axis, values | {"loss_at_budget": _loss_at(training.epochs, budget)}))
    return found


def measure(training: Training, target: Target | None, *, joules: bool = True) -> dict[str, float]:
    """What one complete training measured, by the names of `MEASURES`.

    Args:
        training: a complete one.
        target: None: nothing is said about it.
        joules: whether its energy may stand beside that of the others.
    """
    epochs = training.epochs
    steps, seconds = _steady(epochs)
    parts = {f"{part}_seconds": seconds[part] / steps for part in _PARTS}
    step = sum(parts.values())
    batch = int(training.point.parameters.get("batch_size", 0)) or _batch(epochs)
    found = {
        "step_seconds": step,
        **parts,
        "overhead_seconds": step - parts["forward_backward_seconds"] - parts["communication_seconds"],
        "examples_per_second": batch / max(step, 1e-12),
        "steps": float(epochs[-1].steps),
        "peak_memory_bytes": float(max(each.peak_memory_bytes for each in epochs)),
        "final_loss": epochs[-1].validation_loss,
        **(_to_target(epochs, target, batch) if target is not None else {}),
        **noise_to_target(epochs, target),
    }
    used = epochs[-1].energy_joules
    if joules and used is not None:
        found["joules_per_step"] = used / epochs[-1].steps
    if training.record.ended is not None:
        found["trial_seconds"] = training.record.ended - training.record.started
    return found


def means(trainings: Sequence[Training], target: Target | None) -> dict[str, float]:
    """Means over the trainings of a point that are complete, by name; infinite where one missed the target.

    Without joules: whether they may stand beside those of other points, these trainings do not say.
    """
    found = [measure(each, target, joules=False) for each in trainings if each.complete]
    names = [name for name in (found[0] if found else ()) if all(name in each for each in found)]
    return {name: math.fsum(each[name] for each in found) / len(found) for name in names}


def use_of(trainings: Sequence[Training]) -> Use | None:
    """Of the trials of a variant; None where none has ended."""
    ended = [each for each in trainings if each.record.ended is not None and each.record.epochs]
    seconds = _covered([(each.record.started, each.record.ended or 0.0) for each in ended])
    if seconds <= 0:
        return None
    at_a_time = ended[0].point.trials_at_a_time
    trained = sum(each.record.training_seconds for each in ended)
    idle = max(0.0, 1 - trained / (at_a_time * seconds))
    return Use(len(ended), at_a_time, seconds, 3600 * len(ended) / seconds, idle)


def _covered(intervals: Sequence[tuple[float, float]]) -> float:
    """The length of their union."""
    total, reached = 0.0, -math.inf
    for start, stop in sorted(intervals):
        total += max(0.0, stop - max(start, reached))
        reached = max(reached, stop)
    return total


def _steady(epochs: Sequence[EpochMetrics]) -> tuple[int, dict[str, float]]:
    """Steps and seconds by part, without those of the start."""
    first = max(1, len(epochs) // 10) if len(epochs) > 1 else 0
    counted, before = epochs[first:], epochs[first - 1].steps if first else 0
    seconds = {part: sum(getattr(each, f"{part}_seconds") for each in counted) for part in _PARTS}
    return max(1, epochs[-1].steps - before), seconds


def _batch(epochs: Sequence[EpochMetrics]) -> int:
    """Examples of a step, of what the epochs say."""
    last = epochs[-1]
    before = epochs[-2].steps if len(epochs) > 1 else 0
    return round(last.examples_per_second * last.epoch_seconds / max(1, last.steps - before))


def _loss_at(epochs: Sequence[EpochMetrics], budget: float) -> float:
    """The last evaluation within the budget; the first one where none is."""
    inside = [each for each in epochs if each.training_seconds <= budget] or epochs[:1]
    return inside[-1].validation_loss


def _to_target(epochs: Sequence[EpochMetrics], target: Target, batch: int) -> dict[str, float]:
    first = target.first_reached(epochs)
    if first is None:
        missed = dict.fromkeys(("steps_to_target", "examples_to_target", "seconds_to_target"), math.inf)
        return {**missed, "reached": 0.0}
    return {
        "steps_to_target": float(first.steps),
        "examples_to_target": float(first.steps * batch),
        "seconds_to_target": first.training_seconds,
        "reached": 1.0,
    }


def _along(training: Training, axis: str, values: Mapping[str, float]) -> Measurement:
    point = training.point
    return Measurement(
        axis=axis,
        value=point.axes[axis],
        method=point.method,
        seed=training.record.number,
        measures=values,
        held={other: point.axes[other] for other in point.moved if other != axis},
    )


def _stands(training: Training, axis: str, taken: Mapping[tuple[Any, ...], Mapping[int, str]]) -> bool:
    """Whether it is what its seed measures: the point that was chosen, or the only one."""
    point = training.point
    by_seed = taken.get((axis, point.axes[axis], point.method))
    return not point.tuned if by_seed is None else by_seed.get(training.record.number) == point.name


def _lies_along(point: PlannedPoint, axis: str, grid: bool) -> bool:
    return axis in point.axes and (grid or set(point.moved) <= {axis})
