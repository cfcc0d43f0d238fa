"""The rule by which a comparison becomes a verdict: adopt, extend the trial, do not adopt.

A workload counts as *behind* where a tuned baseline is shown to be faster to the target or better in the test metric,
or where the candidate has no winner and a baseline reached the target; as *ahead* where it is not behind and is shown
to be faster than the best baseline; else as *open*. "Shown" means that the interval over seeds leaves "no difference"
out (`comparison.ratios`, `statistics`). Each of several baselines can put a workload behind by chance, and the luckiest
of them is the one to beat: the rule errs towards the baselines.

Better results never give a worse verdict: the standings rise in order behind, open, ahead, and each criterion only asks
for more of what is better.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from sngd_tune.report.comparison.stability import Count

__all__ = ["ADOPT_SHARE", "MIN_WORKLOADS", "Case", "Criterion", "Ruling", "Standing", "Verdict", "rule", "wanted"]

#: Part of the workloads on which the candidate has to be ahead to be adopted.
ADOPT_SHARE = 0.5
#: With fewer workloads than this a lead may be a matter of the workload.
MIN_WORKLOADS = 2


class Verdict(StrEnum):
    """What the rule recommends."""

    ADOPT = "adopt"
    EXTEND = "extend"
    REJECT = "reject"


class Standing(StrEnum):
    """How the candidate stands on one workload."""

    AHEAD = "ahead"
    OPEN = "open"
    BEHIND = "behind"


@dataclass(frozen=True, kw_only=True)
class Case:
    """What the rule knows of one workload.

    Attributes:
        workload: its label.
        time: ``"slower"`` where at least one baseline is shown to be faster, or the candidate has nothing to show where
            a baseline reached the target; ``"faster"`` where the candidate is shown to be faster than the best one.
        worse: whether at least one baseline is shown to be better in the test metric.
        reached: seeds on which the candidate reached the target.
        baseline_reached: those of the best baseline.
        complete: whether no trial and no seed is still to come.
    """

    workload: str
    time: Literal["faster", "open", "slower"]
    worse: bool
    reached: Count
    baseline_reached: Count
    complete: bool

    @property
    def standing(self) -> Standing:
        """As the rule has it."""
        if self.time == "slower" or self.worse:
            return Standing.BEHIND
        return Standing.AHEAD if self.time == "faster" else Standing.OPEN


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """One condition of the rule: the value that was found, the one that it asks for, and whether it is met."""

    name: Literal["complete", "workloads", "ahead", "behind", "reliable", "not_behind"]
    found: float
    wanted: float
    met: bool


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """The verdict, and what it came from.

    Attributes:
        verdict: the first that holds: extend where the comparison is not complete, reject where the candidate is behind
            on more workloads than it is ahead on, adopt where every criterion is met, else extend.
        ahead, open, behind: labels of the workloads.
        criteria: all of them, in the order of the rule.
    """

    verdict: Verdict
    ahead: tuple[str, ...]
    open: tuple[str, ...]
    behind: tuple[str, ...]
    criteria: tuple[Criterion, ...]


def rule(cases: Sequence[Case]) -> Ruling:
    """Apply the rule to the workloads of a comparison; without one, the trial is to be extended."""
    by_standing = {standing: tuple(c.workload for c in cases if c.standing is standing) for standing in Standing}
    ahead, behind = by_standing[Standing.AHEAD], by_standing[Standing.BEHIND]
    criteria = (
        _complete(cases),
        _at_most("not_behind", len(behind), len(ahead)),
        _at_least("workloads", len(cases), MIN_WORKLOADS),
        _at_least("ahead", len(ahead), wanted(len(cases))),
        _at_most("behind", len(behind), 0),
        _reliable(cases),
    )
    return Ruling(
        verdict=_verdict({each.name: each.met for each in criteria}),
        ahead=ahead,
        open=by_standing[Standing.OPEN],
        behind=behind,
        criteria=criteria,
    )


def wanted(workloads: int) -> int:
    """On how many of so many workloads the candidate has to be ahead; at least one."""
    return max(1, math.ceil(ADOPT_SHARE * workloads))


def _verdict(met: dict[str, bool]) -> Verdict:
    if not met["complete"]:
        return Verdict.EXTEND
    if not met["not_behind"]:
        return Verdict.REJECT
    return Verdict.ADOPT if all(met.values()) else Verdict.EXTEND


def _complete(cases: Sequence[Case]) -> Criterion:
    return _at_least("complete", sum(case.complete for case in cases), len(cases))


def _reliable(cases: Sequence[Case]) -> Criterion:
    """Shares of the seeds over all workloads; a failed training is a seed that missed."""
    own, best = (_share([getattr(case, of) for case in cases]) for of in ("reached", "baseline_reached"))
    return _at_least("reliable", own, best)


def _share(counts: Sequence[Count]) -> float:
    seeds = sum(count.of for count in counts)
    return sum(count.count for count in counts) / seeds if seeds else 0.0


def _at_least(name: Literal["complete", "workloads", "ahead", "reliable"], found: float, least: float) -> Criterion:
    return Criterion(name=name, found=found, wanted=least, met=found >= least)


def _at_most(name: Literal["behind", "not_behind"], found: float, most: float) -> Criterion:
    return Criterion(name=name, found=found, wanted=most, met=found <= most)
