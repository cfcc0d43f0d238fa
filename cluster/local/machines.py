"""What the nodes of a local cluster stand on: a network namespace each, or one loopback interface for all."""

import shutil
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path

from processes import kill

__all__ = ["LocalClusterError", "Loopback", "Machines", "Namespaces", "available"]


class LocalClusterError(Exception):
    """The local cluster cannot do what was asked; the message says why, and what to do."""


class Machines(ABC):
    """Pretended machines, numbered from 0."""

    @abstractmethod
    def open(self) -> None:
        """Make what they have in common."""

    @abstractmethod
    def close(self) -> None:
        """Remove them all, with what still runs there; what is not there any more is no error."""

    @abstractmethod
    def add(self, number: int) -> str:
        """Make a machine; its address."""

    @abstractmethod
    def remove(self, number: int) -> None:
        """Remove a machine on which nothing runs any more."""

    @abstractmethod
    def prefix(self, number: int) -> list[str]:
        """The words before a command that runs on it."""

    @abstractmethod
    def connect(self, number: int, connected: bool) -> None:
        """Plug its network cable in, or pull it."""


class Namespaces(Machines):
    """Network namespaces, joined by a bridge in one of its own: the machine's own network is left alone. Needs root.

    Args:
        name: what the names of the namespaces begin with.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def open(self) -> None:
        _ip("netns", "add", self._name)
        self._inside("link", "add", "br0", "type", "bridge")
        self._inside("link", "set", "br0", "up")

    def close(self) -> None:
        for path in Path("/run/netns").glob(f"{self._name}*"):
            kill(map(int, _ip("netns", "pids", path.name).split()))  # drivers, which would wait for Ray for a while
            _ip("netns", "delete", path.name)

    def add(self, number: int) -> str:
        own, port, address = self._of(number), f"port{number}", f"10.77.0.{number + 1}"
        _ip("netns", "add", own)
        _ip("link", "add", "eth0", "netns", own, "type", "veth", "peer", "name", port, "netns", self._name)
        self._inside("link", "set", port, "master", "br0", "up")
        _ip("-n", own, "address", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", own, "link", "set", device, "up")
        _ip("-n", own, "route", "add", "default", "dev", "eth0")  # Ray asks for the way out to learn its own address
        return address

    def remove(self, number: int) -> None:
        _ip("netns", "delete", self._of(number))

    def prefix(self, number: int) -> list[str]:
        # Not `ip netns exec`, which gives the command mounts of its own: nodes see what is mounted and unmounted later.
        return ["nsenter", f"--net=/run/netns/{self._of(number)}", "--"]

    def connect(self, number: int, connected: bool) -> None:
        self._inside("link", "set", f"port{number}", "up" if connected else "down")

    def _of(self, number: int) -> str:
        return f"{self._name}-{number}"

    def _inside(self, *words: str) -> None:
        _ip("-n", self._name, *words)


class Loopback(Machines):
    """No machines at all: the nodes share 127.0.0.1, each with ports of its own."""

    def open(self) -> None:
        """Nothing to make."""

    def close(self) -> None:
        """Nothing to remove."""

    def add(self, number: int) -> str:
        return "127.0.0.1"

    def remove(self, number: int) -> None:
        """Nothing to remove."""

    def prefix(self, number: int) -> list[str]:
        return []

    def connect(self, number: int, connected: bool) -> None:
        raise LocalClusterError("a partition needs nodes in network namespaces: root, `ip` and `nsenter`")


def available(name: str) -> Machines:
    """Namespaces where this user may make them, loopback otherwise."""
    probe = f"{name}-probe"
    try:
        if shutil.which("nsenter") is None:
            return Loopback()
        _ip("netns", "add", probe)
        _ip("netns", "delete", probe)
    except (OSError, LocalClusterError):
        return Loopback()
    return Namespaces(name)


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise LocalClusterError(f"`ip {' '.join(words)}` failed: {done.stderr.strip()}")
    return done.stdout
