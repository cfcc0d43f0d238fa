"""What comparisons and scaling studies, directories that hold several studies, have in common on the command line."""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import typer

from sngd_tune.cli.app import Code
from sngd_tune.cli.options import Format
from sngd_tune.display import holder_text, print_json, say

if TYPE_CHECKING:
    from sngd_tune.progress import Tally

__all__ = ["GroupResult", "conclude_group", "show_group_status"]


class GroupResult(Protocol):
    """How it ended: `compare.ComparisonResult` or `scale.ScalingResult`."""

    @property
    def directory(self) -> Path: ...

    @property
    def outcome(self) -> str: ...

    @property
    def mirror_missed(self) -> int: ...


def show_group_status(kind: str, tally: "Tally", directory: Path, output: Format, unit: str = "trials") -> None:
    """Print how far it is.

    Args:
        kind: the key of its name in JSON.
        tally: of all its studies.
        directory: of it.
        output: how to print.
        unit: what is counted, for the table.
    """
    from sngd_tune.tracking.directory import holder

    named = holder(directory)
    if output is Format.JSON:
        found = {"schema": 1, kind: tally.name, "directory": directory, "holder": named}
        counts = {"trials_total": tally.total, "trials_finished": tally.finished}
        print_json({**found, **counts, "trials": [record.to_dict() for record in tally.trials.values()]})
        return
    print(f"{tally.name}: {tally.finished} of {tally.total} {unit} finished, {holder_text(named)}")
    print(tally.outcomes() or "none begun")


def conclude_group(result: GroupResult, page: str, partial: str) -> None:
    """Say where the rest is, and leave with the exit code of its outcome.

    Args:
        result: how it ended; what was found has been printed.
        page: name of its page.
        partial: what a partial outcome means.
    """
    if result.mirror_missed:
        say(f"MLflow lacks {result.mirror_missed} records; `sngd-tune sync {result.directory}` sends them")
    if result.outcome == "interrupted":
        say(f"interrupted; `sngd-tune resume {result.directory}` goes on and repeats no finished trial")
        raise typer.Exit(Code.INTERRUPTED)
    say(f"the whole report: {result.directory / page}; in MLflow: sngd-tune ui {result.directory}")
    if result.outcome == "partial":
        say(partial)
        raise typer.Exit(Code.PARTIAL)
