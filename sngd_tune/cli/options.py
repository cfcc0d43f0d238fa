"""Options that several commands have, and what they mean together with the environment."""

import json
import os
import time
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
    "RunDirectory",
    "StudyFile",
    "TrackingUri",
    "new_directory",
    "path_from",
    "runs",
    "tracking_store",
    "with_places",
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
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of the data sets. Environment: SNGD_TUNE_DATA.")
]
Address = Annotated[str | None, typer.Option("--address", help="Ray cluster to join; default: start a local Ray.")]
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
    environment = (("data_dir", os.environ.get("SNGD_TUNE_DATA")), ("mlflow.tracking_uri", tracking_store(None)))
    flags = (("data_dir", str(data_dir) if data_dir else None), ("mlflow.tracking_uri", tracking_uri))
    return [*_as_overrides(environment), *(overrides or ()), *_as_overrides(flags)]


def _as_overrides(values: tuple[tuple[str, str | None], ...]) -> list[str]:
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


def path_from(variable: str) -> Path | None:
    """The path in a variable of the environment."""
    value = os.environ.get(variable)
    return Path(value) if value else None
