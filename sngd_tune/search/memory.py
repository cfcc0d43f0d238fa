"""Optuna studies in memory, made without a line in the log."""

from collections.abc import Sequence

import optuna

from sngd_tune.records.metrics import Direction

__all__ = ["quiet_storage"]


def quiet_storage(name: str, directions: Sequence[Direction] = ("minimize",)) -> optuna.storages.InMemoryStorage:
    """A storage with one empty study of that name."""
    storage = optuna.storages.InMemoryStorage()
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else each one announces itself
    try:
        optuna.create_study(storage=storage, study_name=name, directions=list(directions))
    finally:
        optuna.logging.set_verbosity(verbosity)
    return storage
