"""Seconds of an operation: measured in little time, or told from smaller ones where it would take long.

What a step does every time is timed in a row, warm. What it does now and then (statistics, refreshes) is timed after
other work, as in training it finds its code and its data out of the caches. (Measured on a layer of 80 units, in a
network whose step takes a millisecond: a refresh of rank 16 takes 0.44 ms in a row, 0.57 after other work and 0.77 in
training.)
"""

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

__all__ = ["LONGEST", "OtherWork", "Timing", "climb", "now", "seconds_of", "seconds_of_rare", "threads_set"]

#: Seconds of one call, from where it is not made at full size.
LONGEST = 0.1
#: Seconds that the repetitions of one operation take together, and how many there are at the least and at the most.
_BOX = 0.008
_FEWEST, _MOST = 3, 25
#: The same for what is rare: long operations do not need to be repeated.
_RARE_BOX = 0.03
#: Numbers that other work passes over: some tens of MB, as large as a processor's last cache.
_PASSED_OVER = 2**23

Operation = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds of an operation.

    Attributes:
        seconds: ≥ 0.
        measured: at full size; else they are extrapolated from two smaller ones.
    """

    seconds: float
    measured: bool = True


class OtherWork:
    """What takes the caches: `step` trains a small network, a call also passes over some memory."""

    def __init__(self) -> None:
        with torch.random.fork_rng([]):
            self._model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.LayerNorm(64), nn.Linear(64, 16))
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=1e-6)
        self._inputs, self._targets = torch.ones(128, 64), torch.zeros(128, dtype=torch.long)
        self._memory = torch.zeros(_PASSED_OVER)

    @torch.enable_grad()
    def step(self) -> None:
        """What lies between the same parts of two steps; less than a millisecond."""
        self._optimizer.zero_grad()
        nn.functional.cross_entropy(self._model(self._inputs), self._targets).backward()
        self._optimizer.step()

    def __call__(self) -> None:
        """What many steps leave of the caches; some milliseconds."""
        self.step()
        self._memory.add_(1)


def seconds_of(operation: Operation, device: torch.device) -> float:
    """Median of a few repetitions in a row; of many and after one that does not count, where they are short.

    Args:
        operation: what is timed.
        device: of its tensors; a GPU is waited for.
    """
    with _collector_off():
        first = _once(operation, device)
        taken = [first] if first > _BOX else []
        while len(taken) < _FEWEST or (len(taken) < _MOST and sum(taken) < _BOX):
            taken.append(_once(operation, device))
        return statistics.median(taken)


def seconds_of_rare(
    operation: Operation, device: torch.device, prepare: Operation, repetitions: int = _FEWEST
) -> float:
    """Median of some repetitions, fewer of what is long, each after `prepare`, which does not count."""
    with _collector_off():
        taken: list[float] = []
        while len(taken) < repetitions and sum(taken) < _RARE_BOX:
            prepare()
            taken.append(_once(operation, device))
        return statistics.median(taken)


def climb(
    timed: Callable[[int], float], halvings: int, growth: float, floor: int = 0, longest: float = LONGEST
) -> Timing:
    """Time an operation at full size, where this is told to be short by smaller sizes.

    It goes up from a small size, as long as the next one is told to take no longer than `longest`, and takes the full
    size as soon as that is. Where it has to stop, the time at full size is extrapolated from the last two sizes.

    Args:
        timed: seconds with all sizes of the layer halved so many times; 0 is full size.
        halvings: where to begin, ≥ `floor`; small enough for any operation.
        growth: exponent of the time in the size, from its multiplications: an upper bound on what is measured.
        floor: least number of halvings that fits into memory.
        longest: seconds.
    """
    times = {halvings: timed(halvings)}
    while halvings > floor:
        if times[halvings] * 2**growth > longest:  # a second time, as other processes may have held up the first
            times[halvings] = min(times[halvings], timed(halvings))
        now = times[halvings]
        if not floor and now * 2 ** (growth * halvings) <= longest:
            return Timing(timed(0))
        if now * 2**growth > longest:
            break
        halvings -= 1
        times[halvings] = timed(halvings)
    if not halvings:
        return Timing(times[0])
    if halvings + 1 not in times:
        times[halvings + 1] = timed(halvings + 1)
    return Timing(times[halvings] * 2 ** (_exponent(times[halvings + 1], times[halvings], growth) * halvings), False)


def _exponent(half: float, whole: float, growth: float) -> float:
    """By which the time goes on growing: halfway from what it did to what its multiplications will make it.

    (Small operations are slower per multiplication than large ones, so what is measured is too low.)
    """
    local = math.log2(whole / half) if half > 0 < whole else growth
    return (min(max(local, 0.0), growth) + growth) / 2


@contextmanager
def threads_set(count: int) -> Iterator[None]:
    """Torch's number of CPU threads, and back."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _collector_off() -> Iterator[None]:
    """A garbage collection would hit one repetition."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def now(device: torch.device) -> float:
    """`time.perf_counter`, once a GPU has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _once(operation: Operation, device: torch.device) -> float:
    start = now(device)
    operation()
    return now(device) - start
