"""Optuna studies in memory, made without a line in the log."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import optuna

from sngd_tune.records.metrics import Direction

__all__ = ["quiet_storage", "quietly"]


@contextmanager
def quietly() -> Iterator[None]:
    """Optuna announces each study that it makes; here it does not."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def quiet_storage(name: str, directions: Sequence[Direction] = ("minimize",)) -> optuna.storages.InMemoryStorage:
    """A storage with one empty study of that name."""
    storage = optuna.storages.InMemoryStorage()
    with quietly():
        optuna.create_study(storage=storage, study_name=name, directions=list(directions))
    return storage
