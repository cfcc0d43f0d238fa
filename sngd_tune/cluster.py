"""Ray: where a study runs. A local Ray is started closed to others, an existing cluster is joined by its address."""

import contextlib
import logging
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.study import ResourceConfig

__all__ = ["check_resources", "ray_session", "trial_slots"]

#: Read by Ray at import or start; a user's own values win.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    # Our callback and progress report; Ray's own loggers and their files would cost more than a short trial.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours: the ledger is closed before anything ends
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # The ledger is the source of truth; Tune's own snapshot of the experiment is never read.
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@contextmanager
def ray_session(address: str | None = None) -> Iterator[None]:
    """Connect to Ray for the time of the block; one that is connected already is used and left as it is.

    Args:
        address: of an existing cluster (``"auto"`` finds one on this machine); None starts a local Ray that listens
            with token authentication and has no dashboard.

    Raises:
        ConfigurationError: no cluster answers at the address.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield
        return
    try:
        if address is None:
            _protect_token()
            # "local", or Ray would join a cluster that RAY_ADDRESS or an earlier `ray start` names.
            ray.init("local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        message = f"address={address!r}: no Ray cluster answers ({error}); check it with `ray status --address`"
        raise ConfigurationError(message) from error
    try:
        yield
    finally:
        ray.shutdown()


def check_resources(resources: ResourceConfig) -> None:
    """Raise ConfigurationError where no node could ever run a trial, instead of waiting for ever."""
    import ray

    have = ray.cluster_resources()
    for name, wanted in (("CPU", resources.cpus), ("GPU", resources.gpus)):
        if wanted > have.get(name, 0.0):
            raise ConfigurationError(
                f"search.resources.{name.lower()}s={wanted:g}: the cluster has {have.get(name, 0.0):g} {name}s;"
                " lower it, or join a larger cluster with --address"
            )


def trial_slots(resources: ResourceConfig) -> int:
    """How many trials the cluster can run at a time, ≥ 1."""
    import ray

    have = ray.cluster_resources()
    slots = have.get("CPU", 0.0) / resources.cpus
    if resources.gpus:
        slots = min(slots, have.get("GPU", 0.0) / resources.gpus)
    return max(1, int(slots))


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
