"""What a scaling study must be before it starts: its plan, and which of its points fit."""

from collections.abc import Mapping, Sequence
from typing import Any

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.names import patterns
from sngd_tune.records.scaling import PlannedPoint, ScalingConfig, Variant
from sngd_tune.records.trial import TrialConfig
from sngd_tune.search.scaling import plan_points, plan_variants
from sngd_tune.sizing.room import predicted_bytes, room_of_trial
from sngd_tune.tracking.scaling import ScalingManifest
from sngd_tune.workloads.registry import find_workload, load_data, scaled_name

__all__ = ["check_scaling", "refusal"]

_GB = 1e9


def check_scaling(config: ScalingConfig) -> ScalingManifest:
    """The plan of a scaling study, once its workload, data and points are known to be as they must be.

    Raises:
        ConfigurationError: something is not; nothing was started.
    """
    workload = find_workload(config.workload)
    target = config.target.target() if config.target is not None else workload.target
    settings = [{"optimizer": method, **config.fixed, **values} for method, values in config.methods.items()]
    named = patterns(name for setting in settings for name in setting)
    splits = load_data(config.workload, config.data_dir, {target.metric} if target else (), _fishers(settings), named)
    points = plan_points(config, workload.axes, len(splits.train))
    names = {point.name: scaled_name(config.workload, point.sizes) for point in points}
    for name in set(names.values()):
        _check_model(name)
    return ScalingManifest.new(config, target, points, plan_variants(config, points, names))


def refusal(variant: Variant, point: PlannedPoint) -> str | None:
    """Why a point is not tried; None where it is."""
    study = variant.study
    trial = TrialConfig.from_flat(point.parameters, workload=study.workload, epochs=study.epochs, seed=0)
    needed = predicted_bytes(trial, find_workload(study.workload)) / _GB
    room = _room(variant) / _GB
    if needed <= room:
        return None
    return f"predicted: {needed:.2f} GB at the least, of {room:.2f} GB that a trial may take; it was not tried"


def _room(variant: Variant) -> float:
    """Bytes that a worker of a variant's trials may take."""
    named = variant.memory_gb
    return named * _GB if named is not None else room_of_trial(variant.study.search.resources, variant.trials_at_a_time)


def _check_model(name: str) -> None:
    """Raise ConfigurationError where the workload cannot make a model of these sizes."""
    trial = TrialConfig.from_flat({"optimizer": "sgd"}, workload=name, epochs=1, seed=0)
    try:
        predicted_bytes(trial, find_workload(name))
    except ConfigurationError:
        raise
    except Exception as error:  # what a model raises of a size that it cannot have
        raise ConfigurationError(f"workload={name!r}: making its model failed ({error}); choose other sizes") from error


def _fishers(settings: Sequence[Mapping[str, Any]]) -> set[str]:
    """Kinds of Fisher matrix that the settings take."""
    exact = {"exact"} if any(setting["optimizer"] == "exact_ngd" for setting in settings) else set()
    return exact | {str(setting.get("fisher", "empirical")) for setting in settings}
