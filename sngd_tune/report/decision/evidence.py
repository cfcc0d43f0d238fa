"""What a comparison shows on each workload, as the rule takes it."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from sngd_tune.report.comparison.ratios import Ratio
from sngd_tune.report.comparison.runs import WorkloadResults
from sngd_tune.report.comparison.sign_interval import COVERAGE, MIN_VALUES, sign_coverage
from sngd_tune.report.comparison.stability import Count
from sngd_tune.report.comparison.values import MethodSummary, Run, WorkloadSummary
from sngd_tune.report.comparison.words import main_difference
from sngd_tune.report.decision.economy import economy
from sngd_tune.report.decision.rule import Case, Standing
from sngd_tune.report.decision.values import Duel, Evidence, Terms

__all__ = ["MAX_SEEDS", "REFERENCE", "case_of", "evidence_of", "seeds_wanted"]

#: The baseline that most readers know; it is shown beside the best one.
REFERENCE = "adamw"
#: More seeds than this are not worth their trainings: the difference would be too small to matter.
MAX_SEEDS = 50

_NONE = Count(count=0, of=0)


def case_of(candidate: str, summary: WorkloadSummary) -> Case:
    """A workload as the rule sees it."""
    own, rival = _named(summary, candidate), _rival(candidate, summary)
    return Case(
        workload=summary.workload,
        time=_time(summary, rival),
        worse=bool(_worse_than(summary)),
        reached=own.stability.seeds_reached if own else _NONE,
        baseline_reached=rival.stability.seeds_reached if rival else _NONE,
        complete=bool(summary.methods) and all(each.status == "complete" for each in summary.methods),
    )


def evidence_of(candidate: str, summary: WorkloadSummary, results: WorkloadResults, terms: Terms) -> Evidence:
    """Everything that the report says of a workload."""
    own, rival = _named(summary, candidate), _rival(candidate, summary)
    reference = _named(summary, REFERENCE) if candidate != REFERENCE else None
    standing = case_of(candidate, summary).standing
    found = Evidence(
        workload=summary.workload,
        target=summary.target,
        budget=summary.seconds,
        standing=standing,
        seconds=own.seconds if own else None,
        stability=own.stability if own else None,
        best=_duel(rival),
        reference=_duel(reference),
        slower_than=tuple(each.method for each in summary.methods if _verdict(each.seconds_ratio) == "slower"),
        worse_than=_worse_than(summary),
    )
    if own is None or rival is None:
        return found
    sides = (results.methods[own.method], results.methods[rival.method])
    return dataclasses.replace(
        found,
        economy=economy(*sides, summary.target, terms),
        seeds_wanted=seeds_wanted(own.runs, rival.runs) if standing is Standing.OPEN else None,
    )


def seeds_wanted(own: Sequence[Run], baseline: Sequence[Run]) -> int | None:
    """The least number of seeds whose interval would show the candidate to be faster, if it is on the same share.

    An estimate at even odds: chance may divide later seeds worse than those so far, or better.

    Returns:
        None where the candidate was faster on no more than half of the seeds, or more than `MAX_SEEDS` would be needed.
    """
    other = {run.seed: run.seconds for run in baseline}
    signs = [(run.seconds < other[run.seed]) - (run.seconds > other[run.seed]) for run in own if run.seed in other]
    if not signs or sum(signs) <= 0:
        return None
    behind = (1 - sum(signs) / len(signs)) / 2  # a tie counts half
    seeds = range(max(MIN_VALUES, len(signs) + 1), MAX_SEEDS + 1)
    return next((n for n in seeds if _decides(n, round(behind * n))), None)


def _decides(n: int, against: int) -> bool:
    """Whether the interval leaves out what so many of n seeds say; with `MIN_VALUES` it is the whole range."""
    return against == 0 or sign_coverage(n, against + 1) >= COVERAGE


def _time(summary: WorkloadSummary, rival: MethodSummary | None) -> Literal["faster", "open", "slower"]:
    if summary.result == "lost":
        return "slower"
    return "faster" if rival is not None and _verdict(rival.seconds_ratio) == "faster" else "open"


def _rival(candidate: str, summary: WorkloadSummary) -> MethodSummary | None:
    """The best baseline; where none has a median time, the one of whose seeds most reached the target."""
    if summary.best_baseline is not None:
        return _named(summary, summary.best_baseline)
    trained = [each for each in summary.methods if each.method != candidate and each.runs]
    return max(trained, key=lambda each: each.stability.seeds_reached.count, default=None)


def _named(summary: WorkloadSummary, name: str | None) -> MethodSummary | None:
    return next((each for each in summary.methods if each.method == name), None)


def _duel(baseline: MethodSummary | None) -> Duel | None:
    if baseline is None:
        return None
    return Duel(
        baseline=baseline.method,
        seconds=baseline.seconds,
        ratio=baseline.seconds_ratio,
        difference=main_difference(baseline),
        stability=baseline.stability,
    )


def _worse_than(summary: WorkloadSummary) -> tuple[str, ...]:
    differences = ((each.method, main_difference(each)) for each in summary.methods)
    return tuple(name for name, found in differences if found is not None and found.verdict == "worse")


def _verdict(ratio: Ratio | None) -> str | None:
    return ratio.verdict if ratio else None
