"""A training on two ranks is that of one process on the joint batches; what would part them is decided together."""

from typing import Any

import pytest
import torch

from tests.rank_processes import two_ranks
from tests.training_ranks import CASES, SENSITIVE, Digits, config, parameters, run

pytestmark = pytest.mark.slow

#: The running sum of losses is in float32, everything else in float64, of which small dampings take some digits.
TOLERANCE = {"training_loss": 1e-6}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return two_ranks("tests.training_ranks", tmp_path_factory.mktemp("ranks"), "-W", "error")


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_train_as_one_process_does_on_the_joint_batches(ranks: list[dict[str, Any]], case: str) -> None:
    epochs, training = run(config(**CASES[case]), Digits())
    measured, found = ranks[0]["trained"][case]
    for metrics, expected in zip(measured, (metrics.scalars() for metrics in epochs), strict=True):
        assert metrics.keys() == expected.keys()
        for name, value in expected.items():
            if not any(word in name for word in ("seconds", "joules", "memory", "per_second")):
                assert metrics[name] == pytest.approx(value, rel=TOLERANCE.get(name, 1e-7)), name
    for one, other in zip(found, parameters(training), strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-7


@pytest.mark.parametrize("case", SENSITIVE)
def test_where_rounding_decides_the_training_is_as_good(ranks: list[dict[str, Any]], case: str) -> None:
    epochs, _ = run(config(**SENSITIVE[case]), Digits())
    assert ranks[0]["trained"][case][0][-1]["validation_loss"] == pytest.approx(epochs[-1].validation_loss, rel=0.2)


@pytest.mark.parametrize("case", [*CASES, *SENSITIVE])
def test_ranks_hold_the_same_parameters_bit_for_bit(ranks: list[dict[str, Any]], case: str) -> None:
    assert all(map(torch.equal, *(rank["trained"][case][1] for rank in ranks)))


def test_both_resume_bit_for_bit_from_the_checkpoint_of_the_first(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert all(map(torch.equal, *rank["resumed"]))


def test_dropout_draws_other_numbers_on_each_rank(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["drawn"] != ranks[1]["drawn"]


def test_a_loss_that_is_not_finite_on_one_rank_ends_the_training_on_both(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["diverged"] == ranks[1]["diverged"]
    finite, _ = ranks[0]["diverged"]
    assert not finite[-1]


def test_all_ranks_end_by_the_clock_of_the_first(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["timed"] == ranks[1]["timed"]
    assert ranks[0]["timed"][-1][1] >= 0.3


def test_the_statistics_of_batch_normalization_are_the_first_ranks(ranks: list[dict[str, Any]]) -> None:
    assert all(map(torch.equal, ranks[0]["buffers"], ranks[1]["buffers"]))


def test_energy_is_the_sum_over_the_ranks_and_never_of_two_sources(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["energy"] == [{"joules": 6.0, "source": "nvml"}, None]
