"""What a comparison found, in plain sentences. What the candidate lost is said first."""

import math
from collections.abc import Sequence

from sngd_tune.report.canvas import words
from sngd_tune.report.comparison.profiles import MethodProfile
from sngd_tune.report.comparison.ratios import Ratio
from sngd_tune.report.comparison.values import MethodSummary, Result, WorkloadSummary
from sngd_tune.report.statistics import Difference

__all__ = ["factor", "interval", "main_difference", "overall_sentence", "workload_sentence"]


def factor(value: float) -> str:
    """A ratio: ``"0.53"``; ``"∞"`` where only the baseline reached the target.

    >>> factor(0.5321), factor(12.34), factor(math.inf)
    ('0.53', '12.3', '∞')
    """
    if math.isinf(value):
        return "∞"
    return f"{value:.2f}" if value < 10 else f"{value:.3g}"


def interval(ratio: Ratio) -> str:
    """``"95 % interval 0.44 to 0.60, 5 seeds"``, or the seeds alone."""
    seeds = f"{ratio.n} seed{'s' if ratio.n != 1 else ''}"
    if ratio.low is None or ratio.high is None or ratio.coverage is None:
        return seeds
    return f"{ratio.coverage:.0%} interval {factor(ratio.low)} to {factor(ratio.high)}, {seeds}".replace("%", " %")


def main_difference(method: MethodSummary) -> Difference | None:
    """The difference that a sentence names: of the test accuracy where there is one, else of the test loss."""
    return next(iter(method.differences), None)


def workload_sentence(
    workload: str, candidate: MethodSummary | None, others: Sequence[MethodSummary], best: str | None, result: Result
) -> str:
    """One sentence on one workload.

    Args:
        workload: its label.
        candidate: None where it does not run here.
        others: the other methods.
        best: the one of them with the lowest median time to the target; None where none reached it.
        result: as `WorkloadSummary.result`.
    """
    if candidate is None:
        return f"{workload}: the candidate does not run here."
    name = candidate.method
    main = {"lost": _lost, "won": _won, "neither": _neither}[result](candidate, others, best)
    worse, better = _test_clauses(others, "worse"), _test_clauses(others, "better")
    parts = [main, *worse, *better] if result == "lost" else [*worse, main, *better]
    return f"{workload}: {name} {'; '.join(parts)}."


def _lost(candidate: MethodSummary, others: Sequence[MethodSummary], best: str | None) -> str:
    slower = [each for each in others if each.seconds_ratio and each.seconds_ratio.verdict == "slower"]
    if not slower:
        return f"lost, as none of its trials could be trained again, while {best} reached the target"
    return "lost: slower to the target than " + " and ".join(_against(each) for each in slower)


def _won(candidate: MethodSummary, others: Sequence[MethodSummary], best: str | None) -> str:
    compared = [each for each in others if each.seconds_ratio]
    if len(compared) == 1:
        return f"won: faster to the target than {_against(compared[0])}"
    named = [each for each in compared if each.method == best]
    behind = f"; than {_against(named[0])}, the best of them" if named else ""
    return f"won: faster to the target than every other method that has a winner{behind}"


def _neither(candidate: MethodSummary, others: Sequence[MethodSummary], best: str | None) -> str:
    if not others:
        return "has no other method to be compared with"
    if candidate.status == "missing":
        return "has not begun"
    if not candidate.runs:
        return "has no re-trained winner yet" if candidate.status == "incomplete" else "has no winner"
    if best is None and not _reached(candidate):
        some = [each.method for each in others if _reached(each)]
        rest = f"{' and '.join(some)} did on a minority of the seeds" if some else "no other method did"
        return f"did not reach the target, and {rest}"
    pending = [each.method for each in others if each.status != "complete"]
    if pending:
        return f"has neither won nor lost so far: {', '.join(pending)} not complete"
    named = [each for each in others if each.method == best and each.seconds_ratio]
    named = named or [each for each in others if each.seconds_ratio and each.seconds_ratio.verdict != "faster"]
    if not named:
        return "has neither won nor lost: no other method has a winner"
    verdict = named[0].seconds_ratio.verdict if named[0].seconds_ratio else ""
    said = {"no difference": "no difference is shown in time to the target from", "faster": "faster than"}
    return f"has neither won nor lost: {said.get(verdict, f'{verdict}, against')} {_against(named[0])}"


def _reached(method: MethodSummary) -> bool:
    return method.seconds is not None and method.seconds.reached.count > 0


def _against(method: MethodSummary) -> str:
    ratio = method.seconds_ratio
    return f"{method.method} ({factor(ratio.median)} times its seconds, {interval(ratio)})" if ratio else method.method


def _test_clauses(others: Sequence[MethodSummary], verdict: str) -> list[str]:
    found = [(each, main_difference(each)) for each in others]
    named = [f"{each.method} ({_difference(d)})" for each, d in found if d is not None and d.verdict == verdict]
    metric = next((words(d.metric) for _, d in found if d is not None and d.verdict == verdict), "")
    return [f"is {verdict} in {metric} than {' and '.join(named)}"] if named else []


def _difference(difference: Difference) -> str:
    return f"{difference.mean:+.3g}, 95 % interval {difference.low:+.3g} to {difference.high:+.3g}"


def overall_sentence(
    candidate: str, workloads: Sequence[WorkloadSummary], profile: Sequence[MethodProfile]
) -> tuple[Result, str]:
    """Result and sentence of the whole comparison."""
    by_result: dict[Result, list[str]] = {"lost": [], "won": [], "neither": []}
    for each in workloads:
        by_result[each.result].append(each.workload)
    worse = [each.workload for each in workloads if _any_worse(each)]
    lost, won = len(by_result["lost"]), len(by_result["won"])
    parts = [
        *_share("lost on", by_result["lost"], len(workloads)),
        *_share("is worse in the test metric than another method on", worse, len(workloads)),
        *_share("won on", by_result["won"], len(workloads)),
        *_share("neither won nor lost on", by_result["neither"], len(workloads)),
        *_score(candidate, profile),
    ]
    result: Result = "lost" if lost > won else "won" if won > lost else "neither"
    return result, f"{candidate} {'; '.join(parts)}." if parts else f"{candidate} was not compared on any workload."


def _any_worse(workload: WorkloadSummary) -> bool:
    found = [main_difference(each) for each in workload.methods]
    return any(each is not None and each.verdict == "worse" for each in found)


def _share(what: str, labels: Sequence[str], of: int) -> list[str]:
    return [f"{what} {len(labels)} of {of} workload{'s' if of != 1 else ''} ({', '.join(labels)})"] if labels else []


def _score(candidate: str, profile: Sequence[MethodProfile]) -> list[str]:
    own = next((each for each in profile if each.method == candidate), None)
    others = [each for each in profile if each.method != candidate]
    if own is None or not others:
        return []
    best = max(others, key=lambda each: each.score)
    against = f"the best other's ({best.method}) {best.score:.2f}"
    return [f"its score of the performance profile is {own.score:.2f}, {against}"]
