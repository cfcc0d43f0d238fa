"""What commands that run something share: where it runs, and how they end."""

from pathlib import Path
from typing import Protocol, TypedDict

import typer

from sngd_tune.cli.app import Code
from sngd_tune.display import say
from sngd_tune.errors import ConfigurationError

__all__ = ["RunResult", "Where", "check_cluster", "say_unfinished", "say_unshared"]


class Where(TypedDict):
    """Where a run goes on, as `launch.resume_study` and its like for comparisons and scaling studies take it."""

    storage: str | None
    data_dir: Path | None
    address: str | None
    working_dir: Path | None
    wait: float


class RunResult(Protocol):
    """How a run ended: `StudyResult`, `ComparisonResult` or `ScalingResult`."""

    @property
    def directory(self) -> Path: ...

    @property
    def outcome(self) -> str: ...

    @property
    def mirror_missed(self) -> int: ...

    @property
    def copy_missed(self) -> int: ...


def check_cluster(address: str | None, working_dir: Path | None) -> None:
    """Raise ConfigurationError where the address is none, or there is a working directory without one."""
    from sngd_tune.cluster.session import check_address

    check_address(address)
    if working_dir is not None and address is None:
        raise ConfigurationError(
            f"--working-dir {working_dir}: is what travels to a cluster (--address); a local Ray takes your module "
            "from the current folder"
        )


def say_unshared(directory: Path, address: str | None, storage: str | None) -> None:
    """Say that on a cluster without a storage not every node may see the checkpoints."""
    if address is not None and storage is None:
        say(f"no --storage: checkpoints go to {directory}, and serve those nodes alone that see this folder")


def say_unfinished(result: RunResult, address: str | None) -> None:
    """Say what MLflow and the storage lack, and leave where the run was interrupted."""
    if result.mirror_missed:
        say(f"MLflow lacks {result.mirror_missed} records; `sngd-tune sync {result.directory}` sends them")
    again = f"sngd-tune resume {result.directory}" + (f" --address {address}" if address else "")
    if result.copy_missed:
        say(f"the storage lacks {result.copy_missed} files; `{again}` sends them")
    if result.outcome == "interrupted":
        say(f"interrupted; `{again}` goes on and repeats no finished trial")
        raise typer.Exit(Code.INTERRUPTED)
