"""Settings by measurement, and a search around them: auto."""

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sngd_tune.cli.app import app
from sngd_tune.cli.options import (
    DataDir,
    Format,
    NewDirectory,
    OutputFormat,
    TrackingUri,
    new_directory,
    path_from,
    tracking_store,
)
from sngd_tune.display import print_json, print_renderable, say
from sngd_tune.errors import ConfigurationError

if TYPE_CHECKING:
    from sngd_tune.auto_search import Plan, Sources
    from sngd_tune.records.selection import SelectionRecord

_UNITS = {"": 1, "B": 1, **{f"{p}B": 1000**n for n, p in enumerate(("k", "M", "G", "T"), 1)}}
_UNITS |= {f"{p}iB": 1024**n for n, p in enumerate(("K", "M", "G", "T"), 1)}


@app.command()
def auto(
    workload: Annotated[str, typer.Argument(metavar="WORKLOAD", help="A workload's name, or module:attribute.")],
    directory: NewDirectory = None,
    data_dir: DataDir = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Examples of a training batch.")] = 128,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Passes that training will have; helps weight decay.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="The same in steps.")] = None,
    step_budget: Annotated[
        float | None,
        typer.Option(
            "--step-budget", help="Longest step over plain SGD's, such as 1.2; default: the fastest progress."
        ),
    ] = None,
    memory_budget: Annotated[
        str | None, typer.Option("--memory-budget", help="What local Fisher layers may keep, such as 500MiB.")
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="What the selection may take, about; at least 5.")] = 60.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the model, the batches and what else is drawn.")] = 0,
    search: Annotated[
        bool, typer.Option("--search", help="Also search around them; needs --epochs or --steps.")
    ] = False,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Of that search.")] = 10,
    sources: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="DIR",
            help="Of a selection, which is carried over instead of measuring, or of a study, from whose best trials"
            " the search starts. Repeatable.",
        ),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Also print why, and what was measured.")] = False,
    tracking_uri: TrackingUri = None,
    mlflow: Annotated[bool, typer.Option("--mlflow/--no-mlflow", help="Show the selection in MLflow.")] = True,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Choose settings layer by layer for a workload, by measuring its model; with --search, search around them, too."""
    memory = parse_bytes(memory_budget) if memory_budget is not None else None
    from sngd_tune.auto import new_folder, select_for_workload, show_in_mlflow, write_selection
    from sngd_tune.auto_search import Plan, Sources, transferred
    from sngd_tune.redaction import redact

    folder, store = data_dir or path_from("SNGD_TUNE_DATA"), tracking_store(tracking_uri)
    plan = Plan(
        workload=workload,
        data_dir=folder,
        batch_size=batch_size,
        epochs=epochs,
        steps=steps,
        seed=seed,
        mlflow=mlflow,
        tracking_uri=store,
    )
    given = Sources.of(sources or ())
    _check_together(plan, given, search, step_budget is not None or memory is not None)
    with new_folder(new_directory(directory, _folder_name(workload))) as made:
        if given.selection is not None:
            say(f"carrying over the selection of {given.selection}; results will be in {made}")
            record = transferred(given.selection, plan)
        else:
            say(f"measuring {workload} for some {seconds:g} s; results will be in {made}")
            record = select_for_workload(
                workload,
                folder,
                batch_size=batch_size,
                step_budget=step_budget,
                memory_budget=memory,
                epochs=epochs,
                steps=steps,
                seconds=seconds,
                seed=seed,
            ).record
        files = write_selection(record, made)
    if not (search and output is Format.JSON):  # standard output has one document: the study's
        _print(record, files[0], explain, output)
    say(f"all of it on a page: {made / 'selection.html'}")
    if mlflow and show_in_mlflow(record, made, files, store):
        say(f"see it in MLflow: sngd-tune ui {made.parent if store is None else f'--tracking-uri {redact(store)}'}")
    if search:
        _search(record, plan, trials, given, made, output)


def parse_bytes(text: str) -> int:
    """A number of bytes, with a unit or without.

    Raises:
        ConfigurationError: no positive number, or an unknown unit.

    >>> parse_bytes("500MiB"), parse_bytes("1.5 GB"), parse_bytes("4096")
    (524288000, 1500000000, 4096)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text, flags=re.ASCII)
    units = {unit.lower(): size for unit, size in _UNITS.items()}
    if found is None or found[2].lower() not in units:
        raise ConfigurationError(
            f"{text!r}: must be a number of bytes with one of the units {', '.join(filter(None, _UNITS))}"
        )
    value = float(found[1]) * units[found[2].lower()]
    if not 1 <= value < math.inf:
        raise ConfigurationError(f"{text!r}: must be at least one byte, and finite; try 500MiB")
    return int(value)


def _check_together(plan: "Plan", sources: "Sources", search: bool, budget: bool) -> None:
    """Refuse options that say nothing beside each other, before anything is measured."""
    if search:
        plan.check()
    elif sources.studies:
        raise ConfigurationError(f"--from {sources.studies[0]}: is a study, which a search starts from; add --search")
    if sources.selection is not None and budget:
        raise ConfigurationError(
            f"--from {sources.selection}: is a selection that is carried over, and nothing is measured that a budget"
            " could be for; leave --step-budget and --memory-budget out, or --from"
        )


def _search(
    record: "SelectionRecord", plan: "Plan", trials: int, sources: "Sources", directory: Path, output: Format
) -> None:
    """Search around a selection, in its directory, and conclude as `run` does."""
    from sngd_tune.auto_search import search_around
    from sngd_tune.cli.study import conclude
    from sngd_tune.launch import run_study
    from sngd_tune.progress import Tally, make_progress

    study, runs, notes = search_around(record, plan, trials, sources.studies, directory)
    for note in notes:
        say(note)
    say(f"study {study.name} in {runs}")
    with make_progress(Tally.of_study(study)) as progress:
        result = run_study(study, runs, listeners=[progress])
    conclude(result, output)


def _folder_name(workload: str) -> str:
    """``module:attribute`` as a part of a path."""
    return f"auto-{re.sub(r'[^A-Za-z0-9_.-]', '_', workload)}"


def _print(record: "SelectionRecord", file: Path, explain: bool, output: Format) -> None:
    from sngd_tune.report.selection import explanation, overview, selection_values
    from sngd_tune.selection.file import usage

    if output is Format.JSON:
        print_json({**selection_values(record), "file": file})
        return
    print_renderable(explanation(record) if explain else overview(record))
    print(f"\nsettings: {file}\n\n{usage(file)}\n")
