"""A start gate for the actors of a phase, without which Tune runs short trials one after another.

Tune gives the trial that waits for a starting actor to whichever actor comes free first, and kills the one that was
starting. With trials shorter than the start of a process (importing torch takes seconds) a second actor never comes up:
24 trials of half a second took 13.3 s on two CPUs, one by one. So the first trial of each new process waits, for a
bounded time and once per phase, until as many processes are up as there are slots.
"""

import asyncio
from typing import Any

__all__ = ["make_gate", "pass_gate"]

_TIMEOUT_SECONDS = 30.0


class _Gate:
    def __init__(self) -> None:
        self._missing: dict[str, int] = {}
        self._open: dict[str, asyncio.Event] = {}

    def expect(self, phase: str, count: int) -> None:
        """How many processes the phase will have."""
        self._missing[phase] = count
        self._open[phase] = asyncio.Event()

    async def arrive(self, phase: str) -> None:
        """Return once all processes of the phase are there, or after the time limit."""
        self._missing[phase] -= 1
        if self._missing[phase] <= 0:
            self._open[phase].set()
        try:
            await asyncio.wait_for(self._open[phase].wait(), _TIMEOUT_SECONDS)
        except TimeoutError:
            self._open[phase].set()  # the cluster has shrunk, or is slow: nobody waits twice


def make_gate() -> Any:
    """A gate: an actor that needs no CPU."""
    import ray

    return ray.remote(_Gate).options(num_cpus=0, max_concurrency=10_000).remote()


def pass_gate(gate: Any, phase: str) -> None:
    """Wait at the gate; a gate that has died holds nobody up."""
    import ray

    try:
        ray.get(gate.arrive.remote(phase), timeout=2 * _TIMEOUT_SECONDS)
    except ray.exceptions.RayError:
        return
