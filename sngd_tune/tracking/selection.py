"""A selection in MLflow: one run in the experiment of its workload, beside the studies' runs."""

import dataclasses
import math
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sngd_tune.records.names import of_layers
from sngd_tune.records.selection import SelectionRecord
from sngd_tune.records.study import MlflowConfig
from sngd_tune.settings import FisherSettings
from sngd_tune.tracking.entries import parameters
from sngd_tune.tracking.group import artifacts_beside, store_uri
from sngd_tune.tracking.provenance import code_version
from sngd_tune.tracking.store import STUDY_TAG, TRIAL_TAG, RunStore

__all__ = ["log_selection"]

#: The layer that is the model itself, which has no name; metrics have the same for it.
_MODEL = "model"
#: Settings that every run shows; the others only where a layer differs from the default.
_ALWAYS = ("granularity", "root", "rank", "relative_damping", "fisher_interval")


def log_selection(
    record: SelectionRecord, directory: Path, files: Sequence[Path], tracking_uri: str | None = None
) -> str:
    """Write a selection as a run of its own; its id.

    Args:
        record: of the selection.
        directory: that it was written into; the default store lies beside it, as a study's does.
        files: artifacts.
        tracking_uri: MLflow store or server.

    Raises:
        ConfigurationError: the experiment was deleted in MLflow.
        MirrorError: MLflow cannot be reached, or refuses a record.
        MissingDependencyError: MLflow is not installed.
    """
    ended, directory = time.time(), directory.absolute()
    uri = store_uri(directory, MlflowConfig(), tracking_uri)
    store = RunStore(uri, record.subject, artifacts_beside(directory, MlflowConfig(), uri))
    run = store.create(directory.name, _tags(record), ended - record.seconds)
    store.log_parameters(run, parameters(_parameters(record)))
    store.log_metrics(run, _metrics(record), ended)
    for file in files:
        store.log_file(run, file, "figures" if file.suffix == ".png" else None)
    store.set_status(run, "FINISHED", ended)
    return run.run_id


def _tags(record: SelectionRecord) -> dict[str, str]:
    """Its id is its own, so that no study takes the run for one of its trials."""
    origin = {"mlflow.source.name": "sngd-tune", "code_version": code_version(), "device": record.device}
    note = "Settings selected layer by layer; `selection.html` under *Artifacts* says why."
    own = {STUDY_TAG: uuid.uuid4().hex, TRIAL_TAG: "", "role": "selection", "workload": record.subject}
    return {**own, **origin, "mlflow.note.content": note}


def _parameters(record: SelectionRecord) -> dict[str, Any]:
    """Of the run, then of each layer: whatever any layer has that is not the default."""
    budgets = {"step_budget": record.step_budget, "memory_budget": record.memory_budget}
    values = {**record.optimizer, "lr_schedule": record.lr_schedule, "batch_size": record.batch_size, **budgets}
    names = _told(record)
    for choice in record.layers:
        layer = choice.layer or _MODEL
        if choice.settings is None:
            values[of_layers("granularity", layer)] = "none"
            continue
        values |= {of_layers(name, layer): getattr(choice.settings, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _told(record: SelectionRecord) -> list[str]:
    default = FisherSettings()

    def differs(name: str) -> bool:
        return any(getattr(each, name) != getattr(default, name) for each in record.settings.values())

    fields = [field.name for field in dataclasses.fields(FisherSettings)]
    return [name for name in fields if name in _ALWAYS or differs(name)]


def _metrics(record: SelectionRecord) -> dict[str, float]:
    """Numbers by MLflow name; what is not finite stays out, as MLflow has no place for it."""
    found: dict[str, float] = {}
    for name, value in _numbers(record).items():
        if value is not None and math.isfinite(value):
            (known,) = parameters({name: value})  # the name that MLflow accepts
            found[known] = float(value)
    return found


def _numbers(record: SelectionRecord) -> dict[str, float | None]:
    step, measured = record.step, record.step.measured
    numbers: dict[str, float | None] = {
        "selection/gain": record.gain,
        "selection/bound": record.bound,
        "selection/step_ratio": step.ratio,
        "selection/step_ratio_measured": measured / step.sgd if measured is not None else None,
        "selection/step_seconds": step.predicted,
        "selection/seconds": record.seconds,
        "selection/held_out_loss": record.rates[0].loss if record.rates else None,
        "selection/layers": len(record.settings),
        "selection/bytes": sum(choice.bytes for choice in record.layers),
    }
    for choice in record.layers:
        numbers |= {f"layer/{choice.layer}/{name}": getattr(choice, name) for name in ("gain", "seconds", "bytes")}
    for probe in record.probes:
        numbers |= _flat(f"layer/{probe.layer}", dataclasses.asdict(probe))
    return numbers


def _flat(prefix: str, values: Mapping[Any, Any]) -> dict[str, float | None]:
    """Numbers of a nested mapping by path; words are left out."""
    flat: dict[str, float | None] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(f"{prefix}/{name}", value)
        elif isinstance(value, int | float):
            flat[f"{prefix}/{name}"] = value
    return flat
