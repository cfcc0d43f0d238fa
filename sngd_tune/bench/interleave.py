"""Timing several candidates in turns, so that whatever else the machine does hits all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping

__all__ = ["interleave", "interleave_steps", "median_ratio", "p95_over_median"]


def interleave(candidates: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each candidate in each of `rounds` rounds, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds + 1):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in seconds.items()}


def median_ratio(values: list[float], baseline: list[float]) -> tuple[float, float, float]:
    """Median of the paired ratios, with their quartiles: ``(median, lower, upper)``."""
    ratios = [value / base for value, base in zip(values, baseline, strict=True)]
    if len(ratios) < 2:
        return ratios[0], ratios[0], ratios[0]
    lower, median, upper = statistics.quantiles(ratios, n=4, method="inclusive")  # of two, none beyond them
    return median, lower, upper


def interleave_steps(
    candidates: Mapping[str, Callable[[], None]], blocks: int, steps: int, turn: int
) -> dict[str, list[list[float]]]:
    """Seconds of each single step of each candidate: `blocks` lists of `steps`.

    Args:
        candidates: each call is one step. They should be warm.
        blocks: ≥ 1.
        steps: in a block, ≥ 1.
        turn: steps until it is the next candidate's turn, ≥ 1: enough of them that the caches are its own.
    """
    seconds: dict[str, list[list[float]]] = {name: [[] for _ in range(blocks)] for name in candidates}
    for block in range(blocks):
        for start in range(0, steps, turn):
            for name, step in candidates.items():
                seconds[name][block] += [_seconds(step) for _ in range(min(turn, steps - start))]
    return seconds


def p95_over_median(seconds: list[float]) -> float:
    """95th percentile over median: how much the slow steps stand out. At least two values."""
    return statistics.quantiles(seconds, n=20)[-1] / statistics.median(seconds)


def _seconds(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start
