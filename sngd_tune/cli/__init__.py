"""The command line: thin, and quick to answer. What is heavy is imported inside the command that needs it.

Data goes to standard output, messages and progress to standard error. Exit codes: 0 done, 1 failed, 2 bad usage or
configuration, 3 partial result, 130 interrupted. A flag wins over ``SNGD_TUNE_DATA``, ``SNGD_TUNE_RUNS``,
``SNGD_TUNE_STORAGE`` and ``SNGD_TUNE_TRACKING_URI``, these over the study file, and the file over the defaults.
"""

try:
    import typer  # noqa: F401 - the first thing that is missing without the extra
except ImportError as error:
    raise SystemExit("sngd-tune: needs packages of the extra 'tune': pip install 'sngd_tune[tune]'") from error

from sngd_tune.cli import (  # noqa: F401 - they register their commands
    auto,
    bench,
    cluster,
    comparison,
    data,
    jobs,
    plan,
    results,
    scale,
    service,
    study,
)
from sngd_tune.cli.app import app, main

__all__ = ["app", "main"]
