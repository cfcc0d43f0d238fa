"""Two ranks with half of each batch are one process with the joint batch; what could part them is decided together."""

import pytest
import torch
from torch import nn

from sngd_tune import SNGD, reconstruct
from sngd_tune.core.distributed import unwrapped
from sngd_tune.errors import ReconstructionError
from tests.core.problems import network
from tests.core.ranks import CASES, FORMS, damped, joint
from tests.rank_processes import two_ranks

TOLERANCE = 1e-10


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return two_ranks("tests.core.ranks", tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES)
def test_two_ranks_are_one_process_with_the_joint_batch(ranks, case, form):
    expected = list(joint(case, form).parameters())
    if form != "explicit":
        assert min(float((p - q).detach().norm()) for p, q in zip(expected, network().parameters(), strict=True)) > 1e-4
    for rank in ranks:
        for found, wanted in zip(rank["trained"][case, form], expected, strict=True):
            assert float((found - wanted.detach()).norm() / wanted.detach().norm()) < TOLERANCE
    assert all(map(torch.equal, ranks[0]["trained"][case, form], ranks[1]["trained"][case, form]))


@pytest.mark.parametrize("case", CASES)
def test_all_ranks_hold_the_same_state_so_that_one_checkpoint_is_complete(ranks, case):
    states = [rank["trained"][case, "state"] for rank in ranks]
    assert all(map(torch.equal, *states))
    assert any(float(tensor.abs().max()) > 0 for tensor in states[0])


def test_gradients_accumulated_without_synchronization_are_those_of_the_joint_batch(ranks):
    for case in ("input-eigh", "unit"):
        for rank in ranks:
            for found, wanted in zip(rank["accumulated"][case], joint(case, "fused").parameters(), strict=True):
                assert float((found - wanted.detach()).norm() / wanted.detach().norm()) < TOLERANCE


def test_the_damping_goes_by_the_loss_of_the_joint_batch(ranks):
    parameters, factors = damped()
    assert set(factors) != {1.0}
    for rank in ranks:
        assert rank["damped"][1] == pytest.approx(factors, rel=TOLERANCE)
        for found, wanted in zip(rank["damped"][0], parameters, strict=True):
            assert float((found - wanted).norm() / wanted.norm()) < TOLERANCE


@pytest.mark.parametrize("case", ["input-nystrom-2", "drift", "kron"])
def test_all_ranks_resume_bit_for_bit_from_the_checkpoint_of_one(ranks, case):
    for rank in ranks:
        assert all(map(torch.equal, rank["resumed"][case], rank["trained"][case, "fused"]))


def test_a_step_that_one_rank_skips_is_skipped_by_all(ranks):
    assert [rank["skipped"][0] for rank in ranks] == [1, 1]
    assert all(map(torch.equal, ranks[0]["skipped"][1], ranks[1]["skipped"][1]))
    assert all(bool(p.isfinite().all()) for p in ranks[0]["skipped"][1])


def test_a_root_that_fails_on_one_rank_fails_on_all(ranks):
    counts, messages, parameters = ranks[0]["failed"]
    assert counts == ranks[1]["failed"][0]
    assert sum(counts) == 1
    assert any("on rank 1, which computes it" in message for message in messages)
    assert any("on purpose" in message for message in ranks[1]["failed"][1])
    assert all(map(torch.equal, parameters, ranks[1]["failed"][2]))


def test_roots_are_shared_out(ranks):
    (first, all_of_first), (second, all_of_second) = (rank["computed"] for rank in ranks)
    assert all_of_first == all_of_second == first + second
    assert first > 0
    assert second > 0


def test_a_group_of_one_keeps_a_process_alone(ranks):
    expected = list(joint("input-eigh", "fused").parameters())
    assert all(map(torch.equal, ranks[0]["alone"], [p.detach() for p in expected]))


def test_wrappers_are_seen_through_and_sharded_parameters_refused():
    model = network()
    assert unwrapped(nn.DataParallel(model)) is model
    assert list(SNGD(torch.compile(model, backend="eager")).layers) == ["0", "2", "4"]
    with pytest.raises(ReconstructionError, match="DataParallel: must not be wrapped yet"):
        reconstruct(nn.DataParallel(model))
    model[0].weight.placements = ("Shard(0)",)
    with pytest.raises(ReconstructionError, match=r"0\.weight: its parameter is sharded"):
        SNGD(model, base="sgd")
