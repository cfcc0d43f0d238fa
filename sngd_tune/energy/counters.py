"""Where joules come from: each counter reads figures that only go forward, and says what two readings mean.

What several trainings share is attributed, since none of them has it alone, and the source's name says so:

- a GPU that is given out in shares: by the share that Ray gave, since NVML counts the board and not the process;
- CPU packages: by this process's CPU time over all that was used on the machine meanwhile. So the idle power of the
  packages is divided among those who compute, and whoever computes alone bears all of it.

A GPU's energy is the board's: not its host's CPU, and not cooling. Packages are CPUs: not memory, disks or fans.
Neither NVML nor RAPL has been run on hardware yet.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from sngd_tune.records.energy import ESTIMATE, NVML, NVML_SHARE, RAPL_SHARE

__all__ = ["Counter", "CpuTimeEstimate", "GpuCounter", "Package", "PackageCounter", "busy_seconds", "find_packages"]

Reading = Sequence[float]

_POWERCAP = Path("/sys/class/powercap")
_MICROJOULE = 1e-6


class Counter(Protocol):
    """A source of energy."""

    @property
    def source(self) -> str:
        """One of `records.energy.SOURCES`."""

    def read(self) -> Reading:
        """Figures of now. Raises: OSError: they cannot be read."""

    def joules(self, before: Reading, after: Reading) -> float:
        """What this process used between two readings (J, ≥ 0)."""


class GpuCounter:
    """A GPU's own counter, which its driver renews every 20 to 100 ms: single windows shorter than that are coarse.

    Args:
        read: joules since the driver was loaded.
        share: of the GPU that this process was given, > 0; from 1 on all of it.
    """

    def __init__(self, read: Callable[[], float], share: float = 1.0):
        self._read, self._share = read, min(share, 1.0)
        self.source = NVML if share >= 1 else NVML_SHARE

    def read(self) -> Reading:
        return (self._read(),)

    def joules(self, before: Reading, after: Reading) -> float:
        return max(0.0, after[0] - before[0]) * self._share  # a driver that was loaded anew begins at 0


@dataclass(frozen=True)
class Package:
    """RAPL's counter of one CPU package.

    Attributes:
        counter: file with its microjoules.
        wrap: where the counter begins again (µJ): after minutes at full load on some processors.
    """

    counter: Path
    wrap: int


class PackageCounter:
    """RAPL: the machine's CPU packages, by this process's share of the CPU time.

    Busy time has ticks of 10 ms: in shorter windows the share is coarse.

    Args:
        packages: from `find_packages`.
        own: CPU seconds of this process.
        busy: CPU seconds of all processes of the machine.
    """

    source = RAPL_SHARE

    def __init__(
        self,
        packages: Sequence[Package],
        own: Callable[[], float] = time.process_time,
        busy: Callable[[], float] | None = None,
    ):
        self._packages, self._own, self._busy = packages, own, busy or busy_seconds

    def read(self) -> Reading:
        return self._own(), self._busy(), *(int(package.counter.read_text()) for package in self._packages)

    def joules(self, before: Reading, after: Reading) -> float:
        own, busy, *used = (late - early for early, late in zip(before, after, strict=True))
        steps = zip(used, self._packages, strict=True)
        microjoules = sum(each if each >= 0 else each + package.wrap for each, package in steps)
        share = own / max(own, busy) if own > 0 else 0.0
        return microjoules * _MICROJOULE * share


class CpuTimeEstimate:
    """No counter: CPU time of this process × watts. Published validation found errors up to 40 % in such estimates.

    Args:
        watts: of one busy logical CPU, > 0.
        own: CPU seconds of this process.
    """

    source = ESTIMATE

    def __init__(self, watts: float, own: Callable[[], float] = time.process_time):
        self._watts, self._own = watts, own

    def read(self) -> Reading:
        return (self._own(),)

    def joules(self, before: Reading, after: Reading) -> float:
        return (after[0] - before[0]) * self._watts


def find_packages(powercap: Path = _POWERCAP) -> list[Package]:
    """The CPU packages with a counter that this process may read; none where one of them is closed to it.

    Their parts (cores, memory) are inside them, and ``psys`` is around them: neither is added. Linux since 5.10 lets
    only root read, and virtual machines have no counters at all.
    """
    try:
        zones = [zone for zone in sorted(powercap.glob("intel-rapl:*")) if _name(zone).startswith("package")]
        packages = [Package(zone / "energy_uj", int((zone / "max_energy_range_uj").read_text())) for zone in zones]
        for package in packages:
            int(package.counter.read_text())
    except (OSError, ValueError):
        return []
    return packages


def busy_seconds() -> float:
    """CPU seconds of all processes of this machine since it started, those of its interrupts included."""
    times = psutil.cpu_times()
    parts = ("user", "nice", "system", "irq", "softirq", "steal")
    return sum(getattr(times, part, 0.0) for part in parts)


def _name(zone: Path) -> str:
    return (zone / "name").read_text().strip()
