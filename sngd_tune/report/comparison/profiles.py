"""The performance profile of several methods over several workloads (Dolan and Moré 2002), with AlgoPerf's score.

For each method, the share of the workloads on which its time to the target is within a factor τ of the best method's
there. A miss is within no factor of anything; where all miss, the workload counts for nobody and stays in the share.
The score (AlgoPerf, Dahl et al. 2023) is the area under this share from τ = 1 to 4, over the 3 that is possible.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sngd_tune.report.comparison.runs import MISSED

__all__ = ["LARGEST_FACTOR", "MethodProfile", "performance_profile"]

#: AlgoPerf's r_max.
LARGEST_FACTOR = 4.0


@dataclass(frozen=True, kw_only=True)
class MethodProfile:
    """One method over all workloads.

    Attributes:
        method: its label.
        factors: time over the best method's time, by workload: ≥ 1, `MISSED` where it missed or has no time.
        score: from 0 to 1; 1 where it is the best everywhere.
    """

    method: str
    factors: Mapping[str, float]
    score: float

    def share(self, factor: float) -> float:
        """Share of the workloads on which it is within this factor (≥ 1) of the best; 0 without a workload."""
        within = sum(own <= factor for own in self.factors.values() if math.isfinite(own))
        return within / len(self.factors) if self.factors else 0.0


def performance_profile(times: Mapping[str, Mapping[str, float]]) -> tuple[MethodProfile, ...]:
    """The profile of each method, in order of appearance.

    Args:
        times: median seconds (> 0) to the target by method, by workload; `MISSED` for a miss. A method that a workload
            does not name has not solved it.
    """
    methods = list(dict.fromkeys(method for of in times.values() for method in of))
    best = {workload: min(of.values(), default=MISSED) for workload, of in times.items()}
    profiles = []
    for method in methods:
        factors = {name: _factor(of.get(method, MISSED), best[name]) for name, of in times.items()}
        areas = [max(0.0, LARGEST_FACTOR - own) / (LARGEST_FACTOR - 1) for own in factors.values()]
        profiles.append(MethodProfile(method=method, factors=factors, score=sum(areas) / len(areas)))
    return tuple(profiles)


def _factor(seconds: float, best: float) -> float:
    if not math.isfinite(seconds):
        return MISSED
    return 1.0 if seconds == best else seconds / best
