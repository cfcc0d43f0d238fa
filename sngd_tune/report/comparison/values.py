"""What a comparison found, as values: `ComparisonReport` and its parts."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from sngd_tune.records.metrics import direction
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.target import Target
from sngd_tune.report.comparison.profiles import MethodProfile
from sngd_tune.report.comparison.ratios import Ratio
from sngd_tune.report.comparison.stability import Count, Stability
from sngd_tune.report.statistics import Difference, Spread
from sngd_tune.report.values import Failure

__all__ = [
    "COMPARISON_REPORT_VERSION",
    "ComparisonReport",
    "MethodSummary",
    "Result",
    "Run",
    "SearchPoint",
    "ToTarget",
    "Winner",
    "WorkloadSummary",
    "plain",
]

#: Version of `ComparisonReport.to_dict`.
COMPARISON_REPORT_VERSION = 1

Result = Literal["lost", "won", "neither"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One re-training on a fresh seed: seconds of training and steps to the target, infinite for a miss."""

    seed: int
    outcome: Outcome
    seconds: float
    steps: float


@dataclass(frozen=True, kw_only=True)
class ToTarget:
    """Seconds, or steps, to the target over the seeds; misses are the largest values, infinite."""

    reached: Count
    median: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class SearchPoint:
    """A search after one more trial has ended.

    Attributes:
        trials: ended so far.
        device_seconds: of training used by them.
        best: objective of the best completed trial among them; None before the first.
    """

    trials: int
    device_seconds: float
    best: float | None


@dataclass(frozen=True, kw_only=True)
class Winner:
    """A trial of the search that is trained again: its name, objective, seconds to the target and settings."""

    trial: str
    objective: float | None
    seconds: float
    parameters: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class MethodSummary:
    """One method on one workload.

    Attributes:
        method: its label.
        status: ``"missing"`` where nothing has begun, ``"incomplete"`` where trials or seeds are still to come.
        lacks: what is not there, in words; empty where it is complete.
        trials: search trials that have begun; `planned` were allotted.
        device_seconds: training in the search, evaluation not counted.
        outcomes: of the search's trials.
        best, fastest: winner by the objective, and the trial that reached the target first.
        timed: ``"best"`` or ``"fastest"``: whose re-trainings `runs` are.
        runs: one a seed.
        seconds, steps: to the target; None without a run.
        test: spread of each test metric over the seeds of `best`, at the end of the budget.
        seconds_ratio, steps_ratio: candidate over this method; None for the candidate itself and without a pair.
        differences: candidate − this method in each test metric, paired by seed.
        stability: of its search and of its re-trainings.
        progress: best so far, trial by trial.
        failures: of both phases.
    """

    method: str
    status: Literal["complete", "incomplete", "missing"]
    lacks: tuple[str, ...]
    trials: int
    planned: int
    device_seconds: float
    outcomes: dict[Outcome, int]
    best: Winner | None
    fastest: Winner | None
    timed: Literal["best", "fastest"]
    runs: tuple[Run, ...]
    seconds: ToTarget | None
    steps: ToTarget | None
    test: dict[str, Spread]
    seconds_ratio: Ratio | None
    steps_ratio: Ratio | None
    differences: tuple[Difference, ...]
    stability: Stability
    progress: tuple[SearchPoint, ...]
    failures: tuple[Failure, ...]


@dataclass(frozen=True, kw_only=True)
class WorkloadSummary:
    """All methods on one workload.

    Attributes:
        workload: its label.
        target: what a training had to reach.
        seconds: of training that each training was given.
        methods: the candidate first, then the others in the order of the file.
        best_baseline: the other method with the lowest median time to the target; None where none reached it.
        result: ``"lost"`` where the candidate is slower to the target than at least one other method, or has no run
            while another reached it; ``"won"`` where it is faster than every one, which all have to be there; else
            ``"neither"``.
        sentence: the same in words; what is lost comes first.
        notes: where budgets were not equal, and what is missing.
    """

    workload: str
    target: Target
    seconds: float
    methods: tuple[MethodSummary, ...]
    best_baseline: str | None
    result: Result
    sentence: str
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ComparisonReport:
    """A comparison of methods on workloads.

    Attributes:
        name: of the comparison.
        candidate: the method whose ratio to each other one is reported.
        workloads: one summary each.
        profile: performance profile of each method over the workloads, the candidate's first. A method that does not
            run on a workload, or has no run there yet, counts as one that missed.
        result: ``"lost"`` where the candidate lost on more workloads than it won on, ``"won"`` the other way round.
        sentence: the same in words; losses come first.
        notes: of all workloads.
    """

    name: str
    candidate: str
    workloads: tuple[WorkloadSummary, ...]
    profile: tuple[MethodProfile, ...]
    result: Result
    sentence: str
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON.

        What is not finite becomes None; ``"missed"`` beside it names the ones that stand for a target not reached.
        """
        values = plain(self)
        for workload in values["workloads"]:
            workload["target"]["direction"] = direction(workload["target"]["metric"])
        return {"schema": COMPARISON_REPORT_VERSION, **values}

    def scalars(self) -> dict[str, float]:
        """The finite figures by ``<workload>/<method>/<quantity>``, and the score of each method's profile."""
        found: dict[str, float | None] = {f"{each.method}/profile_score": each.score for each in self.profile}
        for workload in self.workloads:
            for method in workload.methods:
                found |= {f"{workload.workload}/{method.method}/{name}": v for name, v in _figures(method).items()}
        return {name: float(value) for name, value in found.items() if value is not None and math.isfinite(value)}


def _figures(method: MethodSummary) -> dict[str, float | None]:
    return {
        "search_device_seconds": method.device_seconds,
        "search_trials": method.trials,
        "share_reached": method.stability.seeds_reached.share,
        "seconds_to_target": method.seconds.median if method.seconds else None,
        "steps_to_target": method.steps.median if method.steps else None,
        "candidate_seconds_ratio": method.seconds_ratio.median if method.seconds_ratio else None,
        "candidate_steps_ratio": method.steps_ratio.median if method.steps_ratio else None,
        **{metric: spread.mean for metric, spread in method.test.items()},
    }


#: In these an infinite value says that the target was missed; in anything else it is a broken metric.
_TIMES = (Run, ToTarget, Winner, Ratio, MethodProfile)
_NOT_A_TIME = ("objective", "parameters")


def plain(value: Any) -> Any:
    """Values that JSON knows: what is not finite is None, and ``"missed"`` names the times that stand for a miss."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        found = {name: plain(item) for name, item in fields.items()}
        missed = _missed(fields) if isinstance(value, _TIMES) else []
        return {**found, "missed": missed} if missed else found
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, StrEnum) else value


def _missed(fields: Mapping[str, Any]) -> list[str]:
    """Names of what is infinite, of a mapping those of its entries."""
    flat = {**fields, **fields.get("factors", {})}
    return [name for name, item in flat.items() if name not in _NOT_A_TIME and item == math.inf]
