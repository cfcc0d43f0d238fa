import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sngd_tune.batches import Batches
from sngd_tune.errors import ConfigurationError

SIZES = st.integers(1, 40)


@given(SIZES, SIZES, st.integers(0, 5), st.integers(1, 30))
def test_each_pass_has_every_example_once(examples: int, batch_size: int, seed: int, passes: int) -> None:
    batches = Batches(examples, batch_size, seed)
    for _ in range(min(passes, 3)):
        taken = list(batches.take(batches.per_pass))
        assert [len(batch) for batch in taken[:-1]] == [batch_size] * (len(taken) - 1)
        assert sorted(torch.cat(taken).tolist()) == list(range(examples))


def test_orders_differ_from_pass_to_pass_and_from_seed_to_seed() -> None:
    first, second = (torch.cat(list(batches.take(5))) for batches in (Batches(50, 10, 0), Batches(50, 10, 1)))
    again = Batches(50, 10, 0)
    assert torch.equal(torch.cat(list(again.take(5))), first)
    assert not torch.equal(torch.cat(list(again.take(5))), first)
    assert not torch.equal(first, second)


@given(SIZES, SIZES, st.integers(0, 30), st.integers(1, 30))
def test_another_one_goes_on_where_the_state_says(examples: int, batch_size: int, before: int, after: int) -> None:
    batches = Batches(examples, batch_size, 3)
    list(batches.take(before))
    resumed = Batches(examples, batch_size, 99)
    resumed.load_state_dict(batches.state_dict())
    for expected, found in zip(batches.take(after), resumed.take(after), strict=True):
        assert torch.equal(expected, found)


@given(st.integers(4, 40), st.integers(1, 10), st.sampled_from([2, 3, 4]))
def test_ranks_share_each_batch_and_leave_out_what_has_no_equal_parts(examples: int, size: int, ranks: int) -> None:
    whole = Batches(examples - examples % ranks, size * ranks, 3)
    parts = [Batches(examples, size * ranks, 3, ranks=ranks, rank=rank) for rank in range(ranks)]
    assert {part.per_pass for part in parts} == {whole.per_pass}
    taken = [list(part.take(part.per_pass)) for part in parts]
    joint = [torch.cat(batch) for batch in zip(*taken, strict=True)]
    assert all(len({len(part) for part in batch}) == 1 for batch in zip(*taken, strict=True))
    assert [len(batch) for batch in joint] == [len(batch) for batch in whole.take(whole.per_pass)]
    assert torch.equal(
        torch.cat(joint), torch.cat(list(Batches(examples, 1, 3).take(examples)))[: len(torch.cat(joint))]
    )


@pytest.mark.parametrize(
    ("examples", "batch_size", "message"),
    [
        (100, 50, r"batch_size=50: must be a multiple of search\.resources\.workers=4, as all .* equal parts; try 52"),
        (3, 4, r"search\.resources\.workers=4: must be ≤ the 3 training examples"),
    ],
)
def test_batches_without_equal_parts_are_refused(examples: int, batch_size: int, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Batches(examples, batch_size, 0, ranks=4)
