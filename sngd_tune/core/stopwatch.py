"""Seconds by part of a step. On a GPU each part waits for the device: measuring is asked for, never on by default.

What is waited for is the stream that computes, as it was given all of the part's work, or has to wait for it. So an
exchange between devices that runs beside the computation counts from where the computation waits for it.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["Stopwatch"]


class Stopwatch:
    """Sums seconds by name; a part measured inside another is taken out of the outer one.

    >>> watch = Stopwatch("cpu")
    >>> with watch("update"):
    ...     pass
    >>> sorted(watch.seconds)
    ['update']
    """

    def __init__(self, device: torch.device | str):
        self.seconds: dict[str, float] = defaultdict(float)
        self._device = torch.device(device)
        self._inner = 0.0

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Add the time spent inside to `part`, less the parts measured within it."""
        outer_inner, self._inner = self._inner, 0.0
        start = self._now()
        try:
            yield
        finally:
            elapsed = self._now() - start
            self.seconds[part] += elapsed - self._inner
            self._inner = outer_inner + elapsed

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        return time.perf_counter()
