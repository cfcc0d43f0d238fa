"""A run directory in use, of whatever kind: held here and in its storage, with Ray up and a copy that follows it.

One process at a time works on a run: it holds the directory, and the copy in the storage where there is one. The
studies of a comparison or a scaling study are parts of one run and hold nothing themselves.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sngd_tune.cluster.head import head_watched
from sngd_tune.cluster.session import ray_session
from sngd_tune.errors import ConfigurationError
from sngd_tune.records.events import StudyListener
from sngd_tune.storage import Place, open_place
from sngd_tune.tracking.continuation import check_absent, fetch, holds_run
from sngd_tune.tracking.directory import hold
from sngd_tune.tracking.kinds import check_new
from sngd_tune.tracking.lease import Lease, LeaseWatch, hold_lease
from sngd_tune.tracking.replica import Replica, is_directory, run_place

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["RunSession", "new_run", "resumed_run"]

Result = TypeVar("Result", bound="DataclassInstance")


@dataclass(frozen=True)
class RunSession:
    """One driver's time with a run; made by `new_run` or `resumed_run`.

    Attributes:
        directory: the run directory.
        lease: of its copy in the storage; None where there is no storage.
    """

    directory: Path
    lease: Lease | None

    @property
    def listeners(self) -> tuple[StudyListener, ...]:
        """To be told about all trials: they interrupt a run whose lease is lost."""
        return () if self.lease is None else (LeaseWatch(self.lease),)

    def checkpoints(self, *part: str) -> Place:
        """Where trials keep their checkpoints, in the directory or in its copy; made where it does not exist.

        Args:
            part: folder of the part of the run that they belong to; none: of the run itself.
        """
        home = open_place(self.directory) if self.lease is None else self.lease.place
        place = home.below(*part, "checkpoints")
        place.make()
        return place

    def conduct(self, work: Callable[[], Result], parts: Iterable[Path] = ()) -> Result:
        """Do the work of the run with its copy beside it. The manifest is written.

        Args:
            work: its result has ``copy_missed``, the number of files that the copy lacks in the end, which is set here.
            parts: run directories inside it, of the studies of a group.

        Raises:
            StudyHeldError: another driver took the run over.
        """
        if self.lease is None:
            return work()
        shared = is_directory(self.lease.place, self.directory)
        replica = None if shared else Replica(self.directory, self.lease, parts)
        missed = 0
        try:
            result = work()
        finally:  # an error of the ledger leaves trials that are worth keeping
            if replica is not None:
                missed = replica.close()
        self.lease.check()
        return replace(result, copy_missed=missed)


@contextmanager
def new_run(
    directory: Path, storage: str | None, address: str | None, working_dir: Path | None
) -> Iterator[RunSession]:
    """A run that begins, in a new directory, which is taken away again where it could not begin.

    Args:
        directory: made where it does not exist.
        storage: where its copy and the checkpoints go; None: there is no copy.
        address: of a Ray cluster; None starts a local one.
        working_dir: as for `ray_session`.

    Raises:
        ConfigurationError: the directory, the storage or the cluster is not as it must be, or a run is there already.
        StudyHeldError: another live process holds the directory or its copy.
    """
    place = run_place(storage, directory)
    with _unused_removed(directory), hold(directory) as held:
        check_new(directory)
        with _connected(held, place, address, working_dir) as session:
            if session.lease is not None:
                check_absent(session.lease.place)
            yield session


@contextmanager
def resumed_run(
    directory: Path, storage: str | None, address: str | None, working_dir: Path | None
) -> Iterator[RunSession]:
    """A run that goes on: what its copy has beyond the directory, since it went on elsewhere, is fetched first.

    Args, raises: as `new_run`.
    """
    place = run_place(storage, directory)
    with hold(directory) as held, _connected(held, place, address, working_dir) as session:
        lease = session.lease
        if lease is not None and not is_directory(lease.place, directory) and holds_run(lease.place):
            fetch(lease.place, directory)
        yield session


@contextmanager
def _connected(
    directory: Path, place: Place | None, address: str | None, working_dir: Path | None
) -> Iterator[RunSession]:
    with ray_session(address, working_dir), head_watched(address, directory), hold_lease(place) as lease:
        yield RunSession(directory, lease)


@contextmanager
def _unused_removed(directory: Path) -> Iterator[None]:
    """Where a run could not begin, take away the run directory that was made for it."""
    existed = directory.exists()
    try:
        yield
    except ConfigurationError:
        if not existed and directory.is_dir() and [path.name for path in directory.iterdir()] == [".lock"]:
            shutil.rmtree(directory)
        raise
