"""Several workers take equal parts of a batch: what has none is refused before anything starts."""

from typing import Any

import pytest

from sngd_tune.search.checks import find_problems
from tests.studies import study


def problems(**changes: Any) -> list[str]:
    return [str(problem) for problem in find_problems(study(search={"resources": {"workers": 2}}, **changes))]


SIZE = {"fixed": {"fisher_interval": 5}}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        SIZE,  # the default is 128
        {**SIZE, "space": {"batch_size": {"choices": [32, 64]}}},
        {**SIZE, "space": {"batch_size": {"low": 32, "high": 64, "step": 2}}},
    ],
)
def test_batches_of_equal_parts_are_well(changes: dict[str, Any]) -> None:
    assert problems(**changes) == []


@pytest.mark.parametrize(
    ("changes", "where", "size"),
    [
        ({"fixed": {"batch_size": 25, "fisher_interval": 5}}, "fixed.batch_size", 25),
        ({**SIZE, "space": {"batch_size": {"choices": [32, 33]}}}, "space.batch_size.0", 33),
        ({**SIZE, "space": {"batch_size": {"low": 32, "high": 64}}}, "space.batch_size.0", 33),
        ({**SIZE, "space": {"batch_size": {"low": 31, "high": 61, "step": 2}}}, "space.batch_size.0", 31),
    ],
)
def test_others_are_refused_with_the_next_that_would_do(changes: dict[str, Any], where: str, size: int) -> None:
    message = problems(**changes)[0]
    assert message.startswith(f"{where}: {size}: must be a multiple of search.resources.workers=2")
    assert message.endswith(f"try {size + 1}")


def test_the_untuned_trials_of_the_confirmation_have_equal_parts_too() -> None:
    three = {"trials": 2, "resources": {"workers": 3}}
    asked = study(**SIZE, space={"batch_size": {"choices": [30, 60]}}, search=three, confirm={"seeds": 1})
    assert [str(problem) for problem in find_problems(asked)] == [
        "confirm.baseline: true: trains the default batch_size=128, which is no multiple of search.resources.workers=3;"
        " try false"
    ]


def test_a_method_that_needs_the_whole_batch_is_refused() -> None:
    space = {"lr": {"low": 0.01, "high": 0.2}, "optimizer": {"choices": ["sgd", "exact_ngd"]}}
    assert problems(fixed={"batch_size": 100}, space=space) == [
        "search.resources.workers: 2: must be 1 for exact_ngd, which needs the whole batch"
    ]
