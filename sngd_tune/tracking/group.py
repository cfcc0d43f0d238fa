"""The run of a comparison in MLflow: the parent of its studies' runs, with the comparison's result."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sngd_tune.records.study import GroupConfig, MlflowConfig
from sngd_tune.tracking.client import default_tracking_uri
from sngd_tune.tracking.comparison import ComparisonManifest
from sngd_tune.tracking.entries import parameters
from sngd_tune.tracking.store import STUDY_TAG, TRIAL_TAG, Run, RunStore

__all__ = ["artifacts_beside", "ensure_group", "finish_group", "store_uri"]


def store_uri(directory: Path, mlflow: MlflowConfig, given: str | None = None) -> str:
    """Where the runs of a study or comparison are: as given, as configured, or in SQLite beside its run directory.

    The studies of a comparison share the store that lies beside the comparison's directory.
    """
    return given or mlflow.tracking_uri or default_tracking_uri(_home(directory, mlflow))


def artifacts_beside(directory: Path, mlflow: MlflowConfig, uri: str) -> Path | None:
    """The artifacts' folder of the default store; None: a server decides."""
    home = _home(directory, mlflow)
    return home.parent / "mlartifacts" if uri == default_tracking_uri(home) else None


def ensure_group(store: RunStore, group: GroupConfig) -> Run:
    """The comparison's run, made where it does not exist."""
    found = sorted(store.runs(group.id), key=lambda run: run.run_id)
    if found:
        return found[0]
    tags = {STUDY_TAG: group.id, TRIAL_TAG: "", "role": "comparison", "mlflow.source.name": "sngd-tune"}
    return store.create(group.name, tags, None)


def finish_group(
    directory: Path,
    manifest: ComparisonManifest,
    metrics: Mapping[str, float],
    files: Sequence[Path],
    ended: float,
    tracking_uri: str | None = None,
) -> None:
    """Write the comparison's result to its run, and end it.

    Args:
        directory: of the comparison.
        manifest: of the comparison.
        metrics: finite numbers by name.
        files: artifacts.
        ended: UTC, Unix seconds.
        tracking_uri: as for `Mirror`.

    Raises:
        MirrorError: MLflow cannot be reached, or refuses a record.
    """
    config = manifest.config
    uri = store_uri(directory, config.mlflow, tracking_uri)
    artifacts = artifacts_beside(directory, config.mlflow, uri)
    store = RunStore(uri, config.mlflow.experiment or config.name, artifacts)
    run = ensure_group(store, GroupConfig(id=manifest.comparison_id, name=config.name))
    values = {"candidate": config.candidate, "methods": ", ".join(config.methods), "trials": config.search.trials}
    workloads = ", ".join(budget.label for budget in config.workloads)
    store.log_parameters(run, parameters({**values, "workloads": workloads, "seeds": config.confirm_seeds}))
    store.log_metrics(run, metrics, ended)
    for file in files:
        store.log_file(run, file, "figures" if file.suffix == ".png" else None)
    store.set_status(run, "FINISHED", ended)


def _home(directory: Path, mlflow: MlflowConfig) -> Path:
    """The directory beside which the store lies; that of a study in a comparison is two levels up."""
    return directory.parents[1] if mlflow.group is not None else directory
