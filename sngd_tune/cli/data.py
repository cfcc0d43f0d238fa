"""Data sets: data."""

from pathlib import Path
from typing import Annotated

import typer

from sngd_tune.cli.app import Code, app
from sngd_tune.cli.options import DataDir, Format, OutputFormat, path_from
from sngd_tune.display import print_json, print_table, say
from sngd_tune.errors import ConfigurationError


@app.command("data")
def convert_data(
    name: Annotated[
        str | None, typer.Argument(metavar="SET", help="Data set, such as mnist; --list names all.")
    ] = None,
    source: Annotated[
        Path | None, typer.Argument(metavar="SOURCE", help="Folder, or tar archive, of the set's original files.")
    ] = None,
    data_dir: DataDir = None,
    list_sets: Annotated[
        bool, typer.Option("--list", help="Print the sets, their original files, and which are there.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Verify the checksums of the files that are there.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse files that are not the published ones.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Convert the original files of a data set to the Parquet files that the workloads read."""
    folder = data_dir or path_from("SNGD_TUNE_DATA")
    if (list_sets or check) and source is not None:
        raise ConfigurationError(f"{source}: --list and --check take no source; leave it out")
    if list_sets and check:
        raise ConfigurationError("--list: cannot go with --check; ask for one of them")
    if list_sets:
        _list_data(name, folder, output)
        return
    if folder is None:
        raise ConfigurationError("data: needs a data directory; name it with --data-dir or SNGD_TUNE_DATA")
    if check:
        _check_data(name, folder, strict, output)
    elif name is None or source is None:
        raise ConfigurationError("data: needs a set and the folder of its files; `sngd-tune data --list` shows both")
    else:
        _convert_data(name, source, folder, strict, force, output)


def _list_data(name: str | None, folder: Path | None, output: Format) -> None:
    from sngd_tune.datasets.catalogue import list_files

    rows = list(list_files(folder, name))
    if output is Format.JSON:
        print_json({"schema": 1, "rows": rows})
        return
    words = {None: "", True: "yes", False: "no"}
    cells = [{**row, "originals": " ".join(row["originals"]), "present": words[row["present"]]} for row in rows]
    print_table("data sets", tuple(cells[0]), [tuple(row.values()) for row in cells])


def _check_data(name: str | None, folder: Path, strict: bool, output: Format) -> None:
    from sngd_tune.datasets.check import check_files

    findings = list(check_files(folder, name))
    if output is Format.JSON:
        print_json({"schema": 1, "rows": [vars(finding) for finding in findings]})
    else:
        columns = ("file", "rows", "status", "detail")
        print_table(f"data sets in {folder}", columns, [tuple(vars(finding).values()) for finding in findings])
    refused = {"damaged", "not published"} if strict else {"damaged"}
    if any(finding.status in refused for finding in findings):
        raise typer.Exit(Code.FAILED)


def _convert_data(name: str, source: Path, folder: Path, strict: bool, force: bool, output: Format) -> None:
    from sngd_tune.datasets.convert import convert

    written = convert(name, source, folder, strict=strict, force=force)
    for warning in (text for file in written for text in file.strangers):
        say(f"warning: {warning}")
    if output is Format.JSON:
        print_json({"schema": 1, "rows": [{**vars(file), "path": str(file.path)} for file in written]})
    else:
        print_table(f"converted to {folder}", ("file", "rows"), [(file.path, file.rows) for file in written])
