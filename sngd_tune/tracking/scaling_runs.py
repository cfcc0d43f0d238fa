"""A scaling study in MLflow: a parent run, and one child for each point.

A child has the values of all axes as parameters and the means of its trainings as metrics: select them, and *Chart*
draws any measure against any axis. The parent has each curve as a metric whose steps are the values of the axis,
``width/step_seconds/sngd``, so that its own charts are the scaling curves; laws and figures are its artifacts.

Everything may be written again: what is there already is the same to MLflow. So a study that goes on adds to its runs.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sngd_tune.records.scaling import PlannedPoint
from sngd_tune.records.strict import Scalar
from sngd_tune.scaling.series import Series
from sngd_tune.tracking.entries import parameters
from sngd_tune.tracking.group import artifacts_beside, store_uri
from sngd_tune.tracking.mirror import SyncResult
from sngd_tune.tracking.scaling import ScalingManifest
from sngd_tune.tracking.store import STUDY_TAG, TRIAL_TAG, Run, RunStore

__all__ = ["log_scaling"]


def log_scaling(
    directory: Path,
    manifest: ScalingManifest,
    points: Sequence[tuple[PlannedPoint, Mapping[str, float]]],
    series: Sequence[Series],
    files: Sequence[Path],
    ended: float,
    tracking_uri: str | None = None,
) -> SyncResult:
    """Write a scaling study as far as it is.

    Args:
        directory: of the study.
        manifest: of the study.
        points: all of whose trainings have ended, with means of what these measured; none: they all failed.
        series: of the study.
        files: artifacts of the parent.
        ended: UTC, Unix seconds.
        tracking_uri: as for `Mirror`.

    Raises:
        ConfigurationError: the experiment was deleted in MLflow.
        MirrorError: MLflow cannot be reached, or refuses a record.
        MissingDependencyError: MLflow is not installed.
    """
    config, directory = manifest.config, directory.absolute()
    uri = store_uri(directory, config.mlflow, tracking_uri)
    store = RunStore(uri, config.mlflow.experiment or config.name, artifacts_beside(directory, config.mlflow, uri))
    runs = {run.tags[TRIAL_TAG]: run for run in store.runs(manifest.scaling_id)}
    parent = runs.get("") or store.create(config.name, _parent_tags(manifest), manifest.created)
    store.log_parameters(parent, parameters(_study(manifest)))
    for point, measures in points:
        run = runs.get(point.name) or store.create(point.name, _point_tags(manifest, point, parent), manifest.created)
        store.log_parameters(run, parameters({"method": point.method, **point.parameters, **point.axes}))
        store.log_metrics(run, _finite(measures), manifest.created)
        store.set_status(run, "FINISHED" if measures else "FAILED", ended)
    if len(points) == len(manifest.points):
        for each in series:
            _log_curve(store, parent, each, manifest.created)
        store.set_status(parent, "FINISHED", ended)
    for file in files:
        store.log_file(parent, file, "figures" if file.suffix == ".png" else None)
    there = sum(point.name in runs for point, _ in points)
    return SyncResult(written=len(points) - there, already=there)


def _log_curve(store: RunStore, parent: Run, curve: Series, time: float) -> None:
    """Where the values of the axis are whole numbers, which steps are."""
    steps = {value: curve.mean(value) for value in curve.values if type(value) is int}
    (name,) = parameters({f"{curve.axis}/{curve.measure}/{curve.label.replace(', ', '/')}": ""})
    store.log_series(parent, name, {step: mean for step, mean in steps.items() if math.isfinite(mean)}, time)


def _study(manifest: ScalingManifest) -> dict[str, Any]:
    config = manifest.config
    axes: dict[str, Scalar] = {f"axis {axis}": ", ".join(map(str, values)) for axis, values in config.axes.items()}
    return {"workload": config.workload, "methods": ", ".join(config.methods), "seeds": config.seeds, **axes}


def _parent_tags(manifest: ScalingManifest) -> dict[str, str]:
    note = (
        f"Scaling of `{manifest.config.workload}` along {', '.join(manifest.config.axes)}. *Model metrics*: the "
        "curves, with the values of the axis as steps (both axes of a chart can be logarithmic). Child runs: points. "
        "`scaling.html` and `fits.json` are under *Artifacts*."
    )
    return {
        STUDY_TAG: manifest.scaling_id,
        TRIAL_TAG: "",
        "role": "scaling",
        "workload": manifest.config.workload,
        "code_version": manifest.code_version,
        "mlflow.source.name": "sngd-tune",
        "mlflow.note.content": note,
    }


def _point_tags(manifest: ScalingManifest, point: PlannedPoint, parent: Run) -> dict[str, str]:
    return {
        STUDY_TAG: manifest.scaling_id,
        TRIAL_TAG: point.name,
        "role": "point",
        "optimizer": point.method,
        "axis": ", ".join(point.moved) or "base",
        "mlflow.parentRunId": parent.run_id,
        "mlflow.source.name": "sngd-tune",
    }


def _finite(measures: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in measures.items() if math.isfinite(value)}
