"""What earlier studies found as starting points of a new one.

A trial is carried over value by value: those that the new space has, moved into its ranges. What a learning rate means
depends on the method, its base and the scale of the root, and so do the values that were good beside it; of a trial
that differs there, only what does not depend on it is taken.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from optuna.distributions import FloatDistribution, IntDistribution

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.names import patterns, seen_by, split
from sngd_tune.records.parameters import PARAMETERS
from sngd_tune.records.ranking import rank
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.search.checks import build_dimensions
from sngd_tune.search.dimension import Dimension

__all__ = ["WarmStart", "warm_start"]

#: Trials of each earlier study that become starting points.
_BEST = 3
_DECIDING = ("optimizer", "base", "root_scale")
#: What means the same whatever those are.
_ANYWHERE = ("weight_decay", "beta1", "beta2", "lr_schedule")


@dataclass(frozen=True)
class WarmStart:
    """A study with starting points of earlier ones.

    Attributes:
        study: the new one.
        notes: for people: what was moved into a range, left out, or comes from another workload.
    """

    study: StudyConfig
    notes: tuple[str, ...]


def warm_start(study: StudyConfig, earlier: Iterable[Sequence[TrialRecord]]) -> WarmStart:
    """Add the best three completed trials of each earlier study to the starting points of a study that is sound.

    Args:
        study: the new one; its own starting points come first.
        earlier: the trials of each earlier study; of other workloads, too.

    Raises:
        ConfigurationError: no trial of one of them completed with this study's first objective.
    """
    points, notes = list(study.start), []
    for records in earlier:
        for record in _best(records, study.objectives[0]):
            point, found = _carried(record, study)
            notes += [f"study {record.study}, trial {record.trial}: {note}" for note in found]
            if point and point not in points:
                points.append(point)
    if len(points) > study.search.trials:
        notes.append(f"{len(points)} starting points, and {study.search.trials} trials: the last ones are not tried")
    return WarmStart(study.model_copy(update={"start": tuple(points)}), tuple(notes))


def _best(records: Sequence[TrialRecord], objective: str) -> list[TrialRecord]:
    ranked = rank(records, objective)
    if not ranked:
        named = f"study {records[0].study}" if records else "an earlier study"
        raise ConfigurationError(
            f"{named}: none of its {len(records)} trials completed with a {objective}, so there is nothing to start"
            " from; resume it, or leave it out"
        )
    return ranked[:_BEST]


def _carried(record: TrialRecord, study: StudyConfig) -> tuple[dict[str, Any], list[str]]:
    """A starting point, and what is to be said about it."""
    notes = [] if record.workload == study.workload else [f"is of another workload, {record.workload}"]
    wanted = list(study.space)
    differing = list(_differing(record.parameters, study))
    if differing:
        wanted = [name for name in wanted if name in _ANYWHERE and not _is_l2(name, record.parameters)]
        notes.append(f"has {', '.join(differing)}; taken: {', '.join(wanted) or 'nothing'}")
    point: dict[str, Any] = {}
    for name, group in build_dimensions(study).items():
        dimension = next((each for each in group if each.applies({**study.fixed, **point})), None)
        value = _value(record.parameters, name)
        if name not in wanted or dimension is None or value is None:
            continue
        fitted = _fitted(dimension, value)
        if fitted is not None:
            point[name] = fitted
        if fitted != value:
            notes.append(f"{name}={value} lies outside of {dimension.span}; {_remedy(fitted)}")
    return point, notes


def _differing(parameters: Mapping[str, Any], study: StudyConfig) -> Iterator[str]:
    """What decides on the meaning of a learning rate, where the new study has nothing like it."""
    for name in _DECIDING:
        value = parameters.get(name, PARAMETERS[name].default)
        searched = [choice for entry in study.space.get(name, ()) for choice in entry.choices or ()]
        here = searched or [study.fixed.get(name, PARAMETERS[name].default)]
        if value not in here:
            yield f"{name} {value}, here {' or '.join(map(str, here))}"


def _is_l2(name: str, parameters: Mapping[str, Any]) -> bool:
    """Whether it is SGD's weight decay, which is not decoupled from the learning rate."""
    return name == "weight_decay" and parameters.get("optimizer") == "sgd"


def _value(parameters: Mapping[str, Any], name: str) -> Any:
    """What a trial had for a parameter; for one of single layers, what those of that name had."""
    plain, layer = split(name)
    own = next((each for each in patterns(parameters) if layer is not None and fnmatchcase(layer, each)), None)
    return seen_by(parameters, own).get(plain)


def _fitted(dimension: Dimension, value: Any) -> Any:
    """The nearest value that a dimension can propose; None where it has choices, and this is none of them."""
    distribution = dimension.distribution
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        return value if dimension.holds(value) else None
    fitted = min(max(value, distribution.low), distribution.high)
    if distribution.step is not None and not distribution.log:
        steps = round((fitted - distribution.low) / distribution.step)
        fitted = min(distribution.low + steps * distribution.step, distribution.high)
    return fitted if dimension.holds(fitted) else None


def _remedy(fitted: Any) -> str:
    return "it is sampled" if fitted is None else f"{fitted} is tried"
