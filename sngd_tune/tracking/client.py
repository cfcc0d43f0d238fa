"""Getting at MLflow: deferred import, short timeouts, errors in our words."""

import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sngd_tune.errors import MissingDependencyError, SngdTuneError
from sngd_tune.redaction import redact

__all__ = ["MirrorError", "connect", "default_tracking_uri", "mirror_errors", "require_mlflow"]

#: MLflow reads these whenever it acts; its own defaults block for 4 minutes on a dead server and for 20 on a hung one.
#: One try and no more: a hidden retry of a request that did arrive would create a run twice. A user's values win.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "5",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output is for data
}


class MirrorError(SngdTuneError):
    """MLflow could not take a record; the ledger has it.

    Attributes:
        transient: whether trying again later may help: a server that is down, as against a record it refuses.
    """

    def __init__(self, message: str, transient: bool) -> None:
        super().__init__(message)
        self.transient = transient


def default_tracking_uri(directory: Path | str) -> str:
    """The SQLite store that all studies of a runs directory share: ``sqlite:///<parent of DIR>/mlflow.db``."""
    return f"sqlite:///{Path(directory).absolute().parent / 'mlflow.db'}"


def require_mlflow() -> None:
    """Raise MissingDependencyError where MLflow is not installed, without paying for its import (1.5 s)."""
    if importlib.util.find_spec("mlflow") is None:
        raise MissingDependencyError(
            "mlflow: not installed; pip install 'sngd_tune[mlflow]', or set `mlflow: {enabled: false}` in the study"
        )


def connect(tracking_uri: str) -> Any:
    """An `MlflowClient`; a SQLite store that does not exist is made, which takes 2 s.

    Raises:
        MissingDependencyError: MLflow is not installed.
        MirrorError: the store cannot be opened.
    """
    require_mlflow()
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for chatter in ("mlflow.store.db.utils", "alembic"):
        logging.getLogger(chatter).setLevel(logging.WARNING)
    with mirror_errors(tracking_uri):
        return MlflowClient(tracking_uri)


@contextmanager
def mirror_errors(tracking_uri: str) -> Iterator[None]:
    """Turn whatever MLflow, its database or its transport raises into MirrorError, passwords removed."""
    try:
        yield
    except SngdTuneError:
        raise
    except Exception as error:  # MLflow lets through errors of SQLAlchemy, requests and the file system
        message = redact(f"{tracking_uri}: MLflow did not take a record: {error}")
        raise MirrorError(message, transient=_is_transient(error)) from error


def _is_transient(error: Exception) -> bool:
    # INTERNAL_ERROR is what MLflow says of a refused connection, too.
    code = getattr(error, "error_code", "INTERNAL_ERROR")
    return code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "ENDPOINT_NOT_FOUND")
