import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sngd_tune.report.comparison.ratios import Ratio, paired_ratio
from sngd_tune.report.comparison.runs import MISSED, reach
from tests.report.comparison.cells import TARGET, curve, epoch, trial

_TIMES = st.lists(st.one_of(st.floats(0.01, 1e4), st.just(math.inf)), min_size=3, max_size=12)


def _ratio(candidate: list[float], baseline: list[float]) -> Ratio:
    found = paired_ratio(dict(enumerate(candidate)), dict(enumerate(baseline)))
    assert found is not None
    return found


def test_five_seeds_have_the_range_of_their_ratios() -> None:
    found = _ratio([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 5.0, 5.0, 5.0, 5.5])
    assert (found.n, found.verdict) == (5, "faster")
    assert found.median == pytest.approx(3 / 5)
    assert (found.low, found.high) == (pytest.approx(0.4), pytest.approx(5 / 5.5))
    assert found.coverage == pytest.approx(0.9375)


@pytest.mark.parametrize(("n", "coverage"), [(5, 0.9375), (6, 0.95), (12, 0.95)])
def test_the_level_is_that_of_the_sign_test_and_no_more_than_95(n: int, coverage: float) -> None:
    assert _ratio([1.0] * n, [2.0] * n).coverage == pytest.approx(coverage)


def test_more_seeds_leave_extremes_out() -> None:
    found = _ratio([0.01, *[0.8, 0.9, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6], 90.0], [1.0] * 10)
    assert found.low is not None
    assert found.high is not None
    assert 0.8 <= found.low < 0.9  # between the second and the third of ten (Hettmansperger and Sheather)
    assert 1.5 < found.high <= 1.6
    assert found.verdict == "no difference"


def test_an_even_number_has_the_geometric_middle() -> None:
    assert _ratio([1.0, 2.0, 8.0, 16.0], [1.0] * 4).median == pytest.approx(4.0)


def test_misses_are_larger_than_everything() -> None:
    lost = _ratio([MISSED, MISSED, MISSED, MISSED, 9.0], [1.0] * 5)
    assert (lost.median, lost.low, lost.high, lost.verdict) == (MISSED, pytest.approx(9.0), MISSED, "slower")
    won = _ratio([1.0] * 5, [MISSED] * 5)
    assert (won.median, won.low, won.high, won.verdict) == (0.0, 0.0, 0.0, "faster")


def test_two_misses_are_a_tie_and_nothing_else_is_one() -> None:
    assert _ratio([MISSED] * 5, [MISSED] * 5).verdict == "both miss"
    assert _ratio([MISSED], [MISSED]).verdict == "both miss"
    tie = _ratio([MISSED, MISSED, MISSED, 1.0, MISSED], [MISSED, MISSED, MISSED, MISSED, 1.0])
    assert (tie.median, tie.verdict) == (1.0, "no difference")
    opposed = _ratio([1.0, 1.0, MISSED, MISSED, 1.0], [MISSED, MISSED, 1.0, 1.0, 1.0])
    assert (opposed.median, opposed.low, opposed.high) == (1.0, 0.0, MISSED)


def test_an_end_at_one_is_no_difference() -> None:
    assert _ratio([1.0, 0.5, 0.5, 0.5, 0.5], [1.0] * 5).verdict == "no difference"
    assert _ratio([1.0] * 5, [1.0] * 5).verdict == "no difference"


def test_few_runs_have_a_median_and_no_interval() -> None:
    found = _ratio([1.0] * 4, [2.0] * 4)
    assert (found.verdict, found.low, found.high, found.coverage) == ("too few runs", None, None, None)
    assert found.median == pytest.approx(0.5)


def test_only_common_seeds_are_pairs() -> None:
    shared = dict.fromkeys(range(5), 1.0)
    found = paired_ratio({**shared, 8: 9.0}, {**dict.fromkeys(shared, 2.0), 9: 0.1})
    assert found is not None
    assert (found.n, found.verdict) == (5, "faster")
    assert paired_ratio({1: 1.0}, {2: 1.0}) is None
    assert paired_ratio({}, {}) is None


@given(_TIMES, st.randoms(use_true_random=False))
def test_exchanged_sides_have_the_inverse_ratio(times: list[float], source: random.Random) -> None:
    others = [source.choice([source.uniform(0.1, 10), math.inf]) for _ in times]
    one, other = _ratio(times, others), _ratio(others, times)
    opposite = {"faster": "slower", "slower": "faster"}
    assert other.verdict == opposite.get(one.verdict, one.verdict)
    assert _inverse(one.median) == pytest.approx(other.median)
    if one.low is not None and other.high is not None:
        assert _inverse(one.low) == pytest.approx(other.high)


@given(_TIMES, st.floats(0.01, 100))
def test_a_constant_factor_is_found_exactly_and_order_is_kept(times: list[float], factor: float) -> None:
    found = _ratio([factor * time for time in times], times)
    if found.low is not None and found.high is not None and all(map(math.isfinite, times)):
        assert found.median == pytest.approx(factor)
        assert (found.low, found.high) == (pytest.approx(factor), pytest.approx(factor))
    if found.low is not None and found.high is not None:
        assert found.low <= found.median * (1 + 1e-12)
        assert found.median <= found.high * (1 + 1e-12)


def _inverse(ratio: float) -> float:
    return 0.0 if math.isinf(ratio) else math.inf if ratio == 0 else 1 / ratio


@pytest.mark.parametrize("misses", [0.0, 0.2])
def test_identical_methods_are_seldom_called_different(misses: float) -> None:
    """6 % with five pairs, the sign test's; the module has the table."""
    source, wrong, comparisons = random.Random(2), 0, 1500

    def time(shared: float) -> float:
        return math.inf if source.random() < misses else math.exp(shared + source.gauss(0, 0.3))

    for _ in range(comparisons):
        shared = [source.gauss(0, 0.5) for _ in range(5)]
        wrong += _ratio([time(s) for s in shared], [time(s) for s in shared]).verdict in ("faster", "slower")
    assert 0.03 < wrong / comparisons < 0.08


def test_a_training_reaches_its_target_at_the_first_evaluation_that_is_there() -> None:
    at = reach(trial(0, 0.1), curve(1.5), TARGET)
    assert (at.seconds, at.steps) == (1.5, 60.0)
    back = [epoch(1, 0.9), epoch(2, 0.5), epoch(3, 0.9)]
    assert reach(trial(0, 0.9), back, TARGET).seconds == 2.0


def test_a_training_that_fails_or_diverges_misses() -> None:
    from sngd_tune.records.outcome import Outcome

    assert reach(trial(0, 0.1, outcome=Outcome.ERROR), curve(1.5), TARGET).seconds == MISSED
    assert reach(trial(0, 0.1), [epoch(1, math.nan), epoch(2, -math.inf)], TARGET).steps == MISSED
    assert reach(trial(0, 0.1), [], TARGET).seconds == MISSED


_RUNS = st.sampled_from([1.0, 2.0, 3.0, math.inf])
#: Pairs of two or three kinds: what goes wrong goes wrong where misses, ties and hits stand in blocks.
_PAIRS = st.lists(st.tuples(_RUNS, _RUNS), min_size=2, max_size=3).flatmap(
    lambda kinds: st.lists(st.sampled_from(kinds), min_size=5, max_size=10)
)
_RANKS = {"slower": 0, "no difference": 1, "both miss": 1, "faster": 2}


@settings(max_examples=200)
@given(_PAIRS, st.data())
def test_a_better_training_never_gives_a_worse_ratio(pairs: list[tuple[float, float]], data: st.DataObject) -> None:
    """Whichever seed it is, with misses on either side."""
    before = _ratio(*map(list, zip(*pairs, strict=True)))
    seed = data.draw(st.integers(0, len(pairs) - 1))
    own, other = pairs[seed]
    better = own / 2 if math.isfinite(own) else data.draw(st.integers(1, 99).map(float))
    after = _ratio(*map(list, zip(*[*pairs[:seed], (better, other), *pairs[seed + 1 :]], strict=True)))
    assert _RANKS[after.verdict] >= _RANKS[before.verdict]
    if before.low is not None and before.high is not None:
        assert after.low is not None
        assert after.high is not None
        assert after.median <= before.median * (1 + 1e-9)
        assert after.low <= before.low * (1 + 1e-9)
        assert after.high <= before.high * (1 + 1e-9)


def test_reaching_a_target_that_was_missed_is_no_step_back() -> None:
    """With six pairs and a miss beside the end, the interval on a logarithmic scale once said "slower" afterwards."""
    baseline = [1.0] * 6
    missed = _ratio([0.95, *[MISSED] * 5], baseline)
    reached = _ratio([0.95, *[20.0] * 5], baseline)
    assert missed.low is not None
    assert reached.low is not None
    assert reached.low <= missed.low


@pytest.mark.parametrize("pairs", [6, 8])
def test_the_interval_covers_a_median_beside_misses(pairs: int) -> None:
    """The candidate misses with 20 %, so the median is the 62.5 % point of the finite ratios; the module has more."""
    source, comparisons = random.Random(3), 1500
    median = math.exp(0.3 * math.sqrt(2) * statistics.NormalDist().inv_cdf(0.5 / 0.8))
    covered = 0
    for _ in range(comparisons):
        times = [math.inf if source.random() < 0.2 else math.exp(source.gauss(0, 0.3)) for _ in range(pairs)]
        found = _ratio(times, [math.exp(source.gauss(0, 0.3)) for _ in range(pairs)])
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= median <= found.high
    assert 0.93 < covered / comparisons < 0.97
