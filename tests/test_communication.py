"""What a step waits for other ranks is a part of its own: the delays of a slow network are found in it, whole."""

from typing import Any

import pytest

from tests.communication import CASES, DELAY
from tests.examples.moons import Moons
from tests.rank_processes import two_ranks
from tests.training_ranks import config, run

PARTS = ("forward_backward", "statistics", "refresh", "update", "communication")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return two_ranks("tests.communication", tmp_path_factory.mktemp("ranks"), "-W", "error")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_delay_of_an_exchange_within_a_step_is_communication(ranks: list[dict[str, Any]], case: str) -> None:
    for rank in ranks:
        measured = rank["reduced"][case]
        # A model of one bucket: its gradients; with local Fisher layers, whether they are finite as well.
        exchanges = measured["steps"] * (1 if case == "sgd" else 2)
        assert measured["communication_seconds"] >= exchanges * DELAY
        assert sum(measured[f"{part}_seconds"] for part in PARTS) == pytest.approx(measured["epoch_seconds"])


@pytest.mark.slow
def test_the_broadcast_of_roots_is_communication(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["roots"]["communication_seconds"] >= rank["roots"]["refreshes"] * DELAY > 0


@pytest.mark.slow
def test_the_wait_for_a_slower_rank_is_communication_of_the_faster_one(ranks: list[dict[str, Any]]) -> None:
    fast, slow = (rank["slow second"] for rank in ranks)
    assert fast["communication_seconds"] >= 0.9 * fast["steps"] * DELAY
    assert slow["forward_backward_seconds"] >= slow["steps"] * DELAY


@pytest.mark.slow
def test_measuring_leaves_the_averages_bit_for_bit(ranks: list[dict[str, Any]]) -> None:
    assert all(rank["same gradients"] for rank in ranks)


def test_one_process_waits_for_nobody() -> None:
    epochs, _ = run(config(epochs=1, **CASES["fused"]), Moons())
    assert epochs[0].communication_seconds == 0.0
