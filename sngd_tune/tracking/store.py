"""The few MLflow operations that the mirror needs, each safe to repeat."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sngd_tune.errors import ConfigurationError
from sngd_tune.tracking.client import connect, mirror_errors
from sngd_tune.tracking.entries import MARK, milliseconds

__all__ = ["EPOCHS_TAG", "STUDY_TAG", "TRIAL_TAG", "Point", "Run", "RunStore"]

STUDY_TAG = "sngd_tune.study_id"
TRIAL_TAG = "sngd_tune.trial"
#: Which epochs a run had when it was finished: seeing it, reconciling need not ask for the metrics.
EPOCHS_TAG = "sngd_tune.epochs"

#: MLflow's UI shows an experiment of unknown kind among its tools for language models.
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}

# MLflow's limits.
_MAX_METRICS = 1000
_PAGE = 1000


class Point(NamedTuple):
    """A value of a metric at a step; `time` is UTC in Unix seconds."""

    name: str
    value: float
    step: int
    time: float


@dataclass
class Run:
    """What is known of a run in MLflow; `steps` is None until it was asked for."""

    run_id: str
    status: str
    tags: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    last_step: int = 0
    steps: set[int] | None = None


class RunStore:
    """The runs of one study in one experiment. Every method raises MirrorError where MLflow cannot be reached.

    Args:
        tracking_uri: an MLflow store or server.
        experiment: name; made where it does not exist.
        artifacts: where the artifacts of a new experiment go; None: where the server wants them.
    """

    def __init__(self, tracking_uri: str, experiment: str, artifacts: Path | None) -> None:
        self._uri = tracking_uri
        self._client = connect(tracking_uri)
        with mirror_errors(tracking_uri):
            self._experiment_id = self._ensure_experiment(experiment, artifacts)

    def runs(self, study_id: str) -> list[Run]:
        """All runs of a study that nobody has deleted."""
        found, token = [], None
        with mirror_errors(self._uri):
            while True:
                page = self._client.search_runs(
                    [self._experiment_id], f"tags.`{STUDY_TAG}` = '{study_id}'", max_results=_PAGE, page_token=token
                )
                found += [_run(entity) for entity in page]
                token = page.token
                if not token:
                    return found

    def create(self, name: str, tags: Mapping[str, str], started: float | None) -> Run:
        """A new run that began at `started` (UTC, Unix seconds; None: now)."""
        start = milliseconds(started) if started is not None else None
        with mirror_errors(self._uri):
            entity = self._client.create_run(self._experiment_id, start_time=start, tags=dict(tags), run_name=name)
        return dataclasses.replace(_run(entity), steps=set())

    def log_parameters(self, run: Run, parameters: Mapping[str, str]) -> None:
        """Write the parameters that the run does not have; MLflow never lets one change."""
        from mlflow.entities import Param

        missing = {key: value for key, value in parameters.items() if key not in run.parameters}
        if missing:
            with mirror_errors(self._uri):
                entries = [Param(key, value) for key, value in missing.items()]
                self._client.log_batch(run.run_id, params=entries, synchronous=True)
            run.parameters |= missing

    def log_step(self, run: Run, metrics: Mapping[str, float], step: int, time: float) -> bool:
        """Write the metrics of one step, `MARK` last; False where the step was there already."""
        from mlflow.entities import Metric

        with mirror_errors(self._uri):
            if run.steps is None:
                run.steps = {metric.step for metric in self._client.get_metric_history(run.run_id, MARK)}
            if step in run.steps:
                return False
            entries = [Metric(key, value, milliseconds(time), step) for key, value in metrics.items()]
            for start in range(0, len(entries), _MAX_METRICS):
                batch = entries[start : start + _MAX_METRICS]
                self._client.log_batch(run.run_id, metrics=batch, synchronous=True)
        run.steps.add(step)
        return True

    def log_metrics(self, run: Run, metrics: Mapping[str, float], time: float) -> None:
        """Write metrics that have no steps; the same ones at the same time are the same points to MLflow."""
        self.log_points(run, [Point(name, value, 0, time) for name, value in metrics.items()])

    def log_points(self, run: Run, points: Sequence[Point]) -> None:
        """Write points of metrics; what is written again stays one point to MLflow."""
        from mlflow.entities import Metric

        with mirror_errors(self._uri):
            for start in range(0, len(points), _MAX_METRICS):
                batch = points[start : start + _MAX_METRICS]
                entries = [Metric(each.name, each.value, milliseconds(each.time), each.step) for each in batch]
                self._client.log_batch(run.run_id, metrics=entries, synchronous=True)

    def set_tags(self, run: Run, tags: Mapping[str, str]) -> None:
        """Set the tags that differ, in one request."""
        from mlflow.entities import RunTag

        changed = {key: value for key, value in tags.items() if run.tags.get(key) != value}
        if changed:
            with mirror_errors(self._uri):
                entries = [RunTag(key, value) for key, value in changed.items()]
                self._client.log_batch(run.run_id, tags=entries, synchronous=True)
            run.tags |= changed

    def set_status(self, run: Run, status: str, ended: float | None = None) -> None:
        """End a run at `ended` (UTC, Unix seconds), or open it again with ``"RUNNING"``."""
        if run.status == status:
            return
        with mirror_errors(self._uri):
            if status == "RUNNING":
                self._client.update_run(run.run_id, status=status)
            else:
                self._client.set_terminated(run.run_id, status, milliseconds(ended) if ended is not None else None)
        run.status = status

    def log_text(self, run: Run, text: str, path: str) -> None:
        """Write a text artifact, over an older one of that path."""
        with mirror_errors(self._uri):
            self._client.log_text(run.run_id, text, path)

    def log_file(self, run: Run, file: Path, folder: str | None = None) -> None:
        """Write a file as an artifact, over an older one of its name."""
        with mirror_errors(self._uri):
            self._client.log_artifact(run.run_id, str(file), folder)

    def delete(self, run: Run) -> None:
        """Move a run to MLflow's bin."""
        with mirror_errors(self._uri):
            self._client.delete_run(run.run_id)

    def _ensure_experiment(self, name: str, artifacts: Path | None) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return self._client.create_experiment(name, artifacts.as_uri() if artifacts else None, _EXPERIMENT_TAGS)
            except MlflowException:
                # Another study has made it in this moment, or our own request timed out and landed.
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise ConfigurationError(
                f"experiment={name!r}: deleted in MLflow; restore it there, or name another under `mlflow: experiment:`"
            )
        return found.experiment_id


def _run(entity: Any) -> Run:
    return Run(
        run_id=entity.info.run_id,
        status=entity.info.status,
        tags=dict(entity.data.tags),
        parameters=dict(entity.data.params),
        last_step=int(entity.data.metrics.get(MARK, 0)),
    )
