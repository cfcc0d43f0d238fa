"""Comparisons: compare, and what `validate`, `resume`, `status` and `report` do with one."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sngd_tune.cli.app import app
from sngd_tune.cli.group import conclude_group, show_group_status
from sngd_tune.cli.options import (
    Address,
    DataDir,
    Format,
    NewDirectory,
    OutputFormat,
    Overrides,
    ReportFormat,
    Storage,
    TrackingUri,
    Wait,
    WorkingDir,
    new_directory,
    with_places,
    with_storage,
)
from sngd_tune.cli.session import Where, check_cluster, say_unshared
from sngd_tune.display import print_json, print_renderable, print_table, say
from sngd_tune.redaction import redact

if TYPE_CHECKING:
    from sngd_tune.compare import ComparisonResult
    from sngd_tune.progress import Tally


@app.command()
def compare(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Comparison file, such as search_spaces/comparisons/digits.yaml.")
    ],
    directory: NewDirectory = None,
    data_dir: DataDir = None,
    storage: Storage = None,
    address: Address = None,
    working_dir: WorkingDir = None,
    wait: Wait = 0.0,
    overrides: Overrides = None,
    tracking_uri: TrackingUri = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Compare methods under equal budgets: search with each, train the winners again on fresh seeds, report."""
    from sngd_tune.compare import run_comparison
    from sngd_tune.progress import Tally, make_progress
    from sngd_tune.search.comparison import load_comparison

    config, cells = load_comparison(file, with_places(with_storage(overrides, storage), data_dir, tracking_uri))
    check_cluster(address, working_dir)
    directory = new_directory(directory, config.name)
    say(f"comparison {config.name} in {directory}")
    say_unshared(directory, address, config.storage)
    tally = Tally.of_comparison(config.name, [cell.study for cell in cells], config.confirm_seeds, [])
    with make_progress(tally) as progress:
        result = run_comparison(
            config, cells, directory, address=address, working_dir=working_dir, wait=wait, listeners=[progress]
        )
    _conclude(result, output, address)


def is_comparison(file: Path) -> bool:
    """Whether a file describes a comparison and no study."""
    from sngd_tune.search.comparison import is_comparison

    return is_comparison(file)


def holds_comparison(directory: Path) -> bool:
    """Whether a run directory is that of a comparison."""
    from sngd_tune.tracking.comparison import ComparisonManifest

    return ComparisonManifest.present(directory)


def validate_comparison(file: Path, overrides: list[str], output: Format) -> None:
    """Check everything that `compare` would need, and print the cells."""
    from sngd_tune.compare import check_comparison
    from sngd_tune.search.comparison import load_comparison

    config, cells = load_comparison(file, overrides)
    targets = check_comparison(config, cells)
    seconds = {budget.label: budget.seconds for budget in config.workloads}
    rows = [
        {
            "workload": cell.workload,
            "method": cell.method,
            "trials": cell.study.search.trials,
            "seconds each": seconds[cell.workload],
            "target": f"{targets[cell.workload].metric} {targets[cell.workload].value:g}",
            "searched": ", ".join(cell.study.space),
        }
        for cell in cells
    ]
    if output is Format.JSON:
        shown = json.loads(redact(config.model_dump_json(by_alias=True)))
        print_json({"schema": 1, "comparison": shown, "cells": rows})
    else:
        print_table(f"cells of {config.name}", tuple(rows[0]), [tuple(row.values()) for row in rows])
    say(f"{file}: valid")


def continue_comparison(directory: Path, where: Where, output: Format) -> None:
    """What `resume` does."""
    from sngd_tune.compare import resume_comparison
    from sngd_tune.progress import make_progress

    with make_progress(_tally(directory)) as progress:
        result = resume_comparison(directory, **where, listeners=[progress])
    _conclude(result, output, where["address"])


def show_comparison_status(directory: Path, run: str, output: Format) -> None:
    """What `status` does."""
    show_group_status("comparison", _tally(directory), directory, run, output)


def print_comparison(directory: Path, output: Format | ReportFormat) -> None:
    """What `report` does."""
    from sngd_tune.report.comparison.tables import comparison_markdown, comparison_tables
    from sngd_tune.results import comparison_report

    found = comparison_report(directory)
    if output == Format.JSON:
        print_json(found.to_dict())
    elif output is ReportFormat.MARKDOWN:
        print(comparison_markdown(found))
    else:
        print_renderable(comparison_tables(found))


def _tally(directory: Path) -> "Tally":
    from sngd_tune.compare import past_records
    from sngd_tune.progress import Tally
    from sngd_tune.tracking.comparison import ComparisonManifest

    manifest = ComparisonManifest.read(directory)
    studies, seeds = [cell.study for cell in manifest.cells], manifest.config.confirm_seeds
    return Tally.of_comparison(manifest.config.name, studies, seeds, past_records(directory))


def _conclude(result: "ComparisonResult", output: Format, address: str | None) -> None:
    """Print what a comparison found, and leave with its exit code."""
    print_comparison(result.directory, output)
    if result.outcome != "interrupted":
        page = result.directory / "decision.html"
        say(f"adopt it or not, on one page: {page}; with your rate and prices: sngd-tune report --help")
    partial = "a method has no winner, or a winner's training failed; the report says which"
    conclude_group(result, "report.html", partial, address)
