"""Processes by their PIDs: who is alive, who descends from whom. From /proc, so Linux only."""

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

__all__ = ["birth", "kill", "kill_tree"]

_DEATH_SECONDS = 10.0


def birth(pid: int) -> int | None:
    """When the process began (clock ticks since boot), which tells a PID's owners apart; None if it is dead."""
    fields = _stat(pid)
    return None if fields is None or fields[0] == "Z" else int(fields[19])


def kill(pids: Iterable[int]) -> None:
    """SIGKILL processes, and wait for their death."""
    killed = list(pids)
    for pid in killed:
        _send(pid, signal.SIGKILL)
    deadline = time.monotonic() + _DEATH_SECONDS
    while any(birth(pid) is not None for pid in killed) and time.monotonic() < deadline:
        time.sleep(0.02)


def kill_tree(pid: int) -> None:
    """SIGKILL the process and all below it, as if the power had gone: none has time to start another."""
    stopped: set[int] = set()
    while found := set(_descendants(pid)) - stopped:
        for each in found:
            _send(each, signal.SIGSTOP)
        stopped |= found
    kill(stopped)


def _descendants(pid: int) -> list[int]:
    """The process and all below it."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(path.name))
        if fields is not None:
            children.setdefault(int(fields[1]), []).append(int(path.name))
    found = [pid]
    for parent in found:
        found.extend(children.get(parent, ()))
    return found


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third (state, parent, …) on."""
    try:
        # The second field, the name, is in parentheses and may hold anything.
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
