"""Checkpoints of trials: the newest two of each, whole or not at all, each with its checksum in its name.

::

    ROOT/<study>/<trial>/<attempt>-<epoch>-<CRC-32>.pt

Trials write them themselves, and not through Tune, which keeps no checksum, tries one damaged file again and again, and
loses a trial whose storage is away for a moment. A process that was cut off from the cluster may go on writing for a
minute: its attempt is older than the one that took its place, and so are its files.
"""

import errno
import logging
import posixpath
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sngd_tune.records.events import StudyListener
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.storage import Place

__all__ = ["CheckpointCleaner", "CheckpointStore"]

_log = logging.getLogger(__name__)

_KEPT = 2  # one more than is needed, for the day on which the newest is damaged
_NAME = re.compile(r"(\d+)-(\d+)-([0-9a-f]{8})\.pt")


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of one trial.

    Attributes:
        place: the folder of all trials' checkpoints; a local one has to exist, and is never made here: a mount that is
            away for a moment must not be buried under a new folder.
        study: name of the study.
        trial: name of the trial.
    """

    place: Place
    study: str
    trial: str

    def save(self, attempt: int, epoch: int, content: bytes) -> str:
        """Write a checkpoint and remove those that it replaces; returns where it lies. Raises OSError."""
        name = f"{attempt:04d}-{epoch:06d}-{zlib.crc32(content):08x}.pt"
        self.place.write(self._path(name), content)
        for old in self._names()[:-_KEPT]:
            self.place.delete(self._path(old))
        return self.place.below(self._path(name)).uri

    def newest(self) -> bytes | None:
        """The newest checkpoint that is whole; damaged ones are named in the log and passed over.

        Raises:
            OSError: the storage cannot be read, or its folder is not there at the moment.
        """
        if self.place.local and not Path(self.place.root).is_dir():
            raise FileNotFoundError(errno.ENOENT, "no such folder", self.place.root)
        return next(self._whole(), None)

    def clear(self) -> None:
        """Remove them all. Raises OSError."""
        for name in self._names():
            self.place.delete(self._path(name))

    def _whole(self) -> Iterator[bytes]:
        for name in reversed(self._names()):
            content = self.place.read(self._path(name))
            if name.endswith(f"-{zlib.crc32(content):08x}.pt"):
                yield content
            else:
                _log.warning("%s: damaged; the checkpoint before it is taken", self.place.below(self._path(name)).uri)

    def _names(self) -> list[str]:
        """From the oldest to the newest."""
        return [name for name in self.place.below(self.study, self.trial).names() if _NAME.fullmatch(name)]

    def _path(self, name: str) -> str:
        return posixpath.join(self.study, self.trial, name)


class CheckpointCleaner(StudyListener):
    """Removes the checkpoints of trials that have finished."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def trial_finished(self, record: TrialRecord) -> None:
        """Those that have written none, as the short ones, cost nothing."""
        if record.checkpoint is not None and record.outcome.finished:
            CheckpointStore(self._place, record.study, record.trial).clear()
