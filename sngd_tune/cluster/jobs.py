"""Studies as jobs of a cluster, through Ray's job API: nothing has to stay connected while they run.

A job is `sngd-tune run` on the head, with the folder of the study file and the user's module. Whoever may open the
dashboard sees its command and environment, so neither ever has a password.
"""

import asyncio
import logging
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sngd_tune.cluster.dashboard import check_reachable
from sngd_tune.cluster.session import EXCLUDED
from sngd_tune.errors import ConfigurationError, MissingDependencyError

__all__ = ["Job", "JobClient", "new_job", "packed"]

#: Loggers that tell each step at the level of information.
_TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)

#: Seconds that a stopped study has to write its results and its copy; Ray's own three are too few.
_STOP_SECONDS = 180


@dataclass(frozen=True)
class Job:
    """A job of the cluster.

    Attributes:
        id: its name.
        status: ``PENDING``, ``RUNNING``, ``STOPPED``, ``SUCCEEDED`` or ``FAILED``.
        command: what it runs.
        started: UTC, Unix seconds; None before it began.
        ended: UTC, Unix seconds; None while it runs.
        exit_code: of its command, the codes of `sngd-tune`; None where it was stopped or has not ended.
        message: what Ray says of it.
    """

    id: str
    status: str
    command: str
    started: float | None
    ended: float | None
    exit_code: int | None
    message: str


class JobClient:
    """Talks to the dashboard of a cluster; the token, where it wants one, is Ray's (``RAY_AUTH_TOKEN_PATH``).

    Args:
        address: of the dashboard, ``http://HOST:8265``.

    Raises:
        ConfigurationError: no dashboard answers there, or it does not let us in.
        MissingDependencyError: Ray's job API is not installed.
    """

    def __init__(self, address: str) -> None:
        check_reachable(address)
        with self._errors(address), _only(address):
            self._client = _client_class()(address)
        self._address = address

    def submit(self, job: str, arguments: Sequence[str], folder: Path) -> None:
        """Run `sngd-tune` on the head, in a copy of `folder` that the nodes get as well.

        Args:
            job: its name.
            arguments: of the command line; the cluster shows them to all who may see its dashboard.
            folder: what travels, less what its .gitignore and `EXCLUDED` name.

        Raises:
            ConfigurationError: the cluster does not take it.
        """
        environment = {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_SECONDS)}}
        travelling = {"working_dir": str(folder), "excludes": list(EXCLUDED)}
        with self._errors(self._address):
            self._client.submit_job(
                entrypoint=shlex.join(["sngd-tune", *arguments]),
                submission_id=job,
                runtime_env=environment | travelling,
            )

    def jobs(self) -> list[Job]:
        """All that were submitted, the newest first."""
        with self._errors(self._address):
            found = [_job(details) for details in self._client.list_jobs() if details.submission_id is not None]
        return sorted(found, key=lambda job: job.started or float("inf"), reverse=True)

    def job(self, job: str) -> Job:
        """One of them. Raises ConfigurationError where there is none of that name."""
        with self._errors(self._address):
            return _job(self._client.get_job_info(job))

    def logs(self, job: str) -> str:
        """All that it has printed."""
        with self._errors(self._address):
            text: str = self._client.get_job_logs(job)
        return text

    def follow(self, job: str, show: Callable[[str], None]) -> None:
        """Show what it has printed and prints, in pieces, until it ends; Ctrl-C leaves it running."""

        async def relay() -> None:
            async for piece in self._client.tail_job_logs(job):
                show(piece)

        self.job(job)
        with self._errors(self._address):
            asyncio.run(relay())

    def stop(self, job: str) -> bool:
        """Send it SIGTERM, upon which a study closes its ledger; False where it had ended already."""
        with self._errors(self._address):
            return bool(self._client.stop_job(job))

    @staticmethod
    @contextmanager
    def _errors(address: str) -> Iterator[None]:
        """Ray's errors as ours."""
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            raise ConfigurationError(
                f"address={address!r}: does not let us in; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE, which "
                "holds the token of the cluster"
            ) from error
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigurationError(f"address={address!r}: {_said(error)}") from error


@contextmanager
def packed(file: Path, own_module: bool, working_dir: Path | None) -> Iterator[tuple[Path, str]]:
    """The folder that travels with a study, and the path of its file there.

    Args:
        file: the study file.
        own_module: whether its workload is the user's; only then his folder travels.
        working_dir: that folder; None: the current one.

    Raises:
        ConfigurationError: the file lies outside.
    """
    if not own_module:
        with tempfile.TemporaryDirectory(prefix="sngd-tune-") as own:
            shutil.copy(file, own)
            yield Path(own), file.name
        return
    folder = (working_dir or Path.cwd()).resolve()
    if not file.resolve().is_relative_to(folder):
        raise ConfigurationError(
            f"{file}: lies outside {folder}, which travels; name a folder of both by --working-dir"
        )
    yield folder, file.resolve().relative_to(folder).as_posix()


def new_job(study: str) -> str:
    """The name of a job that is submitted now."""
    return f"{study}-{time.strftime('%Y%m%d-%H%M%S')}"


def _client_class() -> Any:
    try:
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise _missing() from error
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    return JobSubmissionClient


def _missing() -> MissingDependencyError:
    return MissingDependencyError("jobs of a cluster: need ray[default]: pip install 'sngd_tune[cluster]'")


@contextmanager
def _only(address: str) -> Iterator[None]:
    """Ray lets its environment win over the address that it is given."""
    name = "RAY_API_SERVER_ADDRESS"
    before = os.environ.get(name)
    os.environ[name] = address
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _said(error: Exception) -> str:
    """What Ray said, less its wrapping and the stack of its server."""
    text = str(error).strip()
    if "ray[default]" in text:
        raise _missing() from error
    lines = [line for line in text.splitlines() if line.strip()]
    said = lines[-1] if "Traceback" in text else text
    return re.sub(r"^Request failed with status code \d+: ", "", said).rstrip(".")


def _job(details: Any) -> Job:
    return Job(
        id=details.submission_id,
        status=str(getattr(details.status, "value", details.status)),
        command=details.entrypoint,
        started=_seconds(details.start_time),
        ended=_seconds(details.end_time),
        exit_code=details.driver_exit_code,
        message=details.message or "",
    )


def _seconds(milliseconds: int | None) -> float | None:
    return None if not milliseconds else milliseconds / 1000
