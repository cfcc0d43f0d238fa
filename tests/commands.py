"""The command line, called as a user calls it."""

from typer.testing import CliRunner

from sngd_tune.cli import app

__all__ = ["invoke"]


def invoke(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr
