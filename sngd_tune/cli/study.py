"""Studies: run, validate, resume, status."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sngd_tune.cli.app import Code, app
from sngd_tune.cli.comparison import (
    continue_comparison,
    holds_comparison,
    is_comparison,
    show_comparison_status,
    validate_comparison,
)
from sngd_tune.cli.options import (
    Address,
    DataDir,
    Format,
    NewDirectory,
    OutputFormat,
    Overrides,
    Run,
    Storage,
    StudyFile,
    TrackingUri,
    Wait,
    WorkingDir,
    new_directory,
    runs,
    secrets,
    with_places,
    with_storage,
)
from sngd_tune.cli.scale import (
    continue_scaling,
    holds_scaling,
    is_scaling,
    show_scaling_status,
    validate_scaling,
)
from sngd_tune.cli.session import Where, check_cluster, say_unfinished, say_unshared
from sngd_tune.display import holder_text, parameters_text, print_json, print_renderable, print_table, say
from sngd_tune.errors import ConfigurationError
from sngd_tune.redaction import redact

if TYPE_CHECKING:
    from sngd_tune.records.study import StudyConfig
    from sngd_tune.search.space import SearchSpace
    from sngd_tune.study_run import StudyResult

_BEST_SHOWN = 6


@app.command()
def run(
    file: StudyFile,
    directory: NewDirectory = None,
    data_dir: DataDir = None,
    storage: Storage = None,
    address: Address = None,
    working_dir: WorkingDir = None,
    wait: Wait = 0.0,
    overrides: Overrides = None,
    tracking_uri: TrackingUri = None,
    proceed: Annotated[
        bool,
        typer.Option(
            "--continue",
            help="Go on with the study where it has begun, in --dir or its storage: for what repeats failed commands.",
        ),
    ] = False,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Run a study: search, then train the winner again on fresh seeds."""
    config = _load(file, with_storage(overrides, storage), data_dir, tracking_uri)
    check_cluster(address, working_dir)
    if proceed and directory is None:
        raise ConfigurationError("--continue: goes by the run directory; name it with --dir")
    directory = new_directory(directory, config.name)
    from sngd_tune.launch import run_study
    from sngd_tune.progress import Tally, make_progress
    from sngd_tune.tracking.continuation import begun_study

    if proceed and begun_study(config, directory, secrets()) is not None:
        where = Where(storage=None, data_dir=data_dir, address=address, working_dir=working_dir, wait=wait)
        _go_on(directory, where, output)
        return
    say(f"study {config.name} in {directory}")
    say_unshared(directory, address, config.storage)
    with make_progress(Tally.of_study(config)) as progress:
        result = run_study(config, directory, address=address, working_dir=working_dir, wait=wait, listeners=[progress])
    conclude(result, output, address)


@app.command()
def validate(
    file: StudyFile,
    data_dir: DataDir = None,
    overrides: Overrides = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Check a study, comparison or scaling file, its workloads and its data; print what it has. Nothing is started."""
    if is_comparison(file):
        validate_comparison(file, with_places(overrides, data_dir, None), output)
        return
    if is_scaling(file):
        validate_scaling(file, overrides, data_dir, output)
        return
    config = _load(file, overrides, data_dir)
    from sngd_tune.search.space import SearchSpace

    _show_space(config, SearchSpace(config), output)
    from sngd_tune.launch import load_splits

    load_splits(config)
    say(f"{file}: valid")


@app.command()
def status(run: Run, output: OutputFormat = Format.TABLE) -> None:
    """Print how far a study, a comparison or a scaling study is: outcomes and best trials."""
    from sngd_tune.tracking.continuation import viewed

    with viewed(run) as directory:
        if holds_comparison(directory):
            show_comparison_status(directory, run, output)
        elif holds_scaling(directory):
            show_scaling_status(directory, run, output)
        else:
            _show_study_status(directory, run, output)


def _show_study_status(directory: Path, run: str, output: Format) -> None:
    from sngd_tune.progress import Tally
    from sngd_tune.records.ranking import rank
    from sngd_tune.report.energy import energy_text, energy_values
    from sngd_tune.report.summary import budget_of
    from sngd_tune.report.tables import trials_table
    from sngd_tune.tracking.directory import holder
    from sngd_tune.tracking.ledger import Ledger

    ledger = Ledger.open(directory)
    trials = ledger.trials()
    tally = Tally.of_study(ledger.config, trials)
    named = holder(directory)
    if output is Format.JSON:
        found = {"schema": 1, "study": ledger.config.name, "directory": run, "holder": named}
        counts = {"trials_total": tally.total, "trials_finished": tally.finished}
        energy = energy_values(budget_of(trials))
        print_json({**found, **counts, "energy": energy, "trials": [record.to_dict() for record in trials]})
        return
    print(f"{ledger.config.name}: {tally.finished} of {tally.total} trials finished, {holder_text(named)}")
    print(tally.outcomes() or "none begun")
    print(f"energy: {energy_text(budget_of(trials))}")
    best = rank(trials, ledger.config.objectives[0])[:_BEST_SHOWN]
    if best:
        print_renderable(trials_table("best trials", best, ledger.config.objectives))


@app.command()
def resume(
    run: Run,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", help="Where a copy goes, a folder NAME; default: one in SNGD_TUNE_RUNS or ./runs."),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Folder of the same data sets, where they have moved.")
    ] = None,
    address: Address = None,
    working_dir: WorkingDir = None,
    wait: Wait = 0.0,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Continue a study, a comparison or a scaling study that was interrupted; no finished trial is repeated."""
    check_cluster(address, working_dir)
    storage = None
    if "://" in run:
        from sngd_tune.tracking.continuation import fetch_run

        directory, storage = fetch_run(run, directory, runs(), secrets())
    elif directory is not None:
        raise ConfigurationError(f"--dir {directory}: is for a copy in a storage; {run} is resumed where it lies")
    else:
        directory = Path(run)
    where = Where(storage=storage, data_dir=data_dir, address=address, working_dir=working_dir, wait=wait)
    if holds_comparison(directory):
        continue_comparison(directory, where, output)
    elif holds_scaling(directory):
        continue_scaling(directory, where, output)
    else:
        _go_on(directory, where, output)


def _go_on(directory: Path, where: Where, output: Format) -> None:
    from sngd_tune.launch import resume_study
    from sngd_tune.progress import Tally, make_progress
    from sngd_tune.tracking.ledger import Ledger

    ledger = Ledger.open(directory)
    say(f"study {ledger.config.name} goes on in {directory}")
    with make_progress(Tally.of_study(ledger.config, ledger.trials())) as progress:
        result = resume_study(directory, **where, listeners=[progress])
    conclude(result, output, where["address"])


def _load(
    file: Path, overrides: list[str] | None, data_dir: Path | None, tracking_uri: str | None = None
) -> "StudyConfig":
    """The study of a file, under the environment, under ``--set``, under the flags."""
    from sngd_tune.search.load import load_study

    return load_study(file, with_places(overrides, data_dir, tracking_uri))


def _show_space(config: "StudyConfig", space: "SearchSpace", output: Format) -> None:
    rows, samples = space.rows(), space.samples(3, config.search.seed)
    if output is Format.JSON:
        print_json(
            {
                "schema": 1,
                "study": json.loads(redact(config.model_dump_json(by_alias=True))),
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


def conclude(result: "StudyResult", output: Format, address: str | None = None) -> None:
    """Print what a run found, and leave with its exit code."""
    from sngd_tune.report.summary import study_report
    from sngd_tune.report.tables import report_tables

    found = study_report(result.directory)
    if output is Format.JSON:
        print_json({**found.to_dict(), "directory": result.directory, "outcome": result.outcome})
    else:
        print_renderable(report_tables(found, limit=_BEST_SHOWN))
        _show_use(result)
    say_unfinished(result, address)
    if result.outcome == "partial":
        say("no trial completed" if result.best is None else "the best settings could not be confirmed")
        raise typer.Exit(Code.FAILED if result.best is None else Code.PARTIAL)


def _show_use(result: "StudyResult") -> None:
    from sngd_tune.recipe import usage
    from sngd_tune.study_run import trial_config
    from sngd_tune.tracking.ledger import Ledger

    if result.best is None:
        return
    path = result.directory / "best.yaml"
    print(
        f"\nbest settings: {path}\n\n{usage(trial_config(result.best, Ledger.open(result.directory).config), path)}\n"
    )
    say(f"see them in MLflow: sngd-tune ui {result.directory}")
