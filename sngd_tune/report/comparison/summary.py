"""A comparison of methods under equal budgets, summarized: after AlgoPerf (Dahl et al. 2023) and Choi et al. (2019).

Time to the target is that of the settings that reached it first in the search, trained again on fresh seeds; a miss is
infinite, and so is a training that failed. The test metric is that of the best settings by the objective, at the end of
the budget. Methods are compared seed by seed: times as `ratios` says, test metrics as `statistics` does.
"""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from sngd_tune.records.metrics import direction
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.ranking import fastest
from sngd_tune.records.target import Target
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.report.comparison.budgets import budget_notes
from sngd_tune.report.comparison.profiles import performance_profile
from sngd_tune.report.comparison.ratios import Ratio, paired_ratio
from sngd_tune.report.comparison.runs import (
    MISSED,
    MethodResults,
    WorkloadResults,
    completed,
    confirmations,
    reach,
    search_trials,
    timed,
    timed_runs,
    winners_of,
)
from sngd_tune.report.comparison.stability import Count, stability
from sngd_tune.report.comparison.values import (
    ComparisonReport,
    MethodSummary,
    Result,
    Run,
    SearchPoint,
    ToTarget,
    Winner,
    WorkloadSummary,
)
from sngd_tune.report.comparison.words import overall_sentence, workload_sentence
from sngd_tune.report.statistics import Difference, Spread, paired_difference, spread
from sngd_tune.report.values import TEST_METRICS, Failure

__all__ = ["ComparisonReport", "MethodResults", "WorkloadResults", "summarize_comparison"]


def summarize_comparison(name: str, candidate: str, results: Sequence[WorkloadResults]) -> ComparisonReport:
    """The report of a comparison, finished or not.

    Args:
        name: of the comparison.
        candidate: the method whose ratio to each other one is reported.
        results: one entry a workload; cells that have not begun are reported as missing.
    """
    workloads = tuple(_workload(candidate, each) for each in results)
    profile = performance_profile({each.workload: _medians(each) for each in workloads})
    result, sentence = overall_sentence(candidate, workloads, profile)
    notes = tuple(f"{each.workload}: {note}" for each in workloads for note in each.notes)
    return ComparisonReport(
        name=name,
        candidate=candidate,
        workloads=workloads,
        profile=profile,
        result=result,
        sentence=sentence,
        notes=notes,
    )


def _medians(workload: WorkloadSummary) -> dict[str, float]:
    return {each.method: each.seconds.median if each.seconds else MISSED for each in workload.methods}


def _workload(candidate: str, results: WorkloadResults) -> WorkloadSummary:
    first = sorted(results.methods, key=lambda method: method != candidate)  # stable: the others keep their order
    methods = tuple(_method(name, candidate, results) for name in first)
    own = next((each for each in methods if each.method == candidate), None)
    others = [each for each in methods if each.method != candidate]
    best = _best_baseline(others)
    result = _result(own, others, best)
    lacking = [f"{each.method}: {lack}" for each in methods for lack in each.lacks]
    return WorkloadSummary(
        workload=results.workload,
        target=results.target,
        seconds=results.seconds,
        methods=methods,
        best_baseline=best,
        result=result,
        sentence=workload_sentence(results.workload, own, others, best, result),
        notes=(*lacking, *budget_notes(results)),
    )


def _best_baseline(others: Sequence[MethodSummary]) -> str | None:
    reached = [each for each in others if each.seconds and math.isfinite(each.seconds.median)]
    return min(reached, key=lambda each: each.seconds.median if each.seconds else MISSED).method if reached else None


def _result(own: MethodSummary | None, others: Sequence[MethodSummary], best: str | None) -> Result:
    if own is None:
        return "neither"
    verdicts = [each.seconds_ratio.verdict if each.seconds_ratio else None for each in others]
    if "slower" in verdicts or (own.status == "complete" and not own.runs and best is not None):
        return "lost"
    beaten = [
        verdict == "faster" or (each.status == "complete" and not each.runs)
        for each, verdict in zip(others, verdicts, strict=True)
    ]
    return "won" if "faster" in verdicts and all(beaten) else "neither"


def _method(name: str, candidate: str, results: WorkloadResults) -> MethodSummary:
    method, target = results.methods[name], results.target
    search, runs = search_trials(method), _runs(method, target)
    chosen = winners_of(method, target)
    lacks = _lacks(method, results)
    reference = results.methods.get(candidate) if name != candidate else None
    return MethodSummary(
        method=name,
        status=_status(method, lacks),
        lacks=tuple(lacks),
        trials=len(search),
        planned=method.config.search.trials,
        device_seconds=sum(record.training_seconds for record in search),
        outcomes=dict(Counter(record.outcome for record in search)),
        best=_winner(chosen.get("best"), method, target),
        fastest=_winner(fastest(method.trials, method.epochs, target), method, target),
        timed=timed(chosen),
        runs=runs,
        seconds=_to_target([run.seconds for run in runs]),
        steps=_to_target([run.steps for run in runs]),
        test=_test(method),
        seconds_ratio=_ratio("seconds", reference, runs, target),
        steps_ratio=_ratio("steps", reference, runs, target),
        differences=_differences(reference, method),
        stability=stability(method, target),
        progress=tuple(_progress(method)),
        failures=tuple(Failure.of(record) for record in method.trials if record.outcome.failed),
    )


def _status(method: MethodResults, lacks: Sequence[str]) -> Literal["complete", "incomplete", "missing"]:
    if not method.trials:
        return "missing"
    pending = any(not record.outcome.finished for record in method.trials)
    return "incomplete" if pending or any(lack != _NO_WINNER for lack in lacks) else "complete"


_NO_WINNER = "no trial of its search completed, so there is no winner to train again"


def _lacks(method: MethodResults, results: WorkloadResults) -> list[str]:
    """What of a cell is not there yet."""
    if not method.trials:
        return ["not begun"]
    planned, ended = method.config.search.trials, sum(each.outcome.finished for each in search_trials(method))
    lacks = [f"{ended} of {planned} trials of the search have ended"] if ended < planned else []
    best, runs = winners_of(method, results.target).get("best"), timed_runs(method, results.target)
    if best is None and not lacks:
        lacks.append(_NO_WINNER)
    expected = results.confirm_seeds or max(_seeds(each) for each in results.methods.values())
    counts = {"best settings": len(confirmations(method, "best")), "settings for time": len(runs)}
    if best is not None:
        lacks += [f"{name} trained again on {n} of {expected} seeds" for name, n in counts.items() if n < expected]
    return lacks


def _seeds(method: MethodResults) -> int:
    return max(len(confirmations(method, candidate)) for candidate in ("best", "fastest"))


def _runs(method: MethodResults, target: Target) -> tuple[Run, ...]:
    runs = []
    for record in timed_runs(method, target):
        at = reach(record, method.epochs.get(record.trial, ()), target)
        runs.append(Run(seed=record.seed, outcome=record.outcome, seconds=at.seconds, steps=at.steps))
    return tuple(runs)


def _to_target(values: Sequence[float]) -> ToTarget | None:
    if not values:
        return None
    reached = Count(count=sum(map(math.isfinite, values)), of=len(values))
    return ToTarget(reached=reached, median=statistics.median(values), low=min(values), high=max(values))


def _ratio(
    quantity: Literal["seconds", "steps"], reference: MethodResults | None, runs: Sequence[Run], target: Target
) -> Ratio | None:
    if reference is None:
        return None
    sides = [{run.seed: getattr(run, quantity) for run in side} for side in (_runs(reference, target), runs)]
    return paired_ratio(*sides)


def _winner(record: TrialRecord | None, method: MethodResults, target: Target) -> Winner | None:
    if record is None:
        return None
    return Winner(
        trial=record.trial,
        objective=record.objectives.get(method.config.objectives[0]),
        seconds=reach(record, method.epochs.get(record.trial, ()), target).seconds,
        parameters=record.parameters,
    )


def _test(method: MethodResults) -> dict[str, Spread]:
    done = completed(confirmations(method, "best"))
    found = {metric: spread([getattr(record, metric) for record in done]) for metric in TEST_METRICS}
    return {metric: value for metric, value in found.items() if value is not None}


def _differences(reference: MethodResults | None, method: MethodResults) -> tuple[Difference, ...]:
    """Candidate − baseline; a failed run has no test metric and makes no pair."""
    if reference is None:
        return ()
    found = [
        paired_difference(metric, _by_seed(reference, metric), _by_seed(method, metric), higher_is_better=higher)
        for metric, higher in TEST_METRICS.items()
    ]
    return tuple(each for each in found if each is not None)


def _by_seed(method: MethodResults, metric: str) -> Mapping[int, float | None]:
    return {record.seed: getattr(record, metric) for record in completed(confirmations(method, "best"))}


def _progress(method: MethodResults) -> list[SearchPoint]:
    """The search's best so far after each trial that has ended."""
    objective = method.config.objectives[0]
    better = min if direction(objective) == "minimize" else max
    ended = [record for record in search_trials(method) if record.outcome.finished]
    points, best, used = [], None, 0.0
    for count, record in enumerate(sorted(ended, key=lambda each: (each.ended or each.updated, each.number)), start=1):
        value = record.objectives.get(objective) if record.outcome is Outcome.COMPLETED else None
        if value is not None and math.isfinite(value):
            best = value if best is None else better(best, value)
        used += record.training_seconds
        points.append(SearchPoint(trials=count, device_seconds=used, best=best))
    return points
