"""Scaling studies: scale, and what `validate`, `resume`, `status`, `report` and `sync` do with one."""

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
from sngd_tune.errors import ConfigurationError

if TYPE_CHECKING:
    from sngd_tune.progress import Tally
    from sngd_tune.scale import ScalingResult
    from sngd_tune.tracking.scaling import ScalingManifest


@app.command()
def scale(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Scaling file, such as search_spaces/scaling/digits_width.yaml.")
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
    """Measure how time, memory and progress go with width, depth, batch size, workers, …; fit the laws."""
    from sngd_tune.launch import module_folder
    from sngd_tune.progress import make_progress
    from sngd_tune.scale import run_scaling
    from sngd_tune.scaling_check import check_scaling
    from sngd_tune.search.scaling import load_scaling

    config = load_scaling(file, _places(with_storage(overrides, storage), data_dir, tracking_uri))
    check_cluster(address, working_dir)
    module_folder([config.workload], working_dir)
    directory = new_directory(directory, config.name)
    say(f"scaling study {config.name} in {directory}")
    say_unshared(directory, address, config.storage)
    with make_progress(_tally(check_scaling(config))) as progress:
        result = run_scaling(
            config, directory, address=address, working_dir=working_dir, wait=wait, listeners=[progress]
        )
    _conclude(result, output, address)


def is_scaling(file: Path) -> bool:
    """Whether a file describes a scaling study."""
    from sngd_tune.search.scaling import is_scaling

    return is_scaling(file)


def holds_scaling(directory: Path) -> bool:
    """Whether a run directory is that of a scaling study."""
    from sngd_tune.tracking.scaling import ScalingManifest

    return ScalingManifest.present(directory)


def validate_scaling(file: Path, overrides: list[str] | None, data_dir: Path | None, output: Format) -> None:
    """Check everything that `scale` would need, and print the points."""
    from sngd_tune.scaling_check import check_scaling
    from sngd_tune.search.scaling import load_scaling

    manifest = check_scaling(load_scaling(file, _places(overrides, data_dir, None)))
    variants = {name: variant.name for variant in manifest.variants for name in variant.points}
    rows = [
        {
            "point": point.name,
            "runs in": variants[point.name],
            "workers": point.workers,
            "parameters": ", ".join(f"{name}={value}" for name, value in point.parameters.items()),
        }
        for point in manifest.points
    ]
    if output is Format.JSON:
        seeds = manifest.config.seeds
        counts = {"seeds": seeds, "trainings": len(rows) * seeds}
        print_json({"schema": 1, "name": manifest.config.name, **counts, "points": rows})
    else:
        print_table(f"points of {manifest.config.name}", tuple(rows[0]), [tuple(row.values()) for row in rows])
    tuned = sum(bool(point.tuned) for point in manifest.points)
    candidates = f" ({tuned} of them candidates of tuning)" if tuned else ""
    say(f"{file}: valid: {len(rows)} points{candidates}, {len(rows) * manifest.config.seeds} trainings")


def continue_scaling(directory: Path, where: Where, output: Format) -> None:
    """What `resume` does."""
    from sngd_tune.progress import make_progress
    from sngd_tune.scale import resume_scaling
    from sngd_tune.tracking.scaling import ScalingManifest

    with make_progress(_tally(ScalingManifest.read(directory), directory)) as progress:
        result = resume_scaling(directory, **where, listeners=[progress])
    _conclude(result, output, where["address"])


def show_scaling_status(directory: Path, run: str, output: Format) -> None:
    """What `status` does."""
    from sngd_tune.tracking.scaling import ScalingManifest

    tally = _tally(ScalingManifest.read(directory), directory)
    show_group_status("scaling", tally, directory, run, output, unit="trainings")


def report_scaling(directory: Path, output: ReportFormat, page: Path | None) -> None:
    """What `report` does; `page`: also written there."""
    print_scaling(directory, output)
    if page is not None:
        from sngd_tune.scaling_results import write_page_of_scaling

        say(f"page: {write_page_of_scaling(directory, page)}")


def print_scaling(directory: Path, output: Format | ReportFormat) -> None:
    """Print what was found."""
    from sngd_tune.report.scaling.tables import scaling_tables
    from sngd_tune.scaling_results import scaling_report

    found = scaling_report(directory)
    if output == Format.JSON:
        print_json(found.to_dict())
    elif output is ReportFormat.MARKDOWN:
        raise ConfigurationError("--format markdown: is for comparisons; a scaling study has table and json")
    else:
        print_renderable(scaling_tables(found))


def _places(overrides: list[str] | None, data_dir: Path | None, tracking_uri: str | None) -> list[str]:
    """As `with_places`; there is no search, and no storage of Optuna's."""
    return [each for each in with_places(overrides, data_dir, tracking_uri) if not each.startswith("search.optuna.")]


def _tally(manifest: "ScalingManifest", directory: Path | None = None) -> "Tally":
    from sngd_tune.progress import GivenTally
    from sngd_tune.tracking.trainings import trainings

    past = [training.record for training in trainings(directory, manifest)] if directory is not None else []
    studies, each = [variant.study for variant in manifest.variants], manifest.config.seeds
    trials = len(manifest.points) * each
    return GivenTally.of_trials(manifest.config.name, studies, trials, past)


def _conclude(result: "ScalingResult", output: Format, address: str | None) -> None:
    """Print what a scaling study found, and leave with its exit code."""
    print_scaling(result.directory, output)
    partial = "a training failed, or a point does not fit; the report says which"
    conclude_group(result, "scaling.html", partial, address)
