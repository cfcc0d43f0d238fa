"""Going on with a run elsewhere: what its copy in a storage has comes into a run directory first.

Or into a folder for a while, to be looked at.
"""

import json
import os
import posixpath
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.study import StudyConfig
from sngd_tune.redaction import redact
from sngd_tune.storage import Place
from sngd_tune.tracking.files import make_directory, replace_file
from sngd_tune.tracking.kinds import KINDS, MANIFESTS, NO_RUN, Kind
from sngd_tune.tracking.lease import LEASE
from sngd_tune.tracking.ledger import Ledger
from sngd_tune.tracking.manifest import Manifest
from sngd_tune.tracking.replica import in_ledger, open_storage, run_place

__all__ = ["begun_study", "check_absent", "fetch", "fetch_run", "holds_run", "run_name", "viewed"]

#: Files that are fetched at a time: a ledger has three small ones a trial, and each takes a round trip.
_AT_A_TIME = 16

_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')


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
    if not Manifest.present(directory) and place is not None and holds_run(place):
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
    place, name = open_storage(uri), run_name(uri)
    directory = directory or runs / name
    if directory.resolve().name != name:
        raise ConfigurationError(
            f"--dir {directory}: the directory of {uri} must have its name; choose {directory / name}, say"
        )
    fetch(place, directory, secrets)
    base, question, query = uri.partition("?")
    return directory, posixpath.dirname(base.rstrip("/")) + question + query


def run_name(run: str) -> str:
    """The name of the run directory that a path or URI names.

    >>> run_name("s3://bucket/runs/mine/?region=eu-west-1")
    'mine'
    """
    base = run.partition("?")[0] if "://" in run else str(Path(run).resolve())
    return posixpath.basename(base.rstrip("/"))


@contextmanager
def viewed(run: str) -> Iterator[Path]:
    """The run directory that a path or URI names, to be read: a copy in an object store is fetched for the block.

    The copy is left as it is, and so is its lease: a driver may be at work. Passwords stay left out.

    Raises:
        ConfigurationError: no run lies at the URI, or the storage cannot be read.
    """
    place = open_storage(run) if "://" in run else None
    if place is None or place.local:
        yield Path(run if place is None else place.root)
        return
    with tempfile.TemporaryDirectory(prefix="sngd_tune-") as folder:
        directory = Path(folder) / run_name(run)
        with _reading(place):
            _kind_at(place)
            _fetch_lease(place, directory)
            _bring(place, directory, restored=str)
        yield directory


def check_absent(place: Place) -> None:
    """Raise ConfigurationError where a run lies there already, or the storage cannot be read."""
    if holds_run(place):
        raise ConfigurationError(
            f"{place.uri}: a {_kind_at(place).KIND} is there already; continue it with `sngd-tune resume {place.uri}`, "
            "or give the run directory another name"
        )


def fetch(place: Place, directory: Path, secrets: Iterable[str] = ()) -> None:
    """Bring to a run directory, which is made where it does not exist, what the copy of its run has beyond it.

    Files of ledgers are added to those that are there; others are taken as they are in the storage.

    Args:
        place: of the copy.
        directory: the run directory.
        secrets: URIs with the passwords that the copy leaves out; each takes the place of itself without.

    Raises:
        ConfigurationError: no run lies at the place, another one lies in the directory, a password is missing, or the
            storage cannot be read.
        LedgerError: the directory cannot be written.
    """
    with _reading(place):
        kind = _kind_at(place)
        manifest = place.read(kind.NAME).decode()
        known = [*secrets, *_secrets_of(kind, manifest, directory, place)]
        restored = partial(_with_passwords, secrets=known, place=place)
        restored(manifest)  # one that is missing is told before anything is written
        _bring(place, directory, restored)


def holds_run(place: Place) -> bool:
    """Whether the copy of a run lies there. Raises ConfigurationError where the storage cannot be read."""
    with _reading(place):
        return _find_kind(place) is not None


def _find_kind(place: Place) -> Kind | None:
    return next((kind for kind in KINDS if place.modified(kind.NAME) is not None), None)


def _kind_at(place: Place) -> Kind:
    kind = _find_kind(place)
    if kind is None:
        raise ConfigurationError(f"{place.uri}: {NO_RUN}; check the path, which ends with the name of the run")
    return kind


@contextmanager
def _reading(place: Place) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"{place.uri}: cannot be read ({error}); check credentials and network") from error


def _bring(place: Place, directory: Path, restored: Callable[[str], str]) -> None:
    """Fetch all but checkpoints, which trials read there themselves, and manifests that are here; those come last.

    Args:
        place: of the copy.
        directory: the run directory.
        restored: makes the content of a manifest of what the copy has.
    """

    def bring(name: str) -> None:
        if not (in_ledger(name) and (directory / name).exists()):
            _store(directory / name, place.read(name))

    names = [name for name in place.names() if not name.endswith(".pt") and name != LEASE]
    manifests = [name for name in names if posixpath.basename(name) in MANIFESTS]
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        list(pool.map(bring, sorted(set(names) - set(manifests))))
    for name in sorted(manifests, key=lambda name: -name.count("/")):  # until its own is there, no run is
        if not (directory / name).exists():
            if posixpath.basename(name) == Manifest.NAME:
                Ledger.make_folders((directory / name).parent)  # it may have no trial yet, and a store has no folders
            _store(directory / name, restored(place.read(name).decode()).encode(), mode=0o600)


def _fetch_lease(place: Place, directory: Path) -> None:
    """Who is at work on it, and when that was last said."""
    heard = place.modified(LEASE)
    if heard is not None:
        _store(directory / LEASE, place.read(LEASE))
        os.utime(directory / LEASE, (heard, heard))


def _with_passwords(manifest: str, secrets: Iterable[str], place: Place) -> str:
    for uri in secrets:
        manifest = manifest.replace(json.dumps(redact(uri)), json.dumps(uri))
    if "***" in manifest:
        raise ConfigurationError(
            f"{place.uri}: its manifest has no password in it; name the URI that has one in the environment, "
            "SNGD_TUNE_TRACKING_URI or SNGD_TUNE_OPTUNA_STORAGE"
        )
    return manifest


def _secrets_of(kind: Kind, manifest: str, directory: Path, place: Place) -> list[str]:
    """URIs with a password in the manifest here, if the run lies in the directory already.

    Raises:
        ConfigurationError: another one does.
    """
    here = [each for each in KINDS if each.present(directory)]
    if not here:
        return []
    if here != [kind] or json.loads(manifest).get(kind.ID) != getattr(kind.read(directory), kind.ID):
        raise ConfigurationError(f"{directory}: holds another run than {place.uri}; choose another directory")
    texts = map(json.loads, _TEXT.findall((directory / kind.NAME).read_text(encoding="utf-8")))
    return [text for text in texts if redact(text) != text]


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
