"""Strong and weak scaling: efficiencies, and the serial shares of Amdahl and Gustafson."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sngd_tune.scaling.efficiency import efficiencies, serial_share
from sngd_tune.scaling.fits import NoFit

WORKERS = [1, 2, 4, 8]


def amdahl(share, n):
    return share + (1 - share) / n


def gustafson(share, n):
    return n / (share + (1 - share) * n)


LAWS = {"strong": amdahl, "weak": gustafson}


@given(share=st.floats(0, 1), seconds=st.floats(1e-3, 1e3), kind=st.sampled_from(["strong", "weak"]))
def test_a_known_serial_share_is_found(share, seconds, kind):
    found = serial_share(WORKERS, [seconds * LAWS[kind](share, n) for n in WORKERS], kind)
    assert found.share == pytest.approx(share, abs=1e-5)
    assert found.seconds == pytest.approx(seconds, rel=1e-4)
    assert 0 <= found.low <= found.share <= found.high <= 1


@pytest.mark.parametrize("kind", ["strong", "weak"])
def test_the_interval_holds_the_share_as_often_as_it_says(kind):
    rng, workers, hits = np.random.default_rng(0), np.repeat(WORKERS, 3), 0
    for _ in range(100):
        times = [LAWS[kind](0.1, n) * np.exp(0.03 * rng.standard_normal()) for n in workers]
        found = serial_share(workers.tolist(), times, kind)
        hits += found.low <= 0.1 <= found.high
    assert hits >= 88


def test_efficiency_is_one_where_the_work_is_shared_out_perfectly():
    assert [each.efficiency for each in efficiencies(WORKERS, [8, 4, 2, 1], "strong")] == pytest.approx([1] * 4)
    assert [each.efficiency for each in efficiencies(WORKERS, [8, 8, 8, 8], "weak")] == pytest.approx([1] * 4)


def test_repetitions_enter_as_their_mean_and_a_loss_shows():
    found = efficiencies([2, 2, 4, 4], [9, 4, 5, 5], "strong")
    assert [each.seconds for each in found] == pytest.approx([6, 5])
    assert found[1].speedup == pytest.approx(2 * 6 / 5)
    assert found[1].efficiency == pytest.approx(0.6)
    assert efficiencies([], [], "weak") == []


def test_amdahls_limit_is_that_of_any_number_of_workers():
    found = serial_share(WORKERS, [amdahl(0.25, n) for n in WORKERS], "strong")
    assert found.limit == pytest.approx(4, rel=1e-4)


@pytest.mark.parametrize(("workers", "seconds"), [([1, 2], [2.0, 1.0]), ([1, 2, 4], [2.0, 0.0, 1.0])])
def test_too_little_to_fit_is_said(workers, seconds):
    assert isinstance(serial_share(workers, seconds, "strong"), NoFit)
