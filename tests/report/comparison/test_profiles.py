import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sngd_tune.report.comparison.profiles import MethodProfile, performance_profile

MISSED = math.inf


def _by_name(times: dict[str, dict[str, float]]) -> dict[str, MethodProfile]:
    return {each.method: each for each in performance_profile(times)}


def test_known_factors_and_scores() -> None:
    found = _by_name({"a": {"x": 10.0, "y": 20.0}, "b": {"x": 30.0, "y": 10.0}})
    assert found["x"].factors == {"a": 1.0, "b": 3.0}
    assert found["x"].score == pytest.approx((1 + 1 / 3) / 2)  # from 1 to 4 on a, from 3 to 4 on b
    assert found["y"].score == pytest.approx((2 / 3 + 1) / 2)
    assert [found["x"].share(at) for at in (1, 2.99, 3, 4)] == [0.5, 0.5, 1.0, 1.0]


def test_the_score_is_the_area_under_the_share() -> None:
    found = _by_name({"a": {"x": 1.0, "y": 1.7}, "b": {"x": 2.9, "y": 1.0}, "c": {"x": 9.0, "y": 1.0}})["x"]
    steps = 30_000
    area = sum(found.share(1 + 3 * (i + 0.5) / steps) for i in range(steps)) / steps
    assert found.score == pytest.approx(area, abs=1e-4)


def test_ties_are_both_best() -> None:
    found = _by_name({"a": {"x": 5.0, "y": 5.0}})
    assert found["x"].score == found["y"].score == 1.0


def test_a_miss_never_counts_and_all_missed_is_nobody() -> None:
    found = _by_name({"a": {"x": 1.0, "y": MISSED}, "b": {"x": MISSED, "y": MISSED}})
    assert (found["x"].score, found["y"].score) == (0.5, 0.0)
    assert found["x"].share(1e9) == 0.5
    assert found["y"].share(MISSED) == 0.0


def test_beyond_four_times_is_nothing() -> None:
    found = _by_name({"a": {"x": 1.0, "y": 4.0, "z": 5.0}})
    assert (found["y"].score, found["z"].score) == (0.0, 0.0)
    assert (found["y"].share(4), found["z"].share(4)) == (1.0, 0.0)


def test_a_workload_that_a_method_does_not_run_is_not_solved() -> None:
    assert _by_name({"a": {"x": 1.0}, "b": {"x": 1.0, "y": 1.0}})["y"].score == 0.5
    assert performance_profile({}) == ()


@given(
    st.dictionaries(
        st.sampled_from("abcd"),
        st.fixed_dictionaries({name: st.one_of(st.floats(0.1, 100), st.just(MISSED)) for name in "xyz"}),
        min_size=1,
    )
)
def test_scores_are_shares_and_somebody_is_best_where_anybody_reached(times: dict[str, dict[str, float]]) -> None:
    found = performance_profile(times)
    assert all(0 <= each.score <= 1 for each in found)
    for workload, of in times.items():
        best = min(each.factors[workload] for each in found)
        assert best == (1.0 if any(map(math.isfinite, of.values())) else MISSED)
