"""Studies as jobs of a cluster: submit, jobs."""

import json
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sngd_tune.cli.app import Code, app
from sngd_tune.cli.options import (
    Format,
    OutputFormat,
    Overrides,
    StudyFile,
    WorkingDir,
)
from sngd_tune.display import print_json, print_table, say
from sngd_tune.errors import ConfigurationError

if TYPE_CHECKING:
    from sngd_tune.cluster.jobs import Job, JobClient
    from sngd_tune.records.study import StudyConfig

jobs = typer.Typer(no_args_is_help=True, help="Studies that were submitted to a cluster.")
app.add_typer(jobs, name="jobs")

Dashboard = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        help="Dashboard of the cluster; default: RAY_API_SERVER_ADDRESS, or http://127.0.0.1:8265.",
    ),
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="Name of the job, as `submit` and `jobs list` print it.")]


@app.command()
def submit(
    file: StudyFile,
    address: Dashboard = None,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Run directory on the cluster; default with --storage: runs/ID.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option("--storage", metavar="PATH|URI", help="As for `run`, seen from the cluster; outlives the job."),
    ] = None,
    data_dir: Annotated[
        str | None,
        typer.Option("--data-dir", help="Folder of the data sets on the cluster; default: what is set there."),
    ] = None,
    tracking_uri: Annotated[
        str | None, typer.Option("--tracking-uri", help="MLflow server; default: what is set on the cluster.")
    ] = None,
    working_dir: WorkingDir = None,
    overrides: Overrides = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Print what it prints, and leave with its exit code.")
    ] = False,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Run a study as a job of a cluster, which goes on when this command has ended. Submitted again, it continues."""
    from sngd_tune.cluster.jobs import new_job, packed
    from sngd_tune.search.load import load_study

    places = [("data_dir", data_dir), ("mlflow.tracking_uri", tracking_uri), ("storage", storage)]
    overrides = [*(overrides or ()), *(f"{key}={json.dumps(place)}" for key, place in places if place)]
    config = load_study(file, overrides)
    _check_open(config)
    job = new_job(config.name)
    directory = _lasting(directory, config, job)
    client = _client(address)
    with packed(file, ":" in config.workload, working_dir) as (folder, name):
        arguments = ["run", name, "--dir", str(directory), "--continue", "--address", "auto"]
        client.submit(job, [*arguments, *(part for value in overrides for part in ("--set", value))], folder)
    if output is Format.JSON:
        print_json({"schema": 1, "job": job, "directory": directory})
    else:
        print(job)
    say(f"`sngd-tune jobs logs {job} --follow` shows it; submitted again with --dir {directory}, it goes on")
    if follow:
        _follow(client, job)
        raise typer.Exit(_exit_code(client.job(job)))


@jobs.command("list")
def list_jobs(address: Dashboard = None, output: OutputFormat = Format.TABLE) -> None:
    """Print all that were submitted, the newest first."""
    found = _client(address).jobs()
    if output is Format.JSON:
        print_json({"schema": 1, "rows": [vars(job) for job in found]})
    else:
        print_table("jobs", ("id", "status", "started", "minutes", "exit"), [_row(job) for job in found])


@jobs.command("status")
def job_status(job: JobId, address: Dashboard = None, output: OutputFormat = Format.TABLE) -> None:
    """Print how a job is, and what Ray says of it."""
    found = _client(address).job(job)
    if output is Format.JSON:
        print_json({"schema": 1, **vars(found)})
    else:
        print_table(job, ("id", "status", "started", "minutes", "exit"), [_row(found)])
        print(found.message)


@jobs.command("logs")
def job_logs(
    job: JobId,
    address: Dashboard = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until it ends; Ctrl-C leaves it running.")] = False,
) -> None:
    """Print what a job has printed."""
    client = _client(address)
    if follow:
        _follow(client, job)
    else:
        print(client.logs(job), end="")


@jobs.command("stop")
def stop_job(job: JobId, address: Dashboard = None) -> None:
    """Stop a job: its study writes down what it has and can go on later."""
    if _client(address).stop(job):
        say(f"{job} is told to stop; `sngd-tune jobs logs {job} --follow` shows it end")
    else:
        say(f"{job} had ended already")


def _client(address: str | None) -> "JobClient":
    from sngd_tune.cluster.dashboard import dashboard_address
    from sngd_tune.cluster.jobs import JobClient

    return JobClient(dashboard_address(address))


def _check_open(config: "StudyConfig") -> None:
    """Raise ConfigurationError where the study holds a password, which the cluster would show."""
    from sngd_tune.redaction import redact

    text = config.model_dump_json()
    if redact(text) != text:
        raise ConfigurationError(
            "the study has a password in a URI, which all who see the cluster's dashboard could read; leave it out, "
            "and set SNGD_TUNE_TRACKING_URI or SNGD_TUNE_OPTUNA_STORAGE on the cluster's nodes"
        )


def _lasting(directory: Path | None, config: "StudyConfig", job: str) -> Path:
    """The run directory of a job. Raises ConfigurationError where it would go with the node."""
    if config.storage is None and (directory is None or not directory.is_absolute()):
        raise ConfigurationError(
            f"--dir {directory or '(none)'}: would be lost with the job's own folder on the head; name a --storage, or "
            "the full path of a --dir that outlives the node"
        )
    return directory or Path("runs") / job


def _follow(client: "JobClient", job: str) -> None:
    client.follow(job, partial(print, end="", flush=True))


def _exit_code(job: "Job") -> int:
    """That of the command; a job that never ran has failed."""
    return Code.FAILED if job.exit_code is None else job.exit_code


def _row(job: "Job") -> tuple[object, ...]:
    started = "" if job.started is None else time.strftime("%F %T", time.localtime(job.started))
    minutes = None if job.started is None else ((job.ended or time.time()) - job.started) / 60
    return job.id, job.status, started, minutes, job.exit_code
