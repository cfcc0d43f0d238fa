"""What comparisons and scaling studies, directories that hold several studies, have in common on the command line."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sngd_tune.cli.app import Code
from sngd_tune.cli.options import Format
from sngd_tune.cli.session import RunResult, say_unfinished
from sngd_tune.display import holder_text, print_json, say

if TYPE_CHECKING:
    from sngd_tune.progress import Tally

__all__ = ["conclude_group", "show_group_status"]


def show_group_status(
    kind: str, tally: "Tally", directory: Path, run: str, output: Format, unit: str = "trials"
) -> None:
    """Print how far it is.

    Args:
        kind: the key of its name in JSON.
        tally: of all its studies.
        directory: of it.
        run: how that was named.
        output: how to print.
        unit: what is counted, for the table.
    """
    from sngd_tune.report.energy import energy_text, energy_values
    from sngd_tune.report.summary import budget_of
    from sngd_tune.tracking.directory import holder

    named, used = holder(directory), budget_of(list(tally.trials.values()))
    if output is Format.JSON:
        found = {"schema": 1, kind: tally.name, "directory": run, "holder": named}
        counts = {"trials_total": tally.total, "trials_finished": tally.finished}
        trials = [record.to_dict() for record in tally.trials.values()]
        print_json({**found, **counts, "energy": energy_values(used), "trials": trials})
        return
    print(f"{tally.name}: {tally.finished} of {tally.total} {unit} finished, {holder_text(named)}")
    print(tally.outcomes() or "none begun")
    print(f"energy: {energy_text(used)}")


def conclude_group(result: RunResult, page: str, partial: str, address: str | None) -> None:
    """Say where the rest is, and leave with the exit code of its outcome.

    Args:
        result: how it ended; what was found has been printed.
        page: name of its page.
        partial: what a partial outcome means.
        address: of the cluster that it ran on.
    """
    say_unfinished(result, address)
    say(f"the whole report: {result.directory / page}; in MLflow: sngd-tune ui {result.directory}")
    if result.outcome == "partial":
        say(partial)
        raise typer.Exit(Code.PARTIAL)
