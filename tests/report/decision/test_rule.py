import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sngd_tune.report.comparison.stability import Count
from sngd_tune.report.comparison.summary import WorkloadResults
from sngd_tune.report.decision.rule import Case, Standing, Verdict, rule, wanted
from tests.report.comparison.cells import FAST, SLOW, empty, failing, method, workload
from tests.report.decision.comparisons import decision, lost, undecided, won

WORST_FIRST = (Verdict.REJECT, Verdict.EXTEND, Verdict.ADOPT)
TIMES = ("slower", "open", "faster")


def case(time: str = "faster", reached: int = 5, worse: bool = False, **changes: object) -> Case:
    values = {"workload": "w", "baseline_reached": Count(count=5, of=5), "complete": True, **changes}
    return Case(time=time, worse=worse, reached=Count(count=reached, of=5), **values)  # type: ignore[arg-type]


def rank(verdict: Verdict) -> int:
    return WORST_FIRST.index(verdict)


@pytest.mark.parametrize(
    ("cases", "verdict"),
    [
        ([case(), case()], Verdict.ADOPT),
        ([case(), case("open")], Verdict.ADOPT),
        ([case()], Verdict.EXTEND),  # one workload may be a matter of that workload
        ([case(), case("open"), case("open")], Verdict.EXTEND),
        ([case(), case("slower")], Verdict.EXTEND),
        ([case(), case(worse=True)], Verdict.EXTEND),
        ([case(), case("open", reached=4)], Verdict.EXTEND),
        ([case(), case("slower"), case("slower")], Verdict.REJECT),
        ([case("open"), case(worse=True)], Verdict.REJECT),
        ([case("slower"), case("slower", complete=False)], Verdict.EXTEND),
        ([], Verdict.EXTEND),
    ],
)
def test_the_rule_is_what_the_report_prints(cases: list[Case], verdict: Verdict) -> None:
    assert rule(cases).verdict is verdict


@pytest.mark.parametrize(("workloads", "leads"), [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_half_of_the_workloads_is_rounded_up(workloads: int, leads: int) -> None:
    assert wanted(workloads) == leads


CASES = st.builds(
    case, st.sampled_from(TIMES), st.integers(0, 5), st.booleans(), complete=st.sampled_from((True, True, True, False))
)


@given(st.lists(CASES, min_size=1, max_size=6), st.data())
def test_better_results_never_give_a_worse_verdict(cases: list[Case], data: st.DataObject) -> None:
    better = [
        dataclasses.replace(
            each,
            time=data.draw(st.sampled_from(TIMES[TIMES.index(each.time) :])),
            worse=each.worse and data.draw(st.booleans()),
            reached=Count(count=data.draw(st.integers(each.reached.count, 5)), of=5),
        )
        for each in cases
    ]
    assert rank(rule(better).verdict) >= rank(rule(cases).verdict)


SECONDS = st.sampled_from((0.5, 1.0, 1.5, 2.0, 3.0, math.inf))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(SECONDS, SECONDS, SECONDS), min_size=5, max_size=7), st.data())
def test_sooner_on_any_seed_never_gives_a_worse_verdict(
    seeds: list[tuple[float, float, float]], data: st.DataObject
) -> None:
    own, adamw, sgd = zip(*seeds, strict=True)
    sooner = [seconds * data.draw(st.sampled_from((1.0, 0.7, 0.3))) for seconds in own]
    sooner = [data.draw(st.sampled_from((each, 2.0))) if math.isinf(each) else each for each in sooner]

    def compared(times: tuple[float, ...] | list[float]) -> int:
        sides = {"sngd": times, "adamw": adamw, "sgd": sgd}
        results: list[WorkloadResults] = [
            workload(name, **{label: method(dict(enumerate(side))) for label, side in sides.items()})
            for name in ("a", "b")
        ]
        return rank(decision(*results).ruling.verdict)

    assert compared(sooner) >= compared(own)


def test_comparisons_get_the_verdict_that_they_deserve() -> None:
    verdicts = [decision(*results).ruling.verdict for results in (won(), lost(), undecided())]
    assert verdicts == [Verdict.ADOPT, Verdict.REJECT, Verdict.EXTEND]


def test_any_baseline_that_is_faster_or_better_puts_a_workload_behind() -> None:
    faster = decision(workload(sngd=method(SLOW), adamw=method(SLOW), muon=method(FAST))).evidence[0]
    assert (faster.standing, faster.slower_than) == (Standing.BEHIND, ("muon",))
    accurate = method((3.0, 3.1, 3.2, 3.3, 3.4), accuracy=(0.95, 0.96, 0.97, 0.96, 0.95))
    better = decision(workload(sngd=method(FAST), adamw=method(SLOW), sgd=accurate)).evidence[0]
    assert (better.standing, better.worse_than) == (Standing.BEHIND, ("sgd",))


def test_a_candidate_without_a_winner_is_behind_one_that_reached_the_target() -> None:
    assert decision(workload(sngd=failing(), adamw=method(FAST))).evidence[0].standing is Standing.BEHIND


def test_what_has_not_begun_decides_nothing() -> None:
    found = decision(*lost(), workload("d", sngd=empty(), adamw=empty()))
    assert found.ruling.verdict is Verdict.EXTEND
    assert found.ruling.behind == ("a", "b")
