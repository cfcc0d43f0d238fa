"""The callback in real Tune runs; one run per fault, as starting actors is what costs."""

import json
import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from sngd_tune.errors import LedgerError
from sngd_tune.records.events import StudyListener
from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.tracking.ledger import Ledger
from tests.tracking.samples import ended, epoch, new_ledger, trial

pytestmark = pytest.mark.usefixtures("ray_session")


class Listener(StudyListener):
    def __init__(self) -> None:
        self.events: list[tuple[str, str, int, str]] = []

    def trial_started(self, record: TrialRecord) -> None:
        self._note("started", record)

    def epoch_finished(self, record: TrialRecord, metrics: EpochMetrics) -> None:
        assert metrics.epoch == record.epochs
        self._note("epoch", record)

    def trial_finished(self, record: TrialRecord) -> None:
        self._note("finished", record)

    def _note(self, event: str, record: TrialRecord) -> None:
        self.events.append((event, record.trial, record.attempt, str(record.outcome)))


class Broken(StudyListener):
    def epoch_finished(self, record: TrialRecord, metrics: EpochMetrics) -> None:
        raise RuntimeError("a listener's own affair")


def _trainable() -> type:
    from ray import tune

    class Three(tune.Trainable):
        """Three epochs, and at the second whatever the trial's parameters ask for."""

        def setup(self, config: dict[str, Any]) -> None:
            self.reset_config(config)

        def reset_config(self, config: dict[str, Any]) -> bool:
            self.config, self.epoch = config, config["epochs_known"]
            return True

        def step(self) -> dict[str, Any]:
            self.epoch += 1
            fault = self.config["parameters"].get("fault") if self.epoch == 2 else None
            if fault == "raise":
                raise ValueError("no such layer")
            if fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == "diverge":
                nan = float("nan")
                return {"outcome": "diverged", "error": "loss is nan", "validation_loss": nan, "done": True}
            metrics = epoch(self.epoch)
            done = self.epoch == 3
            return {
                "epoch": self.epoch,
                "outcome": "completed" if done else "running",
                "validation_loss": metrics.validation_loss,
                "epoch_metrics": json.dumps([metrics.to_dict()]),
                "checkpoint": f"/kept/{self.epoch}" if self.config["keeps"] else None,
                "done": done,
            }

    return Three


def _proposals(faults: list[str], **changes: Any) -> list[dict[str, Any]]:
    return [
        {
            "trial": f"{number:04d}",
            "number": number,
            "phase": "search",
            "candidate": "",
            "parameters": {"fault": fault},
            "seed": 7,
            "attempt": 0,
            "resume": False,
            "epochs_known": 0,
            "keeps": False,
            **changes,
        }
        for number, fault in enumerate(faults)
    ]


def _fit(
    directory: Path,
    callback: Any,
    faults: list[str],
    *,
    retries: int = 0,
    stop: dict[str, Any] | None = None,
    **changes: Any,
) -> None:
    from ray import tune

    from sngd_tune.search.searcher import ListSearcher

    searcher = ListSearcher(_proposals(faults, **changes), retries)
    callback.ask(searcher.on_trial_failed)
    tune.Tuner(
        _trainable(),
        tune_config=tune.TuneConfig(
            search_alg=searcher, metric="validation_loss", mode="min", num_samples=-1, reuse_actors=True
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(directory),
            verbose=0,
            stop=stop,
            callbacks=[callback],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()


def _callback(ledger: Ledger, *listeners: StudyListener, **options: Any) -> Any:
    from sngd_tune.tracking.callback import LedgerCallback

    return LedgerCallback(ledger, listeners, **options)


def test_trials_end_as_what_happened_to_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger, listener = new_ledger(tmp_path), Listener()
    callback = _callback(ledger, Broken(), listener)
    with caplog.at_level(logging.WARNING, "sngd_tune"):
        _fit(tmp_path, callback, ["none", "raise", "diverge"])
    callback.close()
    completed, raised, diverged = ledger.trials()
    assert [completed.outcome, raised.outcome, diverged.outcome] == ["completed", "error", "diverged"]
    assert completed.objectives == {"validation_loss": epoch(3).validation_loss}
    assert completed.epochs == 3
    assert completed.training_seconds == 1.5
    assert completed.parameters == {"fault": "none"}
    assert completed.started < completed.updated == completed.ended
    assert raised.error is not None
    assert raised.error.endswith("ValueError: no such layer")
    assert diverged.error == "loss is nan"
    assert diverged.objectives == {"validation_loss": epoch(1).validation_loss}
    assert [ledger.epochs(record.trial).num_rows for record in ledger.trials()] == [3, 1, 1]
    expected = [("started", "running"), *[("epoch", "running")] * 3, ("finished", "completed")]
    assert [(event, outcome) for event, name, _, outcome in listener.events if name == "0000"] == expected
    complaints = [entry for entry in caplog.records if entry.name.startswith("sngd_tune")]
    assert len(complaints) == 1
    # Two states and one file of epochs a trial: this is what a short trial costs.
    assert len(list(ledger.directory.rglob("*.parquet"))) == 9


@pytest.mark.slow
def test_a_killed_trial_is_tried_again_from_its_checkpoint_then_lost(tmp_path: Path) -> None:
    ledger, listener = new_ledger(tmp_path), Listener()
    callback = _callback(ledger, listener)
    _fit(tmp_path, callback, ["kill"], retries=1, keeps=True)
    (record,) = ledger.trials()
    assert record.outcome is Outcome.LOST
    assert record.attempt == 1
    assert record.epochs == 1
    assert record.checkpoint == "/kept/1"
    assert [(event, attempt) for event, _, attempt, _ in listener.events] == [
        ("started", 0),
        ("epoch", 0),
        ("started", 1),
        ("finished", 1),
    ]


def test_a_trial_that_was_stopped_is_stopped_early(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    _fit(tmp_path, _callback(ledger), ["none"], stop={"training_iteration": 2})
    assert [(record.outcome, record.epochs) for record in ledger.trials()] == [(Outcome.STOPPED_EARLY, 2)]


def test_a_resumed_trial_goes_on_counting(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    before = ended(trial(), Outcome.INTERRUPTED, epochs=2, training_seconds=1.0, checkpoint="/kept/2")
    ledger.write_trial(before)
    ledger.write_epochs(before, [epoch(1), epoch(2)], [1.0, 2.0])
    _fit(tmp_path, _callback(Ledger.open(ledger.directory)), ["none"], attempt=1, resume=True, epochs_known=2)
    (record,) = ledger.trials()
    assert (record.attempt, record.outcome, record.epochs) == (1, Outcome.COMPLETED, 3)
    assert ledger.epochs().select(["epoch", "attempt"]).to_pydict() == {"epoch": [1, 2, 3], "attempt": [0, 0, 1]}


def test_a_full_ledger_ends_the_study_with_its_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sngd_tune.tracking.files.PATIENCE_SECONDS", 0.0)
    ledger = new_ledger(tmp_path)
    callback = _callback(ledger)
    (ledger.directory / "ledger" / "epochs").rmdir()  # as good as a full disk, and stays so
    with pytest.raises(LedgerError, match="cannot be written"):
        _fit(tmp_path, callback, ["none", "none", "none"])
    assert isinstance(callback.failure, LedgerError)
    callback.close()
    assert len(ledger.trials()) < 3


class FakeTrial:
    """As much of Tune's trial as the callback looks at, where a run would cost seconds."""

    def __init__(self, number: int = 0) -> None:
        self.config = _proposals([""] * (number + 1))[number]
        self.trial_id = str(number)
        self.error_file = self.pickled_error_file = None


def _result(number: int) -> dict[str, Any]:
    metrics = epoch(number)
    text = json.dumps([metrics.to_dict()])
    return {"outcome": "running", "validation_loss": metrics.validation_loss, "epoch_metrics": text}


def test_closing_keeps_what_the_interrupted_have_done(tmp_path: Path) -> None:
    ledger, listener = new_ledger(tmp_path), Listener()
    callback = _callback(ledger, listener)
    one, other = FakeTrial(0), FakeTrial(1)
    for tune_trial in (one, other):
        callback.on_trial_start(0, [], tune_trial)
    callback.on_trial_result(0, [], one, _result(1))
    assert ledger.epochs().num_rows == 0
    callback.close(Outcome.STOPPED_EARLY)
    callback.close()
    assert [record.outcome for record in ledger.trials()] == [Outcome.STOPPED_EARLY, Outcome.INTERRUPTED]
    assert ledger.epochs().num_rows == 1
    assert [event for event, *_ in listener.events].count("finished") == 2


def test_a_long_trial_is_written_while_it_runs(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    callback = _callback(ledger, flush_seconds=0.0)
    tune_trial = FakeTrial()
    callback.on_trial_start(0, [], tune_trial)
    for number in (1, 2):
        callback.on_trial_result(0, [], tune_trial, _result(number))
        callback.on_step_end(0, [])
    assert ledger.epochs()["epoch"].to_pylist() == [1, 2]
    (record,) = ledger.trials()
    assert (record.outcome, record.epochs) == (Outcome.RUNNING, 2)


def test_a_trial_whose_actor_never_came_up_is_lost(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    callback = _callback(ledger)
    callback.on_trial_error(0, [], FakeTrial())
    assert [record.outcome for record in ledger.trials()] == [Outcome.LOST]


def test_a_last_result_that_repeats_an_epoch_adds_none(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    callback = _callback(ledger)
    tune_trial = FakeTrial()
    callback.on_trial_start(0, [], tune_trial)
    callback.on_trial_result(0, [], tune_trial, _result(1))
    callback.on_trial_result(0, [], tune_trial, {**_result(1), "outcome": "out_of_memory", "error": "no memory"})
    callback.on_trial_complete(0, [], tune_trial)
    (record,) = ledger.trials()
    assert (record.outcome, record.error) == (Outcome.OUT_OF_MEMORY, "no memory")
    assert ledger.dataset().count_rows() == 1
