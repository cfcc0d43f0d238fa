"""What surrounds studies: the MLflow UI, the mirror, the machine."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sngd_tune.cli.app import Code, app
from sngd_tune.cli.comparison import holds_comparison
from sngd_tune.cli.options import (
    DataDir,
    Format,
    OutputFormat,
    Port,
    RunDirectory,
    TrackingUri,
    path_from,
    runs,
    tracking_store,
)
from sngd_tune.cli.scale import holds_scaling
from sngd_tune.display import print_json, print_table, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from sngd_tune.tracking.mirror import SyncResult


@app.command()
def ui(
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="Run directory, or a folder of them; default: SNGD_TUNE_RUNS, or ./runs."),
    ] = None,
    port: Port = 5000,
    tracking_uri: TrackingUri = None,
) -> None:
    """Serve the MLflow UI on 127.0.0.1 until Ctrl-C."""
    from sngd_tune.mlflow_ui import serve_ui, ui_store
    from sngd_tune.redaction import redact

    uri = ui_store(directory, runs(), tracking_store(tracking_uri))
    if uri.startswith(("http://", "https://")):
        say("the runs are on a server of their own:")
        print(redact(uri))
        return
    say(f"serving {redact(uri)}")
    serve_ui(uri, port)


@app.command()
def sync(directory: RunDirectory, tracking_uri: TrackingUri = None, output: OutputFormat = Format.TABLE) -> None:
    """Send MLflow what it has missed of a study, comparison or scaling study; each record arrives once."""
    result = _sync_of(directory)(directory, tracking_store(tracking_uri))
    if output is Format.JSON:
        print_json({"schema": 1, "written": result.written, "already": result.already})
    else:
        print(f"{result.written} records written, {result.already} were there already")


def _sync_of(directory: Path) -> "Callable[[Path, str | None], SyncResult]":
    """What sends the records of what lies in a run directory."""
    from sngd_tune.results import sync_comparison
    from sngd_tune.scaling_results import sync_scaling
    from sngd_tune.tracking.sync import sync_study

    if holds_comparison(directory):
        return sync_comparison
    return sync_scaling if holds_scaling(directory) else sync_study


@app.command()
def doctor(
    data_dir: DataDir = None,
    tracking_uri: TrackingUri = None,
    port: Port = 5000,
    ray: Annotated[bool, typer.Option("--ray", help="Also start a local Ray and stop it again.")] = False,
    address: Annotated[
        str | None,
        typer.Option("--address", help="Also look at each node of this Ray cluster; auto: of this machine's."),
    ] = None,
    storage: Annotated[
        str | None, typer.Option("--storage", help="Also write, read and delete there. Environment: SNGD_TUNE_STORAGE.")
    ] = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Check whether this machine, and a cluster, are ready for a study."""
    from sngd_tune.doctor.checks import run_checks

    checks = list(
        run_checks(
            data_dir=data_dir or path_from("SNGD_TUNE_DATA"),
            runs=runs(),
            tracking_uri=tracking_store(tracking_uri),
            port=port,
            start_ray=ray,
            address=address,
            storage=storage or os.environ.get("SNGD_TUNE_STORAGE"),
            optuna_storage=os.environ.get("SNGD_TUNE_OPTUNA_STORAGE"),
        )
    )
    if output is Format.JSON:
        print_json({"schema": 1, "rows": [vars(check) for check in checks]})
    else:
        rows = [(check.name, check.status, check.detail, check.remedy) for check in checks]
        print_table("doctor", ("check", "status", "detail", "remedy"), rows)
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(Code.FAILED)
