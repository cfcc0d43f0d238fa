"""Timing several candidates in turns, so that whatever else the machine does hits all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping

__all__ = ["interleave", "median_ratio"]


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
    lower, median, upper = statistics.quantiles(ratios, n=4)
    return median, lower, upper
