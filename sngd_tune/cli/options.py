"""Options that several commands have, and what they mean together with the environment."""

import json
import os
import time
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Address",
    "DataDir",
    "Format",
    "NewDirectory",
    "OutputFormat",
    "Overrides",
    "Port",
    "ReportFormat",
    "Run",
    "RunDirectory",
    "Storage",
    "StudyFile",
    "TrackingUri",
    "Wait",
    "WorkingDir",
    "new_directory",
    "path_from",
    "runs",
    "secrets",
    "tracking_store",
    "with_places",
    "with_storage",
]


class Format(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"


class ReportFormat(StrEnum):
    """How a report is printed."""

    TABLE = "table"
    JSON = "json"
    MARKDOWN = "markdown"


StudyFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="Study file (YAML), such as search_spaces/digits_mlp.yaml.")
]
RunDirectory = Annotated[Path, typer.Argument(metavar="DIR", help="Run directory of a study.")]
Run = Annotated[
    str, typer.Argument(metavar="DIR|URI", help="Run directory, or its copy in a storage: s3://bucket/runs/NAME.")
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of the data sets. Environment: SNGD_TUNE_DATA.")
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT|auto",
        help="Head of the Ray cluster to join, from one of its nodes; default: start a local Ray.",
    ),
]
Wait = Annotated[
    float, typer.Option("--wait", min=0.0, help="Seconds that an autoscaling cluster has for the nodes of a trial.")
]
WorkingDir = Annotated[
    Path | None,
    typer.Option(
        "--working-dir",
        help="Folder with your module, which travels to the cluster, less what its .gitignore names; default: the "
        "current one.",
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="PATH|URI",
        help="Shared folder or object store (s3://bucket/prefix) for checkpoints and a copy of the run directory. "
        "Environment: SNGD_TUNE_STORAGE.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a value, such as search.trials=8. Repeatable."),
]
TrackingUri = Annotated[
    str | None, typer.Option("--tracking-uri", help="MLflow store or server. Environment: SNGD_TUNE_TRACKING_URI.")
]
OutputFormat = Annotated[Format, typer.Option("--format", help="How data is printed on standard output.")]
Port = Annotated[int, typer.Option("--port", min=1, max=65535, help="Port on 127.0.0.1.")]
NewDirectory = Annotated[
    Path | None, typer.Option("--dir", help="Run directory; default: a new one in SNGD_TUNE_RUNS, or in ./runs.")
]


def with_places(overrides: list[str] | None, data_dir: Path | None, tracking_uri: str | None) -> list[str]:
    """Overrides of a file by the environment, by ``--set`` and by the flags, the strongest last."""
    environment = (
        ("data_dir", os.environ.get("SNGD_TUNE_DATA")),
        ("mlflow.tracking_uri", tracking_store(None)),
        # No flag: a password would stand in the list of processes.
        ("search.optuna.storage", os.environ.get("SNGD_TUNE_OPTUNA_STORAGE")),
    )
    flags = (("data_dir", str(data_dir) if data_dir else None), ("mlflow.tracking_uri", tracking_uri))
    return [*_as_overrides(environment), *(overrides or ()), *_as_overrides(flags)]


def with_storage(overrides: list[str] | None, storage: str | None) -> list[str]:
    """Overrides of a study by the storage in the environment and by that of the flag."""
    named = os.environ.get("SNGD_TUNE_STORAGE")
    return [*_as_overrides([("storage", named)]), *(overrides or ()), *_as_overrides([("storage", storage)])]


def _as_overrides(values: Iterable[tuple[str, str | None]]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in values if value]  # JSON, so that YAML reads a word


def runs() -> Path:
    """The folder of run directories."""
    return path_from("SNGD_TUNE_RUNS") or Path("runs")


def new_directory(given: Path | None, name: str) -> Path:
    """The run directory of a study or comparison that begins now."""
    return given or runs() / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def tracking_store(flag: str | None) -> str | None:
    """The MLflow store that was named, by a flag or in the environment."""
    return flag or os.environ.get("SNGD_TUNE_TRACKING_URI") or None


def secrets() -> list[str]:
    """URIs of the environment that may have a password, which copies of a study leave out."""
    named = (os.environ.get(f"SNGD_TUNE_{name}") for name in ("TRACKING_URI", "OPTUNA_STORAGE"))
    return [uri for uri in named if uri]


def path_from(variable: str) -> Path | None:
    """The path in a variable of the environment."""
    value = os.environ.get(variable)
    return Path(value) if value else None
