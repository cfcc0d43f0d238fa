"""From Ray Tune's trials to the ledger's records, on the driver.

What it relies on: ``trial.config`` holds trial, number, phase, candidate, parameters, seed and resume_from; each result
is flat, with ``outcome`` ("running" until the last), the objectives, ``epoch_metrics`` (a JSON list of
`EpochMetrics.to_dict`; absent where a trial failed before its first epoch) and ``error`` on failures.
"""

import dataclasses
import json
import logging
import pickle
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError
from ray.tune import Callback

from sngd_tune.errors import GpuMemoryError, LedgerError, PreemptedError
from sngd_tune.records.events import StudyListener
from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.tracking.ledger import Ledger
from sngd_tune.tracking.provenance import code_version

__all__ = ["LedgerCallback", "Recorder", "RunsAgain"]

_log = logging.getLogger(__name__)

#: How much of a traceback's end a record keeps.
_ERROR_LINES = 30
_ERROR_CHARACTERS = 4000

#: Ray's word for an actor that its memory monitor killed; of tasks alone it has a class.
_OOM_MARK = "running low on memory"


#: Told Tune's id of an attempt and how it failed; says whether the trial will run again.
RunsAgain = Callable[[str, Outcome], bool]


def _never(trial_id: str, outcome: Outcome) -> bool:
    return False


@dataclass
class _Live:
    """A trial between its start and its outcome: the newest record, and what is not yet in the ledger."""

    record: TrialRecord
    last_epoch: int = 0
    epochs: list[EpochMetrics] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    flushed: float = field(default_factory=time.monotonic)


class Recorder(Callback):
    """A Tune callback that records what happens to trials.

    Attributes:
        failure: the LedgerError that stopped it. Ray wraps what a callback raises, and swallows it in some hooks:
            whoever calls ``Tuner.fit()`` raises this one instead.
    """

    failure: LedgerError | None = None

    def ask(self, runs_again: RunsAgain) -> None:
        """Whom to tell how an attempt failed, and to ask whether the trial will run again."""
        raise NotImplementedError

    def close(self, outcome: Outcome) -> None:
        """Give every trial that still runs its outcome; call it after ``Tuner.fit()``, however that ended."""
        raise NotImplementedError


class LedgerCallback(Recorder):
    """Writes every trial to the ledger, then tells the listeners.

    A trial's epochs are written with its outcome, or every `flush_seconds` while it runs, so a crash of the driver
    loses no more than that. A listener that raises is logged once and goes on being told; a ledger that cannot be
    written ends the study.
    """

    def __init__(self, ledger: Ledger, listeners: Sequence[StudyListener] = (), flush_seconds: float = 30.0) -> None:
        self._ledger = ledger
        self._config = ledger.config
        self._listeners = tuple(listeners)
        self._flush_seconds = flush_seconds
        self._live: dict[str, _Live] = {}
        self._known = {record.trial: record for record in ledger.trials()}
        self._complained: set[int] = set()
        self.failure: LedgerError | None = None
        self._runs_again: RunsAgain = _never

    def ask(self, runs_again: RunsAgain) -> None:
        self._runs_again = runs_again

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A new attempt: the first, a retry after a lost process, or a resume."""
        if self.failure is None:
            self._start(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """One epoch or several, or the end of a trial that failed on its own terms."""
        if self.failure is not None:
            return
        live = self._find(trial)
        epochs = _epochs(result)
        before = live.record.checkpoint
        live.record = self._updated(live.record, result, epochs[-1] if epochs else None)
        for metrics in epochs:
            # The last result of a failed trial may repeat the epoch before.
            if metrics.epoch > live.last_epoch:
                live.last_epoch = metrics.epoch
                live.epochs.append(metrics)
                live.times.append(live.record.updated)
                running = dataclasses.replace(live.record, outcome=Outcome.RUNNING)
                self._tell("epoch_finished", running, metrics)
        if live.record.checkpoint != before:
            self._save(live)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The outcome that the trial reported; one that was stopped in mid-run was stopped early."""
        if self.failure is None and trial.config["trial"] in self._live:
            outcome = self._find(trial).record.outcome
            self._finish(trial.config["trial"], Outcome.STOPPED_EARLY if outcome is Outcome.RUNNING else outcome)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A process that failed. A trial that runs again stays RUNNING, so that resume picks it up if we die here."""
        if self.failure is not None:
            return
        live = self._find(trial)
        outcome = outcome_of_failure(trial)
        live.record = dataclasses.replace(
            live.record, error=live.record.error or _error_text(trial), updated=time.time()
        )
        if self._runs_again(trial.trial_id, outcome):
            self._save(live)
        else:
            self._finish(trial.config["trial"], outcome)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Write what has waited long enough; stop the study where the ledger has failed."""
        if self.failure is not None:
            # Tune swallows what on_trial_complete raises; here nothing does.
            raise self.failure
        now = time.monotonic()
        for live in self._live.values():
            if live.epochs and now - live.flushed > self._flush_seconds:
                self._save(live)

    def close(self, outcome: Outcome = Outcome.INTERRUPTED) -> None:
        """Give every trial that still runs its outcome; call it after ``Tuner.fit()``, however that ended.

        Args:
            outcome: `INTERRUPTED` after Ctrl-C, `STOPPED_EARLY` after a time limit (a trial without a finished epoch
                stays `INTERRUPTED`, as it says nothing).

        Raises:
            LedgerError: the ledger cannot be written.
        """
        if self.failure is None:
            for name, live in list(self._live.items()):
                self._finish(name, outcome if live.record.epochs else Outcome.INTERRUPTED)

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its configuration, callbacks included; listeners hold threads and terminals, the study's
        # configuration may hold passwords. Nothing is ever restored from that copy.
        return {}

    def _start(self, trial: Any) -> _Live:
        name = trial.config["trial"]
        before = self._live.get(name)
        live = self._live[name] = _Live(self._first_record(trial.config, before.record if before else None))
        with self._ledger_failure_remembered():
            if before is not None:
                self._write_epochs(before)
            self._ledger.write_trial(live.record)
        self._known[name] = live.record
        self._tell("trial_started", live.record)
        return live

    def _first_record(self, config: Mapping[str, Any], retried: TrialRecord | None) -> TrialRecord:
        """The record an attempt starts with; what a checkpoint brings back from the attempt before counts as done."""
        now, known = time.time(), retried or self._known.get(config["trial"])
        record = TrialRecord(
            study=self._config.name,
            workload=self._config.workload,
            **{key: config[key] for key in ("trial", "number", "phase", "candidate", "seed", "attempt")},
            parameters=dict(config["parameters"]),
            objectives=dict.fromkeys(self._config.objectives),
            checkpoint=known.checkpoint if known and config["resume"] else None,
            started=now,
            updated=now,
            code_version=code_version(),
            host=socket.gethostname(),
        )
        if known is None or record.checkpoint is None:
            return record
        kept = ("epochs", "objectives", "training_seconds", "energy_joules", "energy_source")
        return dataclasses.replace(record, **{key: getattr(known, key) for key in kept})

    def _find(self, trial: Any) -> _Live:
        # A trial whose actor could not even be made fails without a start.
        return self._live.get(trial.config["trial"]) or self._start(trial)

    def _updated(self, record: TrialRecord, result: Mapping[str, Any], metrics: EpochMetrics | None) -> TrialRecord:
        changes: dict[str, Any] = {
            "outcome": Outcome(result.get("outcome", Outcome.RUNNING)),
            "updated": time.time(),
            "error": result.get("error"),
            "checkpoint": result.get("checkpoint") or record.checkpoint,
        }
        if metrics is not None:
            changes |= {
                "epochs": metrics.epoch,
                "objectives": {name: _number(result.get(name)) for name in self._config.objectives},
                "training_seconds": metrics.training_seconds,
                "energy_joules": metrics.energy_joules,
                "energy_source": metrics.energy_source,
                "test_loss": metrics.test_loss,
                "test_accuracy": metrics.test_accuracy,
            }
        return dataclasses.replace(record, **changes)

    def _finish(self, name: str, outcome: Outcome) -> None:
        live = self._live[name]
        now = time.time()
        live.record = dataclasses.replace(live.record, outcome=outcome, updated=now, ended=now)
        self._save(live)
        self._known[name] = self._live.pop(name).record
        self._tell("trial_finished", live.record)

    def _save(self, live: _Live) -> None:
        # Epochs first: a record that says COMPLETED must find them there.
        with self._ledger_failure_remembered():
            self._write_epochs(live)
            outcome = live.record.outcome if live.record.ended is not None else Outcome.RUNNING
            self._ledger.write_trial(dataclasses.replace(live.record, outcome=outcome))

    def _write_epochs(self, live: _Live) -> None:
        self._ledger.write_epochs(live.record, live.epochs, live.times)
        live.epochs, live.times, live.flushed = [], [], time.monotonic()

    @contextmanager
    def _ledger_failure_remembered(self) -> Iterator[None]:
        try:
            yield
        except LedgerError as error:
            self.failure = error
            raise

    def _tell(self, event: str, *arguments: Any) -> None:
        for listener in self._listeners:
            try:
                getattr(listener, event)(*arguments)
            except Exception:
                if id(listener) not in self._complained:
                    self._complained.add(id(listener))
                    _log.warning("%s failed in %s and is ignored", type(listener).__name__, event, exc_info=True)


def _epochs(result: Mapping[str, Any]) -> list[EpochMetrics]:
    text = result.get("epoch_metrics")
    return [EpochMetrics.from_dict(values) for values in json.loads(text)] if text else []


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _error_text(trial: Any) -> str | None:
    """The end of what Tune wrote about the last failure of a trial."""
    try:
        lines = Path(trial.error_file).read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, TypeError):
        return None
    return "\n".join(lines[-_ERROR_LINES:])[-_ERROR_CHARACTERS:]


def outcome_of_failure(trial: Any) -> Outcome:
    """How a trial's process failed.

    LOST where it or its node died, or a GPU's memory did not come free; PREEMPTED where the node was to go;
    OUT_OF_MEMORY where Ray killed it for want of memory; ERROR where the trial's own code raised.
    """
    # Tune keeps the exception itself only as a pickle in the trial's folder, which this very process has just written.
    # Trial.get_pickled_error would look for it in the storage, where it arrives later.
    try:
        error = pickle.loads(Path(trial.pickled_error_file).read_bytes())
    except (OSError, TypeError):
        return Outcome.LOST  # Tune pickles what tasks and actors raise; the rest is the cluster's
    except Exception:
        return Outcome.ERROR  # a class of the workload that does not unpickle here: so the workload raised it
    cause = error
    while isinstance(cause, RayTaskError):  # the trainable's step, and tasks that a workload may have started itself
        cause = cause.cause
    if isinstance(cause, PreemptedError) or (isinstance(cause, RayActorError) and cause.preempted):
        return Outcome.PREEMPTED
    if isinstance(cause, OutOfMemoryError) or (isinstance(cause, RayError) and _OOM_MARK in str(cause)):
        return Outcome.OUT_OF_MEMORY
    return Outcome.LOST if isinstance(cause, RayError | GpuMemoryError) else Outcome.ERROR
