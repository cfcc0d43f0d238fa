"""What earlier studies give a new one to start from."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.search.checks import find_problems
from sngd_tune.search.warm_start import WarmStart, warm_start
from tests.search.studies import HEAD, study

NEW = study(
    HEAD
    + """\
fixed: {optimizer: sngd, base: adamw, root_scale: unit}
space:
  lr: {low: 1e-3, high: 1e-1, log: true}
  weight_decay: {low: 1e-3, high: 0.5, log: true}
  beta2: {choices: [0.99, 0.999]}
  rank@head: {low: 4, high: 32, step: 4}
  root@stem: {choices: [nystrom, eigh]}
  rank@stem: {low: 2, high: 8, when: {root@stem: nystrom}}
start: [{lr: 1e-2}]
"""
)


def record(number: int, loss: float | None, *, workload: str = "digits_mlp", **parameters: Any) -> TrialRecord:
    """A completed trial; one that has no loss diverged."""
    return TrialRecord(
        study="old",
        workload=workload,
        trial=f"{number:04d}",
        number=number,
        parameters={name.replace("_at_", "@"): value for name, value in parameters.items()},
        outcome=Outcome.DIVERGED if loss is None else Outcome.COMPLETED,
        objectives={"validation_loss": loss},
    )


def alike(number: int, loss: float | None, **parameters: Any) -> TrialRecord:
    return record(number, loss, base="adamw", root_scale="unit", **parameters)


def points(found: WarmStart) -> list[dict[str, Any]]:
    """Those that were added."""
    assert found.study.start[0] == {"lr": 1e-2}
    return [dict(point) for point in found.study.start[1:]]


def test_the_best_three_of_each_study_are_taken_the_best_first() -> None:
    losses = [0.5, None, 0.3, 0.4, 0.9, 0.2]
    trials = [alike(number, loss, lr=0.002 * (number + 1)) for number, loss in enumerate(losses)]
    assert points(warm_start(NEW, [trials])) == [{"lr": 0.012}, {"lr": 0.006}, {"lr": 0.008}]
    more = [alike(0, 7.0, lr=0.05), alike(1, 9.0, lr=0.012)]  # one of them is there already
    assert points(warm_start(NEW, [trials, more]))[3:] == [{"lr": 0.05}]
    assert warm_start(NEW, []).study == NEW


def test_values_are_moved_into_the_ranges_and_that_is_said() -> None:
    found = warm_start(NEW, [[alike(3, 1.0, lr=3.0, weight_decay=1e-6, beta2=0.95, rank_at_head=13)]])
    assert points(found) == [{"lr": 0.1, "weight_decay": 1e-3, "rank@head": 12}]
    assert found.notes == (
        "study old, trial 0003: lr=3.0 lies outside of 0.001 … 0.1; 0.1 is tried",
        "study old, trial 0003: weight_decay=1e-06 lies outside of 0.001 … 0.5; 0.001 is tried",
        "study old, trial 0003: beta2=0.95 lies outside of 0.99, 0.999; it is sampled",
        "study old, trial 0003: rank@head=13 lies outside of 4 … 32; 12 is tried",
    )


def test_layers_get_what_those_of_their_name_had() -> None:
    """Their own value, that of the first pattern that matches, or the plain one; conditions hold in the new space."""
    own = alike(0, 1.0, rank=8, **{"rank@h*": 16, "rank@head": 20})
    assert points(warm_start(NEW, [[own]])) == [{"rank@head": 16}]
    plain = alike(0, 1.0, rank=8, root="nystrom")
    assert points(warm_start(NEW, [[plain]])) == [{"rank@head": 8, "root@stem": "nystrom", "rank@stem": 8}]
    dense = alike(0, 1.0, rank=8, **{"root@stem": "eigh"})
    assert points(warm_start(NEW, [[dense]])) == [{"rank@head": 8, "root@stem": "eigh"}]


@pytest.mark.parametrize(
    ("parameters", "difference", "expected"),
    [
        ({"base": "adamw"}, "root_scale natural, here unit", {"weight_decay": 0.1, "beta2": 0.99}),
        ({"base": "sgd", "root_scale": "unit"}, "base sgd, here adamw", {"weight_decay": 0.1, "beta2": 0.99}),
        (
            {"optimizer": "adamw"},
            "optimizer adamw, here sngd, root_scale natural, here unit",
            {"weight_decay": 0.1, "beta2": 0.99},
        ),
        ({"optimizer": "sgd", "root_scale": "unit"}, "optimizer sgd, here sngd", {"beta2": 0.99}),
    ],
)
def test_of_trials_whose_learning_rate_means_something_else_only_the_rest_is_taken(
    parameters: dict[str, Any], difference: str, expected: dict[str, Any]
) -> None:
    found = warm_start(NEW, [[record(0, 1.0, lr=0.05, weight_decay=0.1, beta2=0.99, rank=8, **parameters)]])
    assert points(found) == [expected]
    assert found.notes == (f"study old, trial 0000: has {difference}; taken: {', '.join(expected)}",)


def test_another_workload_and_too_many_points_are_said() -> None:
    found = warm_start(NEW.model_copy(update={"search": NEW.search.model_copy(update={"trials": 1})}), [
        [record(0, 1.0, workload="mnist_mlp", base="adamw", root_scale="unit", lr=0.05)]
    ])  # fmt: skip
    assert found.notes == (
        "study old, trial 0000: is of another workload, mnist_mlp",
        "2 starting points, and 1 trials: the last ones are not tried",
    )


@pytest.mark.parametrize(("trials", "named"), [([], "an earlier study"), ([alike(0, None, lr=0.1)], "study old")])
def test_a_study_in_which_nothing_completed_is_refused(trials: list[TrialRecord], named: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{named}: none of its {len(trials)} trials completed with a valid"):
        warm_start(NEW, [trials])


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "lr": st.floats(1e-6, 10),
    "weight_decay": st.floats(0, 1),
    "beta2": st.sampled_from([0.9, 0.99]),
    "rank": st.integers(1, 99),
    "rank@head": st.integers(1, 99),
    "root@stem": st.sampled_from(["nystrom", "cholesky", "eigh"]),
    "root_scale": st.sampled_from(["unit", "natural"]),
}


@given(st.fixed_dictionaries({"base": st.just("adamw")}, optional=VALUES))
def test_what_comes_out_is_always_a_sound_study(parameters: dict[str, Any]) -> None:
    found = warm_start(NEW, [[record(0, 1.0, **parameters)]]).study
    assert find_problems(found) == []
