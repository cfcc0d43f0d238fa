"""A storage of Optuna behind a network: what fails because the store is away is asked for again until it is back."""

import json
import logging
import time
from collections.abc import Callable
from typing import Any, cast

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage

from sngd_tune.errors import StudyStorageError

__all__ = ["patient"]

_log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0


def patient(storage: BaseStorage, shown: str, seconds: float) -> BaseStorage:
    """The storage, whose methods wait for a store that is away.

    Args:
        storage: a database or a journal.
        shown: its name in messages, without a password.
        seconds: of patience, ≥ 0, of each call.

    Its methods raise StudyStorageError where the store did not come back, or is broken.
    """
    return cast(BaseStorage, _Patient(storage, shown, seconds))


class _Patient:
    """Stands before a storage. Optuna asks for methods by name and never for the class, so that one does for all."""

    def __init__(self, storage: BaseStorage, shown: str, seconds: float) -> None:
        self._storage, self._shown, self._seconds = storage, shown, seconds

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._storage, name)
        return lambda *arguments, **named: self._insist(lambda: method(*arguments, **named))

    def _insist(self, call: Callable[[], Any]) -> Any:
        pause, limit, lost = _FIRST_PAUSE, time.monotonic() + self._seconds, False
        while True:
            try:
                return call()
            except UpdateFinishedTrialError:
                if not lost:
                    raise
                return True  # the request before did arrive, and only its answer was lost
            except _store_errors() as error:
                reason = _reason(error)
                if not _is_away(error) or time.monotonic() + pause > limit:
                    raise StudyStorageError(
                        f"search.optuna.storage={self._shown}: cannot be used any more ({reason}); every trial is in "
                        "the ledger: bring the storage back, or move a torn journal away, then `sngd-tune resume`"
                    ) from error
                if not lost:
                    _log.warning("%s is away (%s); waiting up to %g s for it", self._shown, reason, self._seconds)
            lost = True
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def _store_errors() -> tuple[type[Exception], ...]:
    """What databases, file systems and torn journals raise, as against Optuna's own refusals."""
    from sqlalchemy.exc import SQLAlchemyError

    return StorageInternalError, SQLAlchemyError, OSError, json.JSONDecodeError


def _is_away(error: Exception) -> bool:
    """Whether waiting may help: no connection, no folder or no lock, as against data that is refused or torn."""
    from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, TimeoutError

    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    lost = isinstance(cause, DBAPIError) and cause.connection_invalidated
    return lost or isinstance(cause, OSError | OperationalError | InterfaceError | TimeoutError)


def _reason(error: Exception) -> str:
    """What the database or the file system says, on one line."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
    return " ".join(str(getattr(cause, "orig", None) or cause).split())
