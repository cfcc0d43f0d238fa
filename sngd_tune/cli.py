"""The command line: thin, and quick to answer. What is heavy is imported inside the command that needs it.

Data goes to standard output, messages and progress to standard error. Exit codes: 0 done, 1 failed, 2 bad usage or
configuration, 3 partial result, 130 interrupted. A flag wins over ``SNGD_TUNE_DATA``, ``SNGD_TUNE_RUNS`` and
``SNGD_TUNE_TRACKING_URI``, these over the study file, and the file over the defaults.
"""

import json
import os
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

try:
    import typer
    import typer.core
except ImportError as error:
    raise SystemExit("sngd-tune: needs packages of the extra 'tune': pip install 'sngd_tune[tune]'") from error

from sngd_tune import __version__
from sngd_tune.display import parameters_text, print_json, print_renderable, print_table, say
from sngd_tune.errors import ConfigurationError, SngdTuneError, StudyHeldError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sngd_tune.launch import StudyResult
    from sngd_tune.records.study import StudyConfig
    from sngd_tune.search.space import SearchSpace

__all__ = ["app", "main"]

_FAILED, _BAD_INPUT, _PARTIAL, _INTERRUPTED = 1, 2, 3, 130
_BEST_SHOWN = 6


class Format(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"


class _Group(typer.core.TyperGroup):
    """Turns errors that sngd_tune raises on purpose into a message and an exit code; others keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SngdTuneError as error:
            say(f"sngd-tune: {error}")
            bad_input = isinstance(error, ConfigurationError | StudyHeldError)
            raise typer.Exit(_BAD_INPUT if bad_input else _FAILED) from error
        except KeyboardInterrupt as error:
            say("sngd-tune: interrupted")
            raise typer.Exit(_INTERRUPTED) from error


app = typer.Typer(
    cls=_Group,
    name="sngd-tune",
    help="Tune structured natural gradient descent: Ray runs the trials, Optuna proposes them, MLflow shows them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
bench = typer.Typer(help="Measure what SNGD and a study cost, as ratios taken in one process.", no_args_is_help=True)
app.add_typer(bench, name="bench")

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


def main() -> None:
    """Entry point of the `sngd-tune` script."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of every command."""


@app.command()
def run(
    file: StudyFile,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Run directory; default: a new one in SNGD_TUNE_RUNS, or in ./runs.")
    ] = None,
    data_dir: DataDir = None,
    address: Address = None,
    overrides: Overrides = None,
    tracking_uri: TrackingUri = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Run a study: search, then train the winner again on fresh seeds."""
    config = _load(file, overrides, data_dir, tracking_uri)
    directory = directory or _runs() / f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    from sngd_tune.launch import run_study
    from sngd_tune.progress import make_progress

    say(f"study {config.name} in {directory}")
    with make_progress(config) as progress:
        result = run_study(config, directory, address=address, listeners=[progress])
    _conclude(result, output)


@app.command()
def validate(
    file: StudyFile,
    data_dir: DataDir = None,
    overrides: Overrides = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Check a study file, its workload and its data; print the space and three sampled trials. Nothing is started."""
    config = _load(file, overrides, data_dir)
    from sngd_tune.search.space import SearchSpace

    _show_space(config, SearchSpace(config), output)
    from sngd_tune.workloads.registry import load_data

    load_data(config.workload, config.data_dir, config.objectives, config.fishers)
    say(f"{file}: valid")


@app.command()
def status(directory: RunDirectory, output: OutputFormat = Format.TABLE) -> None:
    """Print how far a study is: outcomes and best trials."""
    from sngd_tune.progress import Tally
    from sngd_tune.records.ranking import rank
    from sngd_tune.report.tables import trials_table
    from sngd_tune.tracking.directory import holder
    from sngd_tune.tracking.ledger import Ledger

    ledger = Ledger.open(directory)
    trials = ledger.trials()
    tally = Tally(ledger.config, {record.trial: record for record in trials})
    named = holder(directory)
    if output is Format.JSON:
        found = {"schema": 1, "study": ledger.config.name, "directory": directory, "holder": named}
        counts = {"trials_total": tally.total, "trials_finished": tally.finished}
        print_json({**found, **counts, "trials": [record.to_dict() for record in trials]})
        return
    print(f"{ledger.config.name}: {tally.finished} of {tally.total} trials finished, {_holder_text(named)}")
    print(tally.outcomes() or "none begun")
    best = rank(trials, ledger.config.objectives[0])[:_BEST_SHOWN]
    if best:
        print_renderable(trials_table("best trials", best, ledger.config.objectives))


@app.command()
def resume(directory: RunDirectory, address: Address = None, output: OutputFormat = Format.TABLE) -> None:
    """Continue a study that was interrupted; no finished trial is repeated."""
    from sngd_tune.launch import resume_study
    from sngd_tune.progress import make_progress
    from sngd_tune.tracking.ledger import Ledger

    ledger = Ledger.open(directory)
    with make_progress(ledger.config, ledger.trials()) as progress:
        result = resume_study(directory, address=address, listeners=[progress])
    _conclude(result, output)


@app.command()
def report(directory: RunDirectory, output: OutputFormat = Format.TABLE) -> None:
    """Print what a study found, from its ledger alone."""
    from sngd_tune.report.summary import study_report
    from sngd_tune.report.tables import report_tables

    found = study_report(directory)
    if output is Format.JSON:
        print_json(found.to_dict())
    else:
        print_renderable(report_tables(found))


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
    from sngd_tune.tracking.redaction import redact

    uri = ui_store(directory, _runs(), _tracking_uri(tracking_uri))
    if uri.startswith(("http://", "https://")):
        say("the runs are on a server of their own:")
        print(redact(uri))
        return
    say(f"serving {redact(uri)}")
    serve_ui(uri, port)


@app.command()
def sync(directory: RunDirectory, tracking_uri: TrackingUri = None, output: OutputFormat = Format.TABLE) -> None:
    """Send MLflow what it has missed of a study; each record arrives once."""
    from sngd_tune.tracking.sync import sync_study

    result = sync_study(directory, _tracking_uri(tracking_uri))
    if output is Format.JSON:
        print_json({"schema": 1, "written": result.written, "already": result.already})
    else:
        print(f"{result.written} records written, {result.already} were there already")


@app.command()
def doctor(
    data_dir: DataDir = None,
    tracking_uri: TrackingUri = None,
    port: Port = 5000,
    ray: Annotated[bool, typer.Option("--ray", help="Also start a local Ray and stop it again.")] = False,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Check whether this machine is ready for a study."""
    from sngd_tune.doctor import run_checks

    folder = data_dir or _path_from("SNGD_TUNE_DATA")
    uri = _tracking_uri(tracking_uri)
    checks = list(run_checks(data_dir=folder, runs=_runs(), tracking_uri=uri, port=port, start_ray=ray))
    if output is Format.JSON:
        print_json({"schema": 1, "rows": [vars(check) for check in checks]})
    else:
        rows = [(check.name, check.status, check.detail, check.remedy) for check in checks]
        print_table("doctor", ("check", "status", "detail", "remedy"), rows)
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(_FAILED)


@bench.command("step")
def bench_step(
    tasks: Annotated[
        list[str] | None, typer.Option("--task", help="mnist_mlp, cnn, lstm or transformer; default: all. Repeatable.")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option("--threads", min=1, help="CPU threads; default: 1 and 2. Repeatable.")
    ] = None,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, help="Blocks of 50 steps; slow tasks get a fraction of them.")
    ] = 25,
    peers: Annotated[bool, typer.Option("--peers", help="Also time the optimizers of other packages.")] = False,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Time of an SNGD step over one of torch.optim.SGD, for each task and granularity."""
    from sngd_tune.bench.step import measure
    from sngd_tune.bench.tasks import TASKS

    rows = measure(rounds, threads or (1, 2), tasks or tuple(TASKS), peers, announce=say)
    _show_bench("time of a step, as a ratio", rows, output)


@bench.command("roots")
def bench_roots(
    sizes: Annotated[
        list[int] | None,
        typer.Option("--sizes", min=1, help="Size of the matrix; default: 64 256 512 1024 2048. Repeatable."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads.")] = 1,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Roots of each kind; large sizes get fewer.")] = 25,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Time and error of each root over the size of the matrix."""
    from sngd_tune.bench.roots import SIZES, measure

    rows = measure(sizes or SIZES, rounds, threads, announce=say)
    _show_bench("time of a root, and its error", rows, output)


@bench.command("convergence")
def bench_convergence(
    workloads: Annotated[
        list[str] | None, typer.Option("--workload", help="Default: one of each kind of layer. Repeatable.")
    ] = None,
    data_dir: DataDir = None,
    steps: Annotated[int, typer.Option("--steps", min=20, help="Of training, for each candidate.")] = 600,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Examples per step.")] = 128,
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads.")] = 1,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Steps and seconds to the loss that the best of plain SGD and AdamW ends at: what the defaults were chosen by."""
    from sngd_tune.bench.convergence import WORKLOADS, measure

    folder = data_dir or os.environ.get("SNGD_TUNE_DATA")
    rows = measure(workloads or WORKLOADS, Path(folder) if folder else None, steps, batch_size, threads, announce=say)
    _show_bench("steps and seconds to the target", rows, output)


@bench.command("trials")
def bench_trials(output: OutputFormat = Format.TABLE) -> None:
    """Wall-clock of a study over the same trials in a bare loop."""
    from sngd_tune.bench.trials import measure

    _show_bench("time of a study, as a ratio", measure(), output)


def _show_bench(title: str, rows: "Sequence[Mapping[str, Any]]", output: Format) -> None:
    if output is Format.JSON:
        print_json({"schema": 1, "rows": rows})
    else:
        columns = list(dict.fromkeys(column for row in rows for column in row))
        print_table(title, columns, [[row.get(column) for column in columns] for row in rows])


def _load(
    file: Path, overrides: list[str] | None, data_dir: Path | None, tracking_uri: str | None = None
) -> "StudyConfig":
    """The study of a file, under the environment, under ``--set``, under the flags."""
    from sngd_tune.search.load import load_study

    environment = (("data_dir", os.environ.get("SNGD_TUNE_DATA")), ("mlflow.tracking_uri", _tracking_uri(None)))
    flags = (("data_dir", str(data_dir) if data_dir else None), ("mlflow.tracking_uri", tracking_uri))
    return load_study(file, [*_as_overrides(environment), *(overrides or ()), *_as_overrides(flags)])


def _as_overrides(values: tuple[tuple[str, str | None], ...]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in values if value]  # JSON, so that YAML reads a word


def _runs() -> Path:
    return _path_from("SNGD_TUNE_RUNS") or Path("runs")


def _tracking_uri(flag: str | None) -> str | None:
    return flag or os.environ.get("SNGD_TUNE_TRACKING_URI") or None


def _path_from(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value else None


def _show_space(config: "StudyConfig", space: "SearchSpace", output: Format) -> None:
    rows, samples = space.rows(), space.samples(3, config.search.seed)
    if output is Format.JSON:
        print_json(
            {
                "schema": 1,
                "study": config.model_dump(mode="json", by_alias=True),
                "space": [vars(row) for row in rows],
                "samples": samples,
            }
        )
        return
    columns = ("parameter", "kind", "range", "scale", "condition", "default", "meaning")
    print_table(f"space of {config.name}", columns, [tuple(vars(row).values()) for row in rows])
    print_table(
        "three sampled trials", ("", "parameters"), [(i + 1, parameters_text(p)) for i, p in enumerate(samples)]
    )


def _holder_text(named: dict[str, Any] | None) -> str:
    """Who runs the study; a process that died could not take its name away."""
    import socket

    import psutil

    if named is None:
        return "not running"
    gone = named["host"] == socket.gethostname() and not psutil.pid_exists(named["pid"])
    return f"{'abandoned' if gone else 'run'} by process {named['pid']} on {named['host']}"


def _conclude(result: "StudyResult", output: Format) -> None:
    """Print what a run found, and leave with its exit code."""
    from sngd_tune.report.summary import study_report
    from sngd_tune.report.tables import report_tables

    found = study_report(result.directory)
    if output is Format.JSON:
        print_json({**found.to_dict(), "directory": result.directory, "outcome": result.outcome})
    else:
        print_renderable(report_tables(found, limit=_BEST_SHOWN))
        _show_use(result)
    if result.mirror_missed:
        say(f"MLflow lacks {result.mirror_missed} records; `sngd-tune sync {result.directory}` sends them")
    if result.outcome == "interrupted":
        say(f"interrupted; `sngd-tune resume {result.directory}` goes on and repeats no finished trial")
        raise typer.Exit(_INTERRUPTED)
    if result.outcome == "partial":
        say("no trial completed" if result.best is None else "the best settings could not be confirmed")
        raise typer.Exit(_FAILED if result.best is None else _PARTIAL)


def _show_use(result: "StudyResult") -> None:
    from sngd_tune.launch import trial_config
    from sngd_tune.recipe import usage
    from sngd_tune.tracking.ledger import Ledger

    if result.best is None:
        return
    path = result.directory / "best.yaml"
    print(
        f"\nbest settings: {path}\n\n{usage(trial_config(result.best, Ledger.open(result.directory).config), path)}\n"
    )
    say(f"see them in MLflow: sngd-tune ui {result.directory}")
