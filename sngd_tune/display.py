"""What the command line shows: tables and JSON on standard output, messages on standard error."""

import json
import math
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["holder_text", "parameters_text", "print_json", "print_renderable", "print_table", "say"]

#: Columns for tables where there is no terminal to ask: a pipe should not cut what it is given.
_PIPE_WIDTH = 200


def say(message: str) -> None:
    """A message to the person, not part of the data."""
    print(message, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """A value as JSON; NaN and infinity, which JSON lacks, become null."""
    print(json.dumps(_plain(value), indent=2, ensure_ascii=False))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table with a title. Cells are shown as they are: brackets in them are no markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(cell)) for cell in row))
    print_renderable(table)


def print_renderable(renderable: Any) -> None:
    """What rich can render, on standard output."""
    from rich.console import Console

    if sys.stdout.isatty():
        Console().print(renderable)
        return
    console = Console(width=_PIPE_WIDTH)
    with console.capture() as capture:
        console.print(renderable)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))  # rich pads each line to the full width


def parameters_text(parameters: Mapping[str, Any]) -> str:
    """``base=sgd lr=0.1 …`` on one line."""
    return " ".join(f"{name}={_cell(value)}" for name, value in parameters.items())


def holder_text(named: Mapping[str, Any] | None) -> str:
    """Who runs a study; a process that died could not take its name away."""
    import socket

    import psutil

    if named is None:
        return "not running"
    gone = named["host"] == socket.gethostname() and not psutil.pid_exists(named["pid"])
    heard = f", last heard of {time.strftime('%F %T', time.localtime(named['heard']))}" if "heard" in named else ""
    return f"{'abandoned' if gone else 'run'} by process {named['pid']} on {named['host']}{heard}"


def _cell(value: Any) -> str:
    """A cell's text: floats with four digits, nothing for None."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | str | None) else str(value)
