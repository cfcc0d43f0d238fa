"""A scaling study in MLflow: a parent run, and one child for each point.

A child has the values of all axes as parameters and the means of its trainings as metrics: select them, and *Chart*
draws any measure against any axis. What the nodes did is a series under *System metrics*, with the trainings for steps.
The parent has each curve as a metric whose steps are the values of the axis, ``width/step_seconds/sngd``, so that its
own charts are the scaling curves; laws and figures are its artifacts.

Everything may be written again: what is there already is the same to MLflow. So a study that goes on adds to its runs.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sngd_tune.records.choice import Choice
from sngd_tune.records.colours import BEST, CATEGORIES
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.scaling import PlannedPoint
from sngd_tune.records.strict import Scalar
from sngd_tune.scaling.measures import Training, means
from sngd_tune.scaling.series import Series
from sngd_tune.tracking.entries import SYSTEM, parameters, study_status
from sngd_tune.tracking.group import artifacts_beside, store_uri
from sngd_tune.tracking.mirror import SyncResult
from sngd_tune.tracking.scaling import ScalingManifest
from sngd_tune.tracking.store import STUDY_TAG, TRIAL_TAG, Point, Run, RunStore
from sngd_tune.tracking.trainings import trainings, trainings_of

__all__ = ["Findings", "ScalingMirror"]


@dataclass(frozen=True)
class Findings:
    """What a scaling study found, as far as it is.

    Attributes:
        series: its curves.
        choices: what was chosen where it tunes.
        files: artifacts of the parent.
    """

    series: Sequence[Series]
    choices: Sequence[Choice]
    files: Sequence[Path]


class ScalingMirror:
    """Writes a scaling study to MLflow. Every method may be repeated at will; one thread at a time.

    Every method raises `MirrorError` where MLflow is not there or refuses a record, ConfigurationError where the
    experiment was deleted in MLflow, and LedgerError where a ledger is damaged.

    Args:
        directory: of the study.
        manifest: of the study.
        tracking_uri: as for `Mirror`.
    """

    def __init__(self, directory: Path, manifest: ScalingManifest, tracking_uri: str | None = None) -> None:
        self._directory = directory.absolute()
        self._manifest = manifest
        self._uri = store_uri(self._directory, manifest.config.mlflow, tracking_uri)
        self._store_or_none: RunStore | None = None
        self._runs: dict[str, Run] | None = None  # by point; the parent under ""

    def ensure_parent(self) -> None:
        """The run of the study, made and opened where needed."""
        self._store.set_status(self._parent(), "RUNNING")

    def log_point(self, name: str) -> bool:
        """Write a point of which nothing is left to train; False where it has a run already."""
        variant = next(each for each in self._manifest.variants if name in each.points)
        found = trainings_of(self._directory, self._manifest, variant)
        return self._log_point([each for each in found if each.point.name == name])

    def reconcile(self, findings: Findings, progress: Callable[[], None] = lambda: None) -> SyncResult:
        """Bring MLflow up to the ledgers, whatever it has so far; `progress` is called after each point."""
        self.forget()
        found = list(trainings(self._directory, self._manifest))
        by_point = {point.name: [each for each in found if each.point.name == point.name] for point in self._points}
        result = SyncResult()
        for name, group in by_point.items():
            if sum(each.record.outcome.finished for each in group) == self._manifest.config.seeds:
                new = self._log_point(group)
                self._store.set_tags(self._known_runs()[name], _choice_tags(group[0].point, findings.choices))
                result += SyncResult(written=new, already=not new)
                progress()
        self._finish(findings, found, result.written + result.already == len(by_point))
        return result

    def forget(self) -> None:
        """Drop what is remembered of MLflow's state: after an error nobody knows whether the last write landed."""
        self._runs = None

    @property
    def _points(self) -> Sequence[PlannedPoint]:
        return self._manifest.points

    @property
    def _store(self) -> RunStore:
        if self._store_or_none is None:
            config = self._manifest.config
            artifacts = artifacts_beside(self._directory, config.mlflow, self._uri)
            self._store_or_none = RunStore(self._uri, config.mlflow.experiment or config.name, artifacts)
        return self._store_or_none

    def _known_runs(self) -> dict[str, Run]:
        if self._runs is None:
            self._runs = {run.tags[TRIAL_TAG]: run for run in self._store.runs(self._manifest.scaling_id)}
        return self._runs

    def _parent(self) -> Run:
        runs = self._known_runs()
        if "" not in runs:
            runs[""] = self._store.create(
                self._manifest.config.name, _parent_tags(self._manifest), self._manifest.created
            )
        self._store.log_parameters(runs[""], parameters(_study(self._manifest)))
        return runs[""]

    def _log_point(self, group: Sequence[Training]) -> bool:
        """Write the trainings of a point, which have all ended; its times are theirs."""
        point, runs = group[0].point, self._known_runs()
        new = point.name not in runs
        if new:
            started = min(each.record.started for each in group)
            tags = _point_tags(self._manifest, point, self._parent())
            runs[point.name] = self._store.create(point.name, tags, started)
        run, ended = runs[point.name], max(_ended(each) for each in group)
        measured = [Point(name, value, 0, ended) for name, value in means(group, self._manifest.target).items()]
        self._store.log_parameters(run, parameters({"method": point.method, **point.parameters, **point.axes}))
        self._store.log_points(run, [each for each in [*measured, *_system(group)] if math.isfinite(each.value)])
        self._store.set_status(run, "FINISHED" if measured else "FAILED", ended)
        return new

    def _finish(self, findings: Findings, found: Sequence[Training], whole: bool) -> None:
        """Curves, files and status of the study; no curve is drawn before all its points are there."""
        parent = self._parent()
        if whole:
            for series in findings.series:
                self._store.log_points(parent, _curve(series, self._manifest.created))
        for file in findings.files:
            self._store.log_file(parent, file, "figures" if file.suffix == ".png" else None)
        outcomes = {each.record.outcome for each in found}
        status = study_status(outcomes if whole or Outcome.RUNNING in outcomes else {Outcome.INTERRUPTED})
        self._store.set_status(parent, status, max((_ended(each) for each in found), default=self._manifest.created))


def _ended(training: Training) -> float:
    return training.record.ended or training.record.updated


def _curve(curve: Series, time: float) -> list[Point]:
    """Where the values of the axis are whole numbers, which steps are; nothing of what is zero all along the axis."""
    (name,) = parameters({f"{curve.axis}/{curve.measure}/{curve.label.replace(', ', '/')}": ""})
    steps = {value: curve.mean(value) for value in curve.values if type(value) is int}
    found = {value: mean for value, mean in steps.items() if math.isfinite(mean)}
    return [Point(name, mean, value, time) for value, mean in found.items()] if any(found.values()) else []


def _system(group: Sequence[Training]) -> list[Point]:
    """What the nodes did: a point of time for each training, the mean over its epochs."""
    found = []
    for training in group:
        names = dict.fromkeys(name for epoch in training.epochs for name in epoch.system)
        for name in names:
            mean = statistics.fmean(epoch.system[name] for epoch in training.epochs if name in epoch.system)
            found.append(Point(f"{SYSTEM}{name}", mean, training.record.number, _ended(training)))
    return found


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
        "mlflow.runColor": _colour(manifest, point.method),
        "mlflow.parentRunId": parent.run_id,
        "mlflow.source.name": "sngd-tune",
    }


def _colour(manifest: ScalingManifest, method: str) -> str:
    """As in the report's figures; MLflow draws a run in the colour that its tag says."""
    colours = (BEST, *CATEGORIES)
    return colours[list(manifest.config.methods).index(method) % len(colours)]


def _choice_tags(point: PlannedPoint, choices: Sequence[Choice]) -> Mapping[str, str]:
    """A candidate's tag ``taken`` names the axes along which it is the best, or says ``no``."""
    own = [choice for choice in choices if choice.has(point)]
    taken = ", ".join(choice.axis for choice in own if choice.taken == point.name)
    return {"taken": taken or "no"} if own else {}
