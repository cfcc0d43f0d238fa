"""`EnergyMeter`: what this process's training uses, window by window; `energy_meter` finds the best source there is."""

import math
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import torch

from sngd_tune.core.distributed import Ranks
from sngd_tune.energy.counters import Counter, CpuTimeEstimate, GpuCounter, PackageCounter, Reading, find_packages
from sngd_tune.energy.watts import watts_per_cpu
from sngd_tune.gpu import energy_counter
from sngd_tune.records.energy import SOURCES, Energy

__all__ = ["EnergyMeter", "energy_meter", "joint"]

#: Seconds after which `EnergyMeter.look` reads: counters of CPU packages begin again after some minutes at full load.
_LOOK_SECONDS = 60.0


class EnergyMeter:
    """Measures what happens inside ``with meter:``; a window costs two readings, some 10 µs.

    Where the counter cannot be read any more, energy is not known; training goes on.

    Args:
        counter: its source; None: energy is not known.
        settle: waits until the device has done what it was given.
    """

    def __init__(self, counter: Counter | None, settle: Callable[[], None] = lambda: None):
        self._counter, self._settle = counter, settle
        self._last: Reading | None = None
        self._looked = 0.0
        self._joules = 0.0

    @property
    def nothing(self) -> Energy | None:
        """No energy of its source: where sums begin; None where there is no source."""
        return None if self._counter is None else Energy(0.0, self._counter.source)

    @property
    def energy(self) -> Energy | None:
        """Of the last window; None where it is not known."""
        return None if self._counter is None or self._last is None else Energy(self._joules, self._counter.source)

    def __enter__(self) -> Self:
        self._settle()
        self._joules = 0.0
        self._last = self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The end of the window; what raised in it is no measurement."""
        if kind is not None:
            self._last = None
            return
        self._settle()
        self._advance()

    def look(self) -> None:
        """Called inside a window at least every few minutes, keeps a counter from beginning again unnoticed."""
        if time.monotonic() - self._looked >= _LOOK_SECONDS:
            self._advance()

    def _advance(self) -> None:
        before, self._last = self._last, self._read() if self._last is not None else None
        if self._counter is not None and before is not None and self._last is not None:
            self._joules += self._counter.joules(before, self._last)

    def _read(self) -> Reading | None:
        self._looked = time.monotonic()
        try:
            return None if self._counter is None else self._counter.read()
        except (OSError, ValueError):
            return None


def energy_meter(device: torch.device, gpu_share: float = 1.0) -> EnergyMeter:
    """The meter of a training on this device.

    A GPU has its own counter or, without NVML, none: its energy is not guessed from the CPU's time. A CPU has RAPL's
    counters where they can be read, else an estimate. Nothing is known of other devices.

    Args:
        device: that it trains on.
        gpu_share: of it that the process was given, > 0; from 1 on all of it.

    Raises:
        ConfigurationError: `watts.WATTS_VARIABLE` is wrong.
    """
    if device.type == "cuda":
        read = energy_counter(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        counter = GpuCounter(read, gpu_share) if read is not None else None
        return EnergyMeter(counter, lambda: torch.cuda.synchronize(device))
    if device.type != "cpu":
        return EnergyMeter(None)
    packages = find_packages()
    return EnergyMeter(PackageCounter(packages) if packages else CpuTimeEstimate(watts_per_cpu()))


def joint(energy: Energy | None, ranks: Ranks, device: torch.device) -> Energy | None:
    """The sum over the ranks; None where one does not know its own, or has it from another source."""
    own = [energy.joules if energy is not None and energy.source == source else math.nan for source in SOURCES]
    joules = zip(ranks.sum(own, device), SOURCES, strict=True)
    return next((Energy(each, source) for each, source in joules if not math.isnan(each)), None)
