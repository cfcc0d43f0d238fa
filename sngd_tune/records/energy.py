"""`Energy`: joules with where they come from. What differs in its source is never added, subtracted or compared."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["ESTIMATE", "NVML", "NVML_SHARE", "RAPL_SHARE", "SOURCES", "WATT_HOUR", "Energy", "by_source", "total"]

#: One whole GPU's own energy counter.
NVML = "nvml"
#: That of a GPU that several trainings share, by the share that this one was given.
NVML_SHARE = "nvml_share"
#: Energy counters of the machine's CPU packages, by this process's share of the CPU time that was used on them.
RAPL_SHARE = "rapl_share"
#: No counter at all: CPU time × watts. Published validation found errors up to 40 % in such estimates.
ESTIMATE = "estimate"

#: What ``energy_source`` may be, the best first. All but the last are measured.
SOURCES = (NVML, NVML_SHARE, RAPL_SHARE, ESTIMATE)

#: Joules.
WATT_HOUR = 3600.0


@dataclass(frozen=True)
class Energy:
    """What trainings used.

    >>> Energy(2.0, "nvml") + Energy(3.0, "nvml")
    Energy(joules=5.0, source='nvml')

    Attributes:
        joules: ≥ 0; of a difference, any number.
        source: one of `SOURCES`.
    """

    joules: float
    source: str

    @property
    def measured(self) -> bool:
        """Whether a counter in the hardware says so."""
        return self.source != ESTIMATE

    @property
    def watt_hours(self) -> float:
        """The same in Wh."""
        return self.joules / WATT_HOUR

    def __add__(self, other: "Energy") -> "Energy":
        """Raises: ValueError: the sources differ."""
        self._check(other)
        return Energy(self.joules + other.joules, self.source)

    def __sub__(self, other: "Energy") -> "Energy":
        """Raises: ValueError: the sources differ."""
        self._check(other)
        return Energy(self.joules - other.joules, self.source)

    def _check(self, other: "Energy") -> None:
        if self.source != other.source:
            raise ValueError(
                f"energy of {self.source} and of {other.source}: different sources are not added; keep both"
            )


def by_source(energies: Iterable[Energy | None]) -> tuple[Energy, ...]:
    """One sum for each source that occurs, in the order of `SOURCES`; what is unknown is left out.

    >>> by_source([Energy(1.0, "estimate"), None, Energy(2.0, "nvml"), Energy(3.0, "estimate")])
    (Energy(joules=2.0, source='nvml'), Energy(joules=4.0, source='estimate'))
    """
    joules: defaultdict[str, float] = defaultdict(float)
    for energy in energies:
        if energy is not None:
            joules[energy.source] += energy.joules
    return tuple(Energy(joules[source], source) for source in SOURCES if source in joules)


def total(energies: Iterable[Energy | None]) -> Energy | None:
    """The sum; None where it is not known: nothing there, a part unknown, or sources that differ.

    >>> total([Energy(1.0, "nvml"), Energy(2.0, "nvml")])
    Energy(joules=3.0, source='nvml')
    >>> total([Energy(1.0, "nvml"), None]) is None
    True
    """
    parts = list(energies)
    sums = by_source(parts)
    return sums[0] if len(sums) == 1 and None not in parts else None
