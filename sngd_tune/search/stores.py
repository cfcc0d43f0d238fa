"""Optuna's storages by URI: databases, and journals on a shared file system.

- ``postgresql+psycopg://…``, or what else Optuna's `RDBStorage` takes. SQLite is for one driver: each write locks the
  whole file.
- ``journal:/PATH``: a file of JSON lines, no pickles, for drivers that share a folder and no database. Its lock is a
  file made with ``O_EXCL``, which NFS holds to from version 3 on. A driver that was killed may leave it behind, and
  30 s later the others break it by its own age; Optuna's other lock, a link, has the age of the journal itself.

Each reported epoch is written by the driver: beside memory, a trial of ten costs a journal some 50 times as much of its
time, PostgreSQL on loopback 270 times and SQLite 380 times (44, 250 and 350 ms on a busy machine of two cores).
"""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage

from sngd_tune.errors import ConfigurationError
from sngd_tune.redaction import redact
from sngd_tune.search.memory import quietly

if TYPE_CHECKING:
    from sqlalchemy import URL

__all__ = ["open_storage"]

_JOURNAL = "journal:"

#: A host that swallows packets would hold a first connection for two minutes, and a lost one for fifteen.
_LIBPQ = {"connect_timeout": 10, "tcp_user_timeout": 30_000}

#: At making tables that other drivers make as well.
_ATTEMPTS = 20


@contextmanager
def open_storage(uri: str) -> Iterator[BaseStorage]:
    """The storage, with the tables or the file that it needs; its connections are closed in the end.

    Args:
        uri: URL of a database for SQLAlchemy, or ``journal:`` with an absolute path.

    Raises:
        ConfigurationError: it cannot be read, its driver is missing, or it cannot be reached or opened.
    """
    if uri.startswith(_JOURNAL):
        yield _journal(uri)
        return
    database = _database(uri)
    try:
        yield get_storage(database)  # with Optuna's cache of finished trials
    finally:
        database.engine.dispose()


def _database(uri: str) -> RDBStorage:
    from sqlalchemy import make_url
    from sqlalchemy.exc import SQLAlchemyError

    _check_url(uri)
    try:
        with quietly():
            _make_tables(make_url(uri))
            return _connected(make_url(uri))
    except ImportError as error:
        raise ConfigurationError(
            f"search.optuna.storage={redact(uri)}: its driver is not installed; for postgresql+psycopg:// "
            "pip install 'sngd_tune[postgresql]'"
        ) from error
    except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        raise ConfigurationError(
            f"search.optuna.storage={redact(uri)}: cannot be opened ({reason}); start the server, or correct host, "
            "user, password and database"
        ) from error


def _make_tables(url: "URL") -> None:
    """Make what is missing. Of drivers that make a table in the same moment, PostgreSQL fails all but one."""
    from sqlalchemy.exc import IntegrityError, ProgrammingError
    from sqlalchemy.pool import NullPool

    for attempt in range(_ATTEMPTS):
        try:
            _connected(url, poolclass=NullPool)
        except (IntegrityError, ProgrammingError):
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(random.uniform(0.0, 0.2))
        else:
            return


def _connected(url: "URL", **options: Any) -> RDBStorage:
    given: dict[str, Any] = {}
    if url.get_driver_name() in ("psycopg", "psycopg2"):
        given = {key: value for key, value in _LIBPQ.items() if key not in url.query}
    elif url.get_backend_name() == "sqlite":
        given = {"timeout": 30.0}
    # A connection that a restarted server has forgotten is noticed before it is used.
    options = {"pool_pre_ping": True, "connect_args": given, **options}
    # Rendered: in the text as it was written, Optuna would take braces for places to fill.
    return RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=options)


def _journal(uri: str) -> BaseStorage:
    path = Path(uri.removeprefix(_JOURNAL))
    if not path.is_absolute():
        raise ConfigurationError(
            f"search.optuna.storage={uri}: must be an absolute path, as each driver starts in a folder of its own; "
            f"write {_JOURNAL}{path.absolute()}"
        )
    try:
        return JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
    except (OSError, ValueError, KeyError) as error:
        reason = getattr(error, "strerror", None) or f"its lines are no journal: {error}"
        raise ConfigurationError(
            f"search.optuna.storage={uri}: no journal can be kept there ({reason}); make its folder, or choose another"
        ) from error


def _check_url(uri: str) -> None:
    """Refuse what is no URL, and a password that could not be told from the rest of it where it is to be hidden."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(uri)
        url.get_dialect()
    except ArgumentError as error:
        raise ConfigurationError(
            "search.optuna.storage: neither the URL of a database nor journal:/PATH; write "
            "postgresql+psycopg://USER:PASSWORD@HOST/DATABASE, best into SNGD_TUNE_OPTUNA_STORAGE"
        ) from error
    except ImportError:
        return
    written = uri.partition("://")[2].rpartition("@")[0].partition(":")[2]
    if any(sign in "/\"'" or sign.isspace() for sign in written):
        raise ConfigurationError(
            f"search.optuna.storage={url.render_as_string()}: its password has signs that mean something in a URL; "
            "write / as %2F, a quote as %22 or %27, a blank as %20"
        )
