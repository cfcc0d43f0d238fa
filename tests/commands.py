"""The command line, called as a user calls it."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from typer.testing import CliRunner

from sngd_tune.cli import app

__all__ = ["invoke", "running"]


def invoke(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@contextmanager
def running(command: Sequence[str], **options: Any) -> "Iterator[subprocess.Popen[str]]":
    """A process whose output is kept; killed at the end if it still runs. `options` are those of `Popen`."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # its signals are not ours
        **options,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
