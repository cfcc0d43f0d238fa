"""Scaling files: YAML to a checked `ScalingConfig`, and from it the points and the runs that train them."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.parameters import PARAMETERS, check_value, is_active, nearest
from sngd_tune.records.scaling import RUN_AXES, PlannedPoint, ScalingConfig, Variant
from sngd_tune.records.strict import Scalar
from sngd_tune.records.study import SCHEMA_VERSION, StudyConfig
from sngd_tune.records.trial import NEEDS_JOINT_BATCH, TrialConfig
from sngd_tune.search.document import read_document
from sngd_tune.search.schema import check_version, read_text, refuse, validated
from sngd_tune.search.tuned import candidates, check_tuned

__all__ = ["is_scaling", "load_scaling", "plan_points", "plan_variants"]


def is_scaling(path: str | Path) -> bool:
    """Whether a file has a scaling study's key `axes`. Raises ConfigurationError where it cannot be read."""
    data = read_document(read_text(path), str(path)).data
    return isinstance(data, dict) and "axes" in data


def load_scaling(path: str | Path, overrides: Sequence[str] = ()) -> ScalingConfig:
    """The scaling study that a YAML file describes, with overrides such as ``seeds=5``.

    Raises:
        ConfigurationError: the file cannot be read, or breaks a rule; as `load_study` has it.
    """
    document = read_document(read_text(path), str(path), overrides)
    check_version(document, "a scaling study")
    config = validated(document, ScalingConfig)
    if isinstance(config, list):
        refuse(document, config)
    return config


def plan_points(config: ScalingConfig, sizes: Mapping[str, int], training_examples: int) -> list[PlannedPoint]:
    """All points, the base point of each method first.

    Args:
        config: the study.
        sizes: of the workload, as it comes.
        training_examples: that it has.

    Raises:
        ConfigurationError: an axis is unknown, or a trial could not train as a point has it.
    """
    known = {**sizes, **dict.fromkeys(RUN_AXES, 1), **PARAMETERS}
    for axis in (*config.axes, *config.sizes):
        if axis not in known or (axis in config.sizes and axis not in sizes):
            raise ConfigurationError(f"{axis}: neither a size of {config.workload} nor an axis{nearest(axis, known)}")
    origin: dict[str, Scalar] = {
        **sizes,
        **config.sizes,
        "training_examples": training_examples,
        "workers": config.resources.workers,
        "weak_workers": config.resources.workers,
        "trials_at_a_time": config.trials_at_a_time,
    }
    points: dict[str, PlannedPoint] = {}
    for moves in _moves(config):
        for method in config.methods:
            point = _point(config, sizes, origin, method, moves)
            if point is not None:
                for each in candidates(config, point):
                    _check(config, each, training_examples)
                    points[each.name] = each
    check_tuned(config, points.values())
    return list(points.values())


def plan_variants(config: ScalingConfig, points: Sequence[PlannedPoint], named: Mapping[str, str]) -> list[Variant]:
    """Points by what one run of Tune can train, each a study of its own.

    Args:
        config: the study.
        points: of `plan_points`.
        named: the workload's name by point.
    """
    groups: dict[tuple[Any, ...], list[PlannedPoint]] = {}
    for point in points:
        key = (named[point.name], point.training_examples, point.workers, point.trials_at_a_time)
        groups.setdefault(key, []).append(point)
    return [_variant(config, group, named[group[0].name]) for group in groups.values()]


def _moves(config: ScalingConfig) -> Iterator[dict[str, Scalar]]:
    """What is moved away from the base point, nothing first."""
    yield {}
    if config.grid:
        for values in itertools.product(*config.axes.values()):
            yield dict(zip(config.axes, values, strict=True))
        return
    for axis, values in config.axes.items():
        yield from ({axis: value} for value in values)


def _point(
    config: ScalingConfig,
    sizes: Mapping[str, int],
    origin: Mapping[str, Scalar],
    method: str,
    moves: Mapping[str, Scalar],
) -> PlannedPoint | None:
    """The point of a method at a move; None where the move means nothing to it."""
    setting = {"optimizer": method, **config.fixed, **config.methods[method]}
    base = {axis: origin.get(axis, setting.get(axis, _default(axis))) for axis in config.axes}
    own = [axis for axis in config.axes if axis in origin or _means(axis, setting)]
    if not set(moves) <= set(own):
        return None
    at = {axis: moves.get(axis, base[axis]) for axis in own}
    moved = tuple(axis for axis in own if at[axis] != base[axis])
    values = _parameters(config, setting, base, at)
    workers = int(at["weak_workers"] if "weak_workers" in moved else at.get("workers", config.resources.workers))
    if "weak_workers" in moved:
        batch = int(values.get("batch_size", PARAMETERS["batch_size"].default))
        values["batch_size"] = batch * workers // config.resources.workers
    examples = int(at["training_examples"]) if "training_examples" in moved else None
    name = ",".join(f"{axis}={at[axis]}" for axis in moved) or "base"
    return PlannedPoint(
        name=f"{name}.{method}",
        method=method,
        axes=at,
        moved=moved,
        sizes={**config.sizes, **{axis: int(at[axis]) for axis in moved if axis in sizes}},
        training_examples=examples,
        workers=workers,
        trials_at_a_time=int(at.get("trials_at_a_time", config.trials_at_a_time)),
        parameters=values,
    )


def _default(axis: str) -> Any:
    return PARAMETERS[axis].default if axis in PARAMETERS else None


def _means(axis: str, setting: Mapping[str, Scalar]) -> bool:
    """Whether a method has the parameter at all: its optimizer decides, not a neighbour's value, which moves aside."""
    optimizer = setting["optimizer"]
    return all(optimizer in allowed for parent, allowed in PARAMETERS[axis].when if parent == "optimizer")


def _parameters(
    config: ScalingConfig, setting: Mapping[str, Scalar], base: Mapping[str, Scalar], at: Mapping[str, Scalar]
) -> dict[str, Scalar]:
    """The setting of a point: moved parameters, those that follow, and without what the move takes the meaning from."""
    values = {**setting, **{axis: value for axis, value in at.items() if axis in PARAMETERS and value != base[axis]}}
    for name, exponents in config.follow.items():
        factor = math.prod(
            (float(at[axis]) / float(base[axis])) ** power for axis, power in exponents.items() if axis in at
        )
        if name in values and factor != 1:
            scaled = float(values[name]) * factor
            values[name] = max(1, round(scaled)) if PARAMETERS[name].kind == "int" else scaled
    moved = {axis for axis in at if at[axis] != base[axis]}
    return {name: value for name, value in values.items() if name in moved or _stays(name, values, moved)}


def _stays(name: str, values: Mapping[str, Scalar], moved: set[str]) -> bool:
    """False where a moved parameter, such as the granularity, leaves this one without a meaning."""
    return name not in PARAMETERS or is_active(name, values) or not moved & set(PARAMETERS)


def _check(config: ScalingConfig, point: PlannedPoint, training_examples: int) -> None:
    """Refuse what a trial would refuse, before anything starts."""
    try:
        for axis in point.moved:
            if axis in PARAMETERS:
                check_value(axis, point.axes[axis])
        trial = TrialConfig.from_flat(point.parameters, workload=config.workload, epochs=config.epochs, seed=0)
    except ConfigurationError as error:
        raise ConfigurationError(f"point {point.name}: {error}") from error
    if point.training_examples is not None and point.training_examples > training_examples:
        raise ConfigurationError(
            f"point {point.name}: training_examples={point.training_examples}: {config.workload} has"
            f" {training_examples}; lower it"
        )
    if trial.batch_size > (point.training_examples or training_examples):
        raise ConfigurationError(
            f"point {point.name}: batch_size={trial.batch_size}: is more than the"
            f" {point.training_examples or training_examples} training examples; lower it"
        )
    if trial.batch_size % point.workers:
        raise ConfigurationError(
            f"point {point.name}: batch_size={trial.batch_size}: must be a multiple of workers={point.workers}, as all"
            " take equal parts"
        )
    if point.workers > 1 and trial.optimizer.method in NEEDS_JOINT_BATCH:
        raise ConfigurationError(f"point {point.name}: workers={point.workers}: must be 1 for {point.method}")


def _variant(config: ScalingConfig, points: Sequence[PlannedPoint], workload: str) -> Variant:
    first = points[0]
    marks = {axis: size for axis, size in first.sizes.items() if size != config.sizes.get(axis)}
    if first.training_examples is not None:
        marks["training_examples"] = first.training_examples
    if first.workers != config.resources.workers:
        marks["workers"] = first.workers
    if first.trials_at_a_time != config.trials_at_a_time:
        marks["trials_at_a_time"] = first.trials_at_a_time
    name = "_".join(f"{axis}-{value}" for axis, value in marks.items()) or "base"
    return Variant(
        name=name,
        study=StudyConfig.model_validate(_study(config, name, workload, first)),
        trials_at_a_time=first.trials_at_a_time,
        memory_gb=config.memory_gb,
        points=tuple(point.name for point in points),
    )


def _study(config: ScalingConfig, name: str, workload: str, first: PlannedPoint) -> dict[str, Any]:
    """The study of a variant as a study file would have it, but for its space: its trials are given."""
    return {
        "schema": SCHEMA_VERSION,
        "name": name,
        "workload": workload,
        "data_dir": config.data_dir,
        "epochs": config.epochs,
        "seconds": config.seconds,
        "epoch_examples": config.epoch_examples,
        "training_examples": first.training_examples,
        "validation_examples": config.validation_examples,
        "space": {},
        "search": {
            "seed": config.seed,
            "resources": config.resources.model_dump() | {"workers": first.workers},
            "scheduler": {"name": "none"},
            "max_retries": config.max_retries,
            "checkpoint_seconds": config.checkpoint_seconds,
        },
        "confirm": {"seeds": config.seeds, "baseline": False},
        "noise": config.noise.model_dump() if config.noise is not None and first.workers == 1 else None,
        "mlflow": {"enabled": False},  # the points' runs are the scaling study's own
    }
