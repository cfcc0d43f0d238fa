"""The actor's side of a trial: many trials in one process, results, checkpoints. Whole studies are in `test_launch`."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import tune

from sngd_tune.gate import make_gate
from sngd_tune.records.metrics import OBJECTIVES
from sngd_tune.trainables import TrialPlan, TrialTrainable
from tests.examples.faults import DIVERGES, RAISES, RUNS_OUT_OF_MEMORY
from tests.examples.moons import MOONS
from tests.studies import FAULTS, ROOT

EPOCHS = 4


@pytest.fixture
def plan(ray_session: None) -> TrialPlan:
    import ray

    gate = make_gate()
    ray.get(gate.expect.remote("search", 1))
    return TrialPlan(
        workload=f"{FAULTS}:Faulty",
        import_path=str(ROOT),
        epochs=EPOCHS,
        checkpoint_seconds=0.0,
        threads=1,
        seconds=None,
        epoch_examples=None,
        decisions=tuple(range(1, EPOCHS)),
        decided_by="epoch",
        gate=gate,
    )


@pytest.fixture
def make(plan: TrialPlan) -> Callable[..., TrialTrainable]:
    """A trainable in this process, as Tune makes it in an actor's."""

    def make(config: dict[str, Any], **changes: Any) -> TrialTrainable:
        trainable = tune.with_parameters(
            TrialTrainable, plan=dataclasses.replace(plan, **changes), splits=MOONS.load(None)
        )
        made = trainable(config)
        assert isinstance(made, TrialTrainable)
        return made

    return make


def config(batch_size: int = 100, **changes: Any) -> dict[str, Any]:
    values = {"trial": "0000", "number": 0, "phase": "search", "candidate": "", "seed": 5, "resume_from": None}
    return {**values, "parameters": {"lr": 0.05, "batch_size": batch_size, "fisher_interval": 3}, **changes}


def to_the_end(trainable: TrialTrainable) -> list[dict[str, Any]]:
    results = [trainable.step()]
    while not results[-1]["done"]:
        results.append(trainable.step())
    return results


def losses(results: list[dict[str, Any]]) -> list[float]:
    return [metrics["training_loss"] for result in results for metrics in json.loads(result["epoch_metrics"])]


def test_results_are_flat_and_end_with_the_outcome(make: Callable[..., TrialTrainable]) -> None:
    results = to_the_end(make(config()))
    assert [result["epoch"] for result in results] == [1, 2, 3, 4]
    assert [result["outcome"] for result in results] == ["running"] * 3 + ["completed"]
    assert all(isinstance(result[name], float) for result in results for name in OBJECTIVES)
    assert [result["should_checkpoint"] for result in results] == [True] * 3 + [False]


def test_without_decisions_a_short_trial_is_one_result(make: Callable[..., TrialTrainable]) -> None:
    (result,) = to_the_end(make(config(), decisions=(), checkpoint_seconds=60.0))
    assert [metrics["epoch"] for metrics in json.loads(result["epoch_metrics"])] == [1, 2, 3, 4]
    assert not result["should_checkpoint"]


@pytest.mark.filterwarnings("ignore:.* NaN or infinity; it is left out")
@pytest.mark.parametrize(
    ("size", "outcome", "done", "error"),
    [
        (RAISES, "error", 2, "RuntimeError: the workload [of this test] raises in epoch 3"),
        (RUNS_OUT_OF_MEMORY, "out_of_memory", 2, "MemoryError: no memory left for this test"),
        (DIVERGES, "diverged", 2, ""),  # the loss of epoch 2 is NaN: its steps are skipped until the loss is looked at
    ],
)
def test_one_process_trains_on_after_a_failure_as_if_it_were_new(
    make: Callable[..., TrialTrainable], size: int, outcome: str, done: int, error: str
) -> None:
    trainable = make(config())
    expected = losses(to_the_end(trainable))
    assert trainable.reset_config(config(size))
    results = to_the_end(trainable)
    last = results[-1]
    assert (last["outcome"], last["epoch"], len(losses(results))) == (outcome, done, done)
    assert error in (last["error"] or "")
    assert all(last[name] != last[name] for name in OBJECTIVES)  # NaN, which never ranks
    assert trainable.reset_config(config())
    assert losses(to_the_end(trainable)) == expected


def test_parameters_that_are_wrong_are_an_outcome_too(make: Callable[..., TrialTrainable]) -> None:
    trainable = make(config(parameters={"lr": -1.0}))
    (result,) = to_the_end(trainable)
    assert (result["outcome"], result["epoch"], result["epoch_metrics"]) == ("error", 0, "[]")
    assert "lr=-1.0: must be > 0" in result["error"]


@pytest.mark.parametrize("way", ["load_checkpoint", "resume_from"])
def test_a_checkpoint_brings_the_same_trajectory(make: Callable[..., TrialTrainable], tmp_path: Path, way: str) -> None:
    expected = losses(to_the_end(make(config())))
    begun = make(config())
    first = [begun.step(), begun.step()]
    begun.save_checkpoint(str(tmp_path))
    (file,) = tmp_path.iterdir()
    torch.load(file, weights_only=True)  # tensors and numbers only: no pickle of ours
    if way == "load_checkpoint":  # Tune's retry of a lost process
        again = make(config())
        again.load_checkpoint(str(tmp_path))
    else:  # a resumed study
        again = make(config(resume_from=str(tmp_path)))
    rest = to_the_end(again)
    assert [result["epoch"] for result in rest] == [3, 4]
    assert losses(first) + losses(rest) == expected


def test_a_confirmation_alone_sees_the_test_set(make: Callable[..., TrialTrainable], plan: TrialPlan) -> None:
    import ray

    ray.get(plan.gate.expect.remote("confirm", 1))
    for phase in ("search", "confirm"):
        last = json.loads(to_the_end(make(config(phase=phase)))[-1]["epoch_metrics"])[-1]
        assert (last["test_loss"] is not None) == (phase == "confirm")
