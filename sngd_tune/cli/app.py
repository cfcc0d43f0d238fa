"""The application itself: its errors, its exit codes, its version."""

import logging
from enum import IntEnum
from typing import Annotated, Any

import typer
import typer.core

from sngd_tune import __version__
from sngd_tune.display import say
from sngd_tune.errors import ConfigurationError, SngdTuneError, StudyHeldError

__all__ = ["Code", "app", "main"]


class Code(IntEnum):
    """Exit codes."""

    FAILED = 1
    BAD_INPUT = 2
    PARTIAL = 3
    INTERRUPTED = 130


#: The commands as `--help` lists them: in the order in which one meets them.
_COMMANDS = (
    *("run", "validate", "status", "resume", "auto", "compare", "scale", "plan", "report", "ui", "sync", "data"),
    *("doctor", "bench", "cluster", "submit", "jobs"),
)


class _Group(typer.core.TyperGroup):
    """Turns errors that sngd_tune raises on purpose into a message and an exit code; others keep their traceback."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=_COMMANDS.index)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SngdTuneError as error:
            say(f"sngd-tune: {error}")
            bad_input = isinstance(error, ConfigurationError | StudyHeldError)
            raise typer.Exit(Code.BAD_INPUT if bad_input else Code.FAILED) from error
        except KeyboardInterrupt as error:
            say("sngd-tune: interrupted")
            raise typer.Exit(Code.INTERRUPTED) from error


app = typer.Typer(
    cls=_Group,
    name="sngd-tune",
    help="Tune structured natural gradient descent: Ray runs the trials, Optuna proposes them, MLflow shows them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry point of the `sngd-tune` script."""
    app()


class _Said(logging.Handler):
    """Says what the package logs: what it waits for, and what it goes on without."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def _hear_log() -> None:
    logger = logging.getLogger("sngd_tune")
    if not any(isinstance(handler, _Said) for handler in logger.handlers):
        logger.addHandler(_Said())
        logger.setLevel(logging.INFO)


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
    _hear_log()
