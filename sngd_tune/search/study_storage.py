"""Where Optuna's study lies: in memory, or in a storage (`search.stores`) that outlives the process.

A run has a study of its own there, ``NAME-<study id>``, so two runs of one name never become one. Drivers that name the
same ``search.optuna.study`` share that one and learn from each other's trials. The ledger stays the source of truth:
what the storage has lost is added from there.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.storages import BaseStorage

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.metrics import OBJECTIVES
from sngd_tune.records.study import StudyConfig
from sngd_tune.redaction import redact
from sngd_tune.search.memory import quiet_storage, quietly
from sngd_tune.search.patience import patient
from sngd_tune.search.stores import open_storage

__all__ = ["PATIENCE", "StoredStudy", "check_study_storage", "in_memory", "open_study"]

#: How long a storage may be away in the middle of a search (s): a restart, a failover, a remounted folder.
PATIENCE = 60.0

#: How long a driver that has made a shared study may take to say what it is of (s).
_MAKING = 5.0

#: What must be the same for drivers to learn from each other, kept with a study that is shared.
_DEFINITION = "sngd_tune.definition"
_DEFINING = (
    *("workload", "epochs", "seconds", "epoch_examples", "validation_examples"),
    *("objectives", "fixed", "space"),
)


@dataclass(frozen=True)
class StoredStudy:
    """A study that exists in a storage, and who works on it.

    Attributes:
        name: of the study in the storage.
        storage: of Optuna.
        driver: the study id of the run; its trials carry it.
        shared: whether other drivers may have trials in it.
    """

    name: str
    storage: BaseStorage
    driver: str = ""
    shared: bool = False


def in_memory(config: StudyConfig) -> StoredStudy:
    """An empty study that ends with the process."""
    return StoredStudy(config.name, quiet_storage(config.name, [OBJECTIVES[name] for name in config.objectives]))


def check_study_storage(config: StudyConfig) -> None:
    """See that the storage of a study can be used, and that the study it shares is the same one.

    Raises:
        ConfigurationError: it cannot be opened, or the shared study is of another search.
    """
    named = config.search.optuna
    if named.storage is not None:
        with open_storage(named.storage) as storage:
            if named.study is not None and named.study in optuna.get_all_study_names(storage):
                _check_same(config, named.study, storage)


@contextmanager
def open_study(config: StudyConfig, driver: str) -> Iterator[StoredStudy]:
    """The study of a run, made where it does not exist; the storage is left in the end.

    Args:
        config: of the run.
        driver: the study id of the run.

    Raises:
        ConfigurationError: as `check_study_storage`.
    """
    named = config.search.optuna
    if named.storage is None:
        yield in_memory(config)
        return
    with open_storage(named.storage) as opened:
        storage = patient(opened, redact(named.storage), PATIENCE)
        name = _ensured(config, named.study or f"{config.name}-{driver}", storage)
        yield StoredStudy(name, storage, driver, shared=named.study is not None)


def _ensured(config: StudyConfig, name: str, storage: BaseStorage) -> str:
    """The name of a study that is there."""
    with quietly():
        try:
            directions = [OBJECTIVES[objective] for objective in config.objectives]
            study = optuna.create_study(storage=storage, study_name=name, directions=directions)
            study.set_user_attr(_DEFINITION, _definition(config))
        except optuna.exceptions.DuplicatedStudyError:
            if config.search.optuna.study is not None:
                _check_same(config, name, storage)
    return name


def _definition(config: StudyConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", by_alias=True, include=set(_DEFINING))


def _check_same(config: StudyConfig, name: str, storage: BaseStorage) -> None:
    """Raise ConfigurationError where a shared study is another than that of `config`."""
    ours, theirs = _definition(config), _kept_definition(name, storage)
    different = ", ".join(key for key in _DEFINING if ours[key] != theirs.get(key))
    if different:
        raise ConfigurationError(
            f"search.optuna.study={name!r}: differs from this study in {different}; drivers learn from each other only "
            "where these are the same: make them so, or name another study"
        )


def _kept_definition(name: str, storage: BaseStorage) -> dict[str, Any]:
    """What a shared study is of; where another driver makes it this moment, soon."""
    study, limit = storage.get_study_id_from_name(name), time.monotonic() + _MAKING
    while (kept := storage.get_study_user_attrs(study).get(_DEFINITION)) is None:
        if time.monotonic() > limit:
            raise ConfigurationError(f"search.optuna.study={name!r}: is none that sngd_tune has made; name another")
        time.sleep(0.1)
    return dict(kept)
