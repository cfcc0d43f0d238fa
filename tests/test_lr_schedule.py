import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sngd_tune.lr_schedule import SCHEDULES, WARMUP, LrSchedule
from sngd_tune.records.parameters import PARAMETERS


def optimizer() -> torch.optim.Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr} for lr in (0.5, 0.02)]
    return torch.optim.SGD(groups)


def test_the_parameter_names_each_schedule() -> None:
    assert PARAMETERS["lr_schedule"].choices == tuple(SCHEDULES)


@pytest.mark.parametrize(
    ("name", "done", "factor"),
    [
        ("constant", 0.7, 1.0),
        ("cosine", 0.0, 1.0),
        ("cosine", 0.5, 0.5),
        ("cosine", 1.0, 0.0),
        ("cosine", 1.3, 0.0),
        ("warmup_cosine", 0.0, 0.01),
        ("warmup_cosine", WARMUP / 2, 0.505),
        ("warmup_cosine", WARMUP, 1.0),
        ("warmup_cosine", 1.0, 0.0),
    ],
)
def test_every_group_gets_its_own_rate_times_the_factor(name: str, done: float, factor: float) -> None:
    groups = optimizer()
    LrSchedule(groups, name).at(done)
    assert [group["lr"] for group in groups.param_groups] == pytest.approx([0.5 * factor, 0.02 * factor])


def test_cosine_is_torchs() -> None:
    ours, torchs = optimizer(), optimizer()
    schedule, reference = LrSchedule(ours, "cosine"), torch.optim.lr_scheduler.CosineAnnealingLR(torchs, T_max=20)
    for step in range(1, 21):
        torchs.step()
        reference.step()
        schedule.at(step / 20)
        assert ours.param_groups[0]["lr"] == pytest.approx(torchs.param_groups[0]["lr"], abs=1e-12)


@given(st.sampled_from(sorted(SCHEDULES)), st.floats(0, 2))
def test_factors_lie_between_0_and_1(name: str, done: float) -> None:
    assert 0 <= SCHEDULES[name](done) <= 1
