"""What is timed and what is told from smaller sizes, on clocks that the tests set."""

import gc
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sngd_tune.selection.cost import timing
from sngd_tune.selection.cost.timing import OtherWork, climb, seconds_of, seconds_of_rare, threads_set

CPU = torch.device("cpu")


class Law:
    """Seconds ``full · size^exponent``, and the halvings that were asked for."""

    def __init__(self, full: float, exponent: float):
        self.full, self.exponent = full, exponent
        self.asked: list[int] = []

    def __call__(self, halvings: int) -> float:
        self.asked.append(halvings)
        return self.full * 2 ** (-self.exponent * halvings)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""

    class Clock:
        time = 0.0

        def takes(self, *seconds: float):
            """An operation that takes so long, one after the other and then as the last."""
            left = list(seconds)

            def operation() -> None:
                self.time += left.pop(0) if len(left) > 1 else left[0]

            return operation

    made = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: made.time)
    return made


def test_what_is_short_is_measured_at_full_size():
    law = Law(0.01, 3)
    assert climb(law, 3, 3, longest=0.1) == timing.Timing(0.01)
    assert law.asked == [3, 0]


def test_what_its_multiplications_promise_too_much_of_is_climbed_to():
    law = Law(0.05, 2)  # grows by 4, and might by 8
    assert climb(law, 4, 3, longest=0.1) == timing.Timing(0.05)
    assert law.asked[-1] == 0
    assert law.asked == sorted(law.asked, reverse=True)


@given(
    full=st.floats(1e-6, 1e6),
    exponent=st.floats(0, 6),
    slack=st.floats(0, 2),
    halvings=st.integers(0, 12),
    floor=st.integers(0, 12),
)
def test_no_size_is_tried_that_is_told_to_be_long_or_has_no_room(full, exponent, slack, halvings, floor):
    law = Law(full, exponent)
    begin = max(halvings, floor)
    found = climb(law, begin, exponent + slack, floor, longest=0.1)
    assert all(law.full * 2 ** (-exponent * n) <= 0.1 * (1 + 1e-9) for n in law.asked if n < begin)
    assert min(law.asked) >= floor
    assert all(law.asked.count(n) <= (2 if law(n) * 2 ** (exponent + slack) > 0.1 else 1) for n in set(law.asked))
    assert found.measured == (0 in law.asked)
    if found.measured:
        assert found.seconds == full
    else:  # halfway between what was seen and what the multiplications make of it
        assert found.seconds == pytest.approx(full * 2 ** (slack / 2 * min(law.asked)), rel=1e-6)


def test_one_interruption_does_not_end_a_climb():
    law, held_up = Law(0.01, 3), [0.2]
    assert climb(
        lambda halvings: law(halvings) + (held_up.pop() if held_up else 0), 3, 3, longest=0.1
    ) == timing.Timing(0.01)
    assert law.asked == [3, 3, 0]


def test_a_law_that_is_known_is_extrapolated_exactly():
    law = Law(50.0, 3)
    found = climb(law, 4, 3, longest=0.1)
    assert not found.measured
    assert found.seconds == pytest.approx(50)
    assert max(50 / 8**n for n in law.asked) <= 0.1


def test_seconds_are_the_median_without_the_first_of_short_operations(clock):
    assert seconds_of(clock.takes(0.005, 0.001, 0.001, 0.003, 0.001), CPU) == pytest.approx(0.001)
    assert clock.time < 0.02


def test_long_operations_are_not_called_many_times(clock):
    assert seconds_of(clock.takes(1.0, 3.0, 2.0), CPU) == pytest.approx(2)
    assert clock.time == pytest.approx(6)


def test_what_is_prepared_does_not_count(clock):
    work = clock.takes(10.0)
    assert seconds_of_rare(clock.takes(0.001, 0.002, 0.004), CPU, work) == pytest.approx(0.002)
    assert clock.time == pytest.approx(30.007)
    assert seconds_of_rare(clock.takes(0.5), CPU, work) == pytest.approx(0.5)
    assert clock.time == pytest.approx(40.507)  # once is enough


def test_the_collector_is_off_meanwhile_and_on_again():
    seen = []
    seconds_of(lambda: seen.append(gc.isenabled()), CPU)
    assert not any(seen)
    assert gc.isenabled()


def test_threads_are_given_back_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="stop"), threads_set(before + 1):
        assert torch.get_num_threads() == before + 1
        raise ValueError("stop")
    assert torch.get_num_threads() == before


def test_other_work_leaves_the_random_numbers():
    before = torch.get_rng_state()
    OtherWork()()
    assert torch.equal(torch.get_rng_state(), before)
    assert math.isfinite(float(OtherWork()._memory.sum()))
