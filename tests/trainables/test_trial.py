"""The actor's side of a trial: many trials in one process, results, checkpoints. Whole studies are in `test_launch`."""

import dataclasses
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import tune

from sngd_tune.errors import PreemptedError
from sngd_tune.gate import make_gate
from sngd_tune.notice import give_notice
from sngd_tune.records.metrics import OBJECTIVES
from sngd_tune.storage import open_place
from sngd_tune.trainables.plan import TrialPlan
from sngd_tune.trainables.trial import TrialTrainable
from tests.examples.faults import DIVERGES, RAISES, RUNS_OUT_OF_MEMORY
from tests.examples.moons import MOONS
from tests.studies import FAULTS, ROOT

EPOCHS = 4


@pytest.fixture
def plan(ray_session: None, tmp_path: Path) -> TrialPlan:
    import ray

    gate = make_gate()
    ray.get(gate.expect.remote("search", 1))
    return TrialPlan(
        workload=f"{FAULTS}:Faulty",
        import_path=str(ROOT),
        epochs=EPOCHS,
        checkpoints=open_place(tmp_path),
        checkpoint_seconds=0.0,
        threads=1,
        gpus=0.0,
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
    values = {"trial": "0000", "number": 0, "phase": "search", "candidate": "", "seed": 5}
    values |= {"study": "faulty", "attempt": 0, "resume": False, "epochs_known": 0}
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
    assert [Path(result["checkpoint"]).name[:11] for result in results] == [f"0000-{i:06d}" for i in (1, 2, 3, 3)]


def test_without_decisions_a_short_trial_is_one_result(make: Callable[..., TrialTrainable]) -> None:
    (result,) = to_the_end(make(config(), decisions=(), checkpoint_seconds=60.0))
    assert [metrics["epoch"] for metrics in json.loads(result["epoch_metrics"])] == [1, 2, 3, 4]
    assert result["checkpoint"] is None


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


def again(**changes: Any) -> dict[str, Any]:
    return config(attempt=1, resume=True, **changes)


def test_an_attempt_goes_on_from_the_newest_checkpoint(make: Callable[..., TrialTrainable], tmp_path: Path) -> None:
    expected = losses(to_the_end(make(config(trial="whole"))))
    begun = make(config())
    first = [begun.step(), begun.step()]
    for file in (tmp_path / "faulty" / "0000").iterdir():
        torch.load(file, weights_only=True)  # tensors and words only: no pickle of ours
    rest = to_the_end(make(again(epochs_known=2)))
    assert [result["epoch"] for result in rest] == [3, 4]
    assert losses(first) + losses(rest) == expected


@pytest.mark.parametrize(("known", "told"), [(0, [1, 2, 3]), (1, [2, 3]), (2, [3]), (7, [3])])
def test_what_the_driver_has_not_heard_is_reported_again(
    make: Callable[..., TrialTrainable], known: int, told: list[int]
) -> None:
    begun = make(config())
    heard = losses([begun.step(), begun.step()])
    result = make(again(epochs_known=known)).step()
    metrics = json.loads(result["epoch_metrics"])
    assert [each["epoch"] for each in metrics] == told
    assert [each["training_loss"] for each in metrics[:-1]] == heard[known:]


def test_a_damaged_checkpoint_is_passed_over(
    make: Callable[..., TrialTrainable], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begun = make(config())
    heard = losses([begun.step(), begun.step()])
    newest = max((tmp_path / "faulty" / "0000").iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    result = make(again(epochs_known=2)).step()
    assert result["epoch"] == 2
    assert losses([result]) == heard[1:]
    assert f"{newest}: damaged" in caplog.text


def test_storage_that_is_away_costs_no_trial(
    make: Callable[..., TrialTrainable], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    away = tmp_path / "away"
    results = to_the_end(make(config(), checkpoints=open_place(away)))
    assert (results[-1]["outcome"], results[-1]["checkpoint"]) == ("completed", None)
    assert "no checkpoint can be written" in caplog.text
    assert not away.exists()


def test_storage_that_is_away_when_a_trial_goes_on_is_waited_for(
    make: Callable[..., TrialTrainable], tmp_path: Path
) -> None:
    place, away = tmp_path / "mount", tmp_path / "away"
    place.mkdir()
    begun = make(config(), checkpoints=open_place(place))
    begun.step()
    place.rename(away)
    back = threading.Timer(1.0, lambda: away.rename(place))
    back.start()
    result = make(again(epochs_known=1), checkpoints=open_place(place)).step()
    back.join()
    assert result["epoch"] == 2


def test_storage_that_stays_away_makes_a_trial_begin_again(
    make: Callable[..., TrialTrainable],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("sngd_tune.trainables.session.STORAGE_SECONDS", 0.0)
    result = make(again(epochs_known=1), checkpoints=open_place(tmp_path / "gone")).step()
    assert result["epoch"] == 1
    assert "no checkpoint can be read" in caplog.text


def test_notice_makes_a_trial_leave_with_a_checkpoint(
    make: Callable[..., TrialTrainable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setenv("SNGD_TUNE_NOTICES", str(tmp_path / "notices"))
    trainable = make(config(), checkpoint_seconds=60.0)
    trainable.step()
    give_notice(ray.get_runtime_context().get_node_id())
    with pytest.raises(PreemptedError, match="trial 0000 leaves"):
        trainable.step()
    assert [file.name[:11] for file in (tmp_path / "faulty" / "0000").iterdir()] == ["0000-000002"]


def test_a_confirmation_alone_sees_the_test_set(make: Callable[..., TrialTrainable], plan: TrialPlan) -> None:
    import ray

    ray.get(plan.gate.expect.remote("confirm", 1))
    for phase in ("search", "confirm"):
        last = json.loads(to_the_end(make(config(phase=phase)))[-1]["epoch_metrics"])[-1]
        assert (last["test_loss"] is not None) == (phase == "confirm")
