"""Connecting to Ray: a local one is started closed to others, an existing cluster is joined by its address."""

import contextlib
import json
import logging
import os
import re
import secrets
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sngd_tune.errors import ConfigurationError

__all__ = ["EXCLUDED", "check_address", "import_path", "ray_session"]

#: Read by Ray at import or start; a user's own values win.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    # Our callback and progress report; Ray's own loggers and their files would cost more than a short trial.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the ledger has them, and a trial that was lost runs again
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours: the ledger is closed before anything ends
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # The ledger is the source of truth; Tune's own snapshot of the experiment is never read.
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "RAY_AIR_NEW_OUTPUT": "0",
}

#: What stays behind when a working directory travels, beside what .gitignore names and Ray's own list (.git, .venv).
EXCLUDED = ("/runs", "/data", "*.db", "*.parquet", "*.pt", "/mlruns", ".*_cache")

#: Seconds in which the head has to take a connection. Ray itself tries for more than two minutes.
_ANSWER_SECONDS = 10.0

_TOKEN = "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE (mode 0600), which holds the token of the cluster"


@contextmanager
def ray_session(address: str | None = None, working_dir: Path | None = None) -> Iterator[None]:
    """Connect to Ray for the time of the block; one that is connected already is used and left as it is.

    Args:
        address: of an existing cluster, ``HOST:PORT`` of its head (``"auto"`` finds one on this machine); None starts a
            local Ray that listens with token authentication and has no dashboard.
        working_dir: folder with the user's module, which Ray takes to the nodes of an existing cluster. A job of Ray's
            job API has brought its own.

    Raises:
        ConfigurationError: the address is none of a head, no cluster answers there, it does not let us in, it runs
            other versions, or the folder is too large to travel.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # its list of trials that "did not complete"
    import ray

    if ray.is_initialized():
        yield
        return
    if address is None:
        _protect_token()
        # "local", or Ray would join a cluster that RAY_ADDRESS or an earlier `ray start` names.
        ray.init("local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    else:
        _join(address, working_dir)
    try:
        yield
    finally:
        ray.shutdown()


def import_path() -> str | None:
    """The folder from which trials import the user's module: the current one, or None where Ray brought it along.

    Ray is connected.
    """
    import ray

    return None if ray.get_runtime_context().runtime_env.get("working_dir") else str(Path.cwd())


def check_address(address: str | None) -> None:
    """Look at the address of a cluster before anything starts.

    Raises:
        ConfigurationError: it is no address of a head, or nothing listens there.
    """
    if address in (None, "auto"):
        return
    if address.startswith(("ray://", "http://", "https://")):
        raise ConfigurationError(
            f"address={address!r}: a study is driven from a node of the cluster, with HOST:PORT of its head (as in "
            "`ray status`) or auto; from outside use `sngd-tune submit FILE --address http://HOST:8265`"
        )
    found = re.fullmatch(r"\[?(?P<host>[^/\[\]]+?)\]?:(?P<port>\d{1,5})", address)
    if found is None:
        raise ConfigurationError(f"address={address!r}: must be HOST:PORT of the head, such as 10.0.0.1:6379, or auto")
    try:
        socket.create_connection((found["host"], int(found["port"])), timeout=_ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"address={address!r}: no Ray cluster answers ({error}); check it with `ray status --address {address}`, "
            "and that this machine may reach the port"
        ) from error


def _join(address: str, working_dir: Path | None) -> None:
    import ray
    from ray.exceptions import AuthenticationError, RuntimeEnvSetupError

    check_address(address)
    environment = None if working_dir is None or _brought() else _travelling(working_dir)
    try:
        ray.init(address=address, runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, AuthenticationError) as error:
        reason = "no Ray cluster answers" if address == "auto" else "it does not let us in, or is no Ray"
        message = f"address={address!r}: {reason} ({_brief(error)}); where it wants a token, set {_TOKEN}"
        raise ConfigurationError(message) from error
    except RuntimeEnvSetupError as error:
        raise ConfigurationError(
            f"working directory {working_dir}: cannot travel to the cluster ({_brief(error)}); name a folder that "
            "holds your module and little else with --working-dir, or list what is not needed in its .gitignore"
        ) from error
    except RuntimeError as error:
        if "Version mismatch" not in str(error):
            raise
        versions = " ".join(str(error).split())
        raise ConfigurationError(
            f"address={address!r}: {versions}; install the cluster's versions here, or use `sngd-tune submit`"
        ) from error


def _brought() -> bool:
    """Whether this process is a job of Ray's job API that has brought its working directory along."""
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    return bool((job.get("runtime_env") or {}).get("working_dir"))


def _travelling(working_dir: Path) -> dict[str, Any]:
    return {"working_dir": str(working_dir.absolute()), "excludes": list(EXCLUDED)}


def _brief(error: Exception) -> str:
    """The first sentence; Ray adds paragraphs of advice."""
    return re.split(r"\. |\n", str(error).strip())[0]


def _protect_token() -> None:
    """Give the local Ray a token that only this user can read; the one Ray writes itself is readable by all."""
    if any(name in os.environ for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        return
    path = Path.home() / ".ray" / "auth_token"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", dir=path.parent) as file:  # made with mode 0600
            file.write(secrets.token_hex(32))
            file.flush()
            # A link appears with its content, and fails where another first run was faster: then that token serves.
            with contextlib.suppress(FileExistsError):
                os.link(file.name, path)
    path.chmod(0o600)
