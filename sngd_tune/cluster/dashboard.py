"""The dashboard of a cluster, which takes its jobs: where it is, and who may listen on the way there."""

import ipaddress
import logging
import os
import socket
from urllib.parse import urlsplit

from sngd_tune.errors import ConfigurationError

__all__ = ["check_reachable", "dashboard_address"]

_log = logging.getLogger(__name__)

_DEFAULT = "http://127.0.0.1:8265"

#: Seconds in which it has to take a connection.
_ANSWER_SECONDS = 10.0


def dashboard_address(address: str | None) -> str:
    """The dashboard that was named, by a flag or in the environment. Raises ConfigurationError where it is none."""
    named = address or os.environ.get("RAY_API_SERVER_ADDRESS") or _DEFAULT
    if not named.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"address={named!r}: must be the dashboard of a cluster, such as {_DEFAULT}; a study is joined to "
            "HOST:PORT by `sngd-tune run --address`"
        )
    return named.rstrip("/")


def check_reachable(address: str) -> None:
    """Raise ConfigurationError where nothing listens; warn of what others can read on the way."""
    parts = urlsplit(address)
    host, encrypted = parts.hostname or "", parts.scheme == "https"
    try:
        port = parts.port or (443 if encrypted else 80)
        socket.create_connection((host, port), timeout=_ANSWER_SECONDS).close()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"address={address!r}: no dashboard answers ({error}); it listens on the head's own 8265, to which a "
            "tunnel leads: ssh -L 8265:127.0.0.1:8265 HEAD, or kubectl port-forward"
        ) from error
    if not encrypted and not _loopback(host):
        _log.warning(
            "%s: is not encrypted; reach the dashboard through a tunnel (ssh -L, kubectl port-forward)", address
        )
        if os.environ.get("RAY_AUTH_MODE") != "token":
            _log.warning("%s: RAY_AUTH_MODE=token is not set; without tokens all who reach it run code there", address)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
