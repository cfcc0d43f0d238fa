import torch
from hypothesis import given
from hypothesis import strategies as st

from sngd_tune.batches import Batches

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
