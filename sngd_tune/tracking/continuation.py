"""Going on with a study elsewhere: what its copy in a storage has comes into a run directory first."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.study import StudyConfig
from sngd_tune.redaction import redact
from sngd_tune.storage import Place
from sngd_tune.tracking.files import make_directory, replace_file
from sngd_tune.tracking.lease import LEASE
from sngd_tune.tracking.ledger import Ledger
from sngd_tune.tracking.manifest import Manifest
from sngd_tune.tracking.replica import LEDGER, open_storage, run_place

__all__ = ["begun_study", "check_absent", "fetch", "fetch_run", "holds_study"]


def begun_study(config: StudyConfig, directory: Path, secrets: Iterable[str] = ()) -> Ledger | None:
    """The study that a repeated command goes on with: in the directory, or else fetched from its storage.

    Args:
        config: what the command describes.
        directory: its run directory.
        secrets: as for `fetch`.

    Returns: None where the study has not begun.

    Raises:
        ConfigurationError: a study of another configuration is there, or as `fetch`.
    """
    place = run_place(config.storage, directory)
    if not Manifest.present(directory) and place is not None and holds_study(place):
        fetch(place, directory, secrets)
    if not Manifest.present(directory):
        return None
    ledger = Ledger.open(directory)
    found = list(_differences(ledger.config.model_dump(by_alias=True), config.model_dump(by_alias=True)))
    if found:
        raise ConfigurationError(
            f"{directory}: a study of another configuration is there ({redact('; '.join(found))}); give this one "
            "another run directory, or go on with that one by `sngd-tune resume`"
        )
    return ledger


def fetch_run(uri: str, directory: Path | None, runs: Path, secrets: Iterable[str] = ()) -> tuple[Path, str]:
    """Fetch the copy that a URI names; returns the run directory, and the storage in which the copy lies.

    Args:
        uri: such as ``s3://bucket/runs/mine?region=eu-west-1``.
        directory: to fetch to; None: ``mine`` in `runs`.
        runs: the folder of run directories.
        secrets: as for `fetch`.

    Raises:
        ConfigurationError: as `fetch`; and where the directory has another name than the copy, which goes by it.
    """
    place = open_storage(uri)
    base, question, query = uri.partition("?")
    parent, _, name = base.rstrip("/").rpartition("/")
    directory = directory or runs / name
    if directory.resolve().name != name:
        raise ConfigurationError(
            f"--dir {directory}: the directory of {uri} must have its name; choose {directory / name}, say"
        )
    fetch(place, directory, secrets)
    return directory, parent + question + query


def check_absent(place: Place) -> None:
    """Raise ConfigurationError where a study lies there already, or the storage cannot be read."""
    if holds_study(place):
        raise ConfigurationError(
            f"{place.uri}: a study is there already; continue it with `sngd-tune resume {place.uri}`, or give the run "
            "directory another name"
        )


def fetch(place: Place, directory: Path, secrets: Iterable[str] = ()) -> None:
    """Bring to a run directory, which is made where it does not exist, what the copy of its study has beyond it.

    Files of the ledger are added to those that are there; others are taken as they are in the storage.

    Args:
        place: of the copy.
        directory: the run directory.
        secrets: URIs with the passwords that the copy leaves out; each takes the place of itself without.

    Raises:
        ConfigurationError: no study lies at the place, another one lies in the directory, a password is missing, or the
            storage cannot be read.
        LedgerError: the directory cannot be written.
    """
    try:
        manifest = _with_passwords(place.read(Manifest.NAME).decode(), secrets, place)
        own = _check_same(manifest, directory, place)
        names = [name for name in place.names() if name.startswith(LEDGER) or "/" not in name]
        for name in names:
            if name not in (Manifest.NAME, LEASE) and not (name.startswith(LEDGER) and (directory / name).exists()):
                _store(directory / name, place.read(name))
    except FileNotFoundError:
        raise ConfigurationError(f"{place.uri}: no study there (no {Manifest.NAME}); check the path") from None
    except OSError as error:
        raise ConfigurationError(f"{place.uri}: cannot be read ({error}); check credentials and network") from error
    if not own:  # last: until then no study is there
        _store(directory / Manifest.NAME, manifest.encode(), mode=0o600)


def holds_study(place: Place) -> bool:
    """Whether the copy of a study lies there.

    Raises:
        ConfigurationError: the storage cannot be read.
    """
    try:
        return place.modified(Manifest.NAME) is not None
    except OSError as error:
        raise ConfigurationError(f"{place.uri}: cannot be read ({error}); check credentials and network") from error


def _with_passwords(manifest: str, secrets: Iterable[str], place: Place) -> str:
    for uri in secrets:
        manifest = manifest.replace(json.dumps(redact(uri)), json.dumps(uri))
    if "***" in manifest:
        raise ConfigurationError(
            f"{place.uri}: its {Manifest.NAME} has no password in it; name the URI that has one in the environment, "
            "SNGD_TUNE_TRACKING_URI or SNGD_TUNE_OPTUNA_STORAGE"
        )
    return manifest


def _check_same(manifest: str, directory: Path, place: Place) -> bool:
    """Whether the study lies in the directory already. Raises ConfigurationError where another one does."""
    if not Manifest.present(directory):
        return False
    if json.loads(manifest).get("study_id") != Manifest.read(directory).study_id:
        raise ConfigurationError(f"{directory}: holds another study than {place.uri}; choose another directory")
    return True


def _store(path: Path, content: bytes, mode: int = 0o644) -> None:
    make_directory(path.parent)
    replace_file(path, content, mode)


def _differences(there: Mapping[str, Any], here: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Where two configurations differ, as ``search.trials: 8 there, 16 here``."""
    for name in sorted(there.keys() | here.keys()):
        old, new = there.get(name), here.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{path}{name}.")
        elif old != new:
            yield f"{path}{name}: {old!r} there, {new!r} here"
