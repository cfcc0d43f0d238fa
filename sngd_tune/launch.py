"""The one place where all of it meets: a study from its configuration to its confirmed result.

The order of things: everything that can be wrong with the input is found before the run directory is made; the search
runs; its winner, and the untuned default beside it, are trained again on seeds the search has not seen; the recipe and
the figures are written. Whatever stops it in between, the ledger has every finished trial, and `resume_study` goes on.
"""

import gc
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sngd_tune.cluster import check_resources, ray_session, trial_slots
from sngd_tune.confirmation import confirmations
from sngd_tune.errors import ConfigurationError, LedgerError
from sngd_tune.gate import make_gate
from sngd_tune.history import busy_seconds, past_trials
from sngd_tune.recipe import write_recipe
from sngd_tune.records.events import StudyListener
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.ranking import rank
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.trial import TrialConfig
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.report.figures import write_figures
from sngd_tune.tracking.directory import hold
from sngd_tune.tracking.ledger import Ledger
from sngd_tune.tracking.manifest import Manifest
from sngd_tune.workloads.registry import load_data
from sngd_tune.workloads.workload import Splits

__all__ = ["StudyResult", "resume_study", "run_study", "trial_config"]


@dataclass(frozen=True)
class StudyResult:
    """How a study ended.

    Attributes:
        directory: the run directory; everything else can be read from its ledger.
        outcome: ``"completed"``; ``"partial"`` where no trial completed or a confirmation is missing;
            ``"interrupted"`` after Ctrl-C.
        best: the winner of the search, by its validation objective; None where no trial completed.
        mirror_missed: records that MLflow still lacks; `sngd-tune sync` brings them.
    """

    directory: Path
    outcome: Literal["completed", "partial", "interrupted"]
    best: TrialRecord | None
    mirror_missed: int = 0


def run_study(
    config: StudyConfig, directory: Path, *, address: str | None = None, listeners: Sequence[StudyListener] = ()
) -> StudyResult:
    """Run a study from the start, in a new run directory.

    Args:
        config: a study that `search.load.load_study` has checked.
        directory: the run directory, made where it does not exist.
        address: of a Ray cluster; None starts a local one.
        listeners: told about trials and epochs on this thread.

    Raises:
        ConfigurationError: workload, data, resources or run directory are not as they must be; nothing was started.
        StudyHeldError: another live process holds the directory.
        LedgerError: the ledger cannot be written any more; finished trials are intact.
    """
    splits = load_data(config.workload, config.data_dir, config.objectives, config.fishers)
    with _unused_removed(directory), hold(directory):
        Manifest.check_absent(directory)
        with ray_session(address):
            check_resources(config.search.resources)
            ledger = Ledger.create(directory, config)
            return _Study(ledger, splits, listeners).conduct()


def resume_study(
    directory: Path, *, address: str | None = None, listeners: Sequence[StudyListener] = ()
) -> StudyResult:
    """Go on with a study: finished trials count, interrupted ones run again from their checkpoint, the rest follows.

    Raises: as `run_study`; and SchemaVersionError where another version wrote the ledger.
    """
    ledger = Ledger.open(directory)
    config = ledger.config
    splits = load_data(config.workload, config.data_dir, config.objectives, config.fishers)
    with hold(directory), ray_session(address):
        check_resources(config.search.resources)
        return _Study(ledger, splits, listeners).conduct()


def trial_config(record: TrialRecord, config: StudyConfig) -> TrialConfig:
    """The configuration that a recorded trial ran with."""
    return TrialConfig.from_flat(record.parameters, workload=config.workload, epochs=config.epochs, seed=record.seed)


@contextmanager
def _unused_removed(directory: Path) -> Iterator[None]:
    """Where the study could not begin, take away the run directory that was made for it."""
    existed = directory.exists()
    try:
        yield
    except ConfigurationError:
        if not existed and directory.is_dir() and [path.name for path in directory.iterdir()] == [".lock"]:
            shutil.rmtree(directory)
        raise


class _Study:
    """A study under way. Ray is up, the run directory is held."""

    def __init__(self, ledger: Ledger, splits: Splits, listeners: Sequence[StudyListener]):
        from sngd_tune.tracking.callback import LedgerCallback

        self._ledger = ledger
        self._config = ledger.config
        self._mirror = _mirror(ledger)
        watching = [*listeners, *([self._mirror] if self._mirror is not None else [])]
        self._callback = LedgerCallback(ledger, watching)
        self._gate = make_gate()
        self._trainable = _trainable(self._config, splits, self._gate)

    def conduct(self) -> StudyResult:
        """Search, confirm, write down."""
        outcome: Literal["completed", "partial", "interrupted"] = "completed"
        with _interrupt_on_terminate():
            try:
                self._search()
                if not self._confirm():
                    outcome = "partial"
            except KeyboardInterrupt:
                outcome = "interrupted"
            # Tune cleans up after an Exception only. After Ctrl-C actors and placement groups go with the reference
            # cycle of its controller; until then they hold CPUs for which a `resume_study` in this process would wait.
            gc.collect()
        best = self._best()
        self._write_results(best)
        if outcome == "completed":
            shutil.rmtree(self._ledger.directory / "tune", ignore_errors=True)  # checkpoints have served
        missed = self._finish_mirror()
        return StudyResult(self._ledger.directory, outcome, best, missed)

    def _write_results(self, best: TrialRecord | None) -> None:
        """The recipe and the figures; both can be made again from the ledger."""
        directory = self._ledger.directory
        try:
            if best is not None:
                objective = self._config.objectives[0]
                reached = f"{objective} {best.objectives[objective]:.6g}"
                origin = f"Best of study {self._config.name}: trial {best.trial}, {reached}"
                write_recipe(directory / "best.yaml", trial_config(best, self._config), origin)
            write_figures(directory)
        except OSError as error:
            reason = f"{directory}: results cannot be written ({error.strerror or error}); every trial is in the ledger"
            raise LedgerError(f"{reason}: free space, then `sngd-tune resume`") from error

    def _search(self) -> None:
        from sngd_tune.search.scheduler import make_scheduler
        from sngd_tune.search.searcher import StudySearcher

        past = past_trials(self._ledger)
        seconds = self._remaining_seconds()
        open_trials = self._config.search.trials - sum(trial.outcome.finished for trial in past)
        if open_trials <= 0 or (seconds is not None and seconds <= 0):
            return
        searcher = StudySearcher(self._config, past)
        try:
            self._fit("search", open_trials, searcher, make_scheduler(self._config), seconds)
        finally:
            searcher.close()

    def _confirm(self) -> bool:
        """Train the winner and the default on fresh seeds; False where there is nothing to confirm, or one failed."""
        from ray.tune.schedulers import FIFOScheduler

        from sngd_tune.search.searcher import ListSearcher

        best = self._best()
        if best is None:
            return False
        wanted = confirmations(self._config, best, self._ledger.trials())
        if wanted:
            self._fit("confirm", len(wanted), ListSearcher(wanted), FIFOScheduler(), None)
        return not any(record.outcome.failed for record in self._ledger.trials() if record.phase == "confirm")

    def _fit(self, phase: str, trials: int, searcher: Any, scheduler: Any, seconds: float | None) -> None:
        from ray import tune

        search = self._config.search
        slots = trial_slots(search.resources)
        self._gate.expect.remote(phase, min(slots, trials))
        tuner = tune.Tuner(
            self._trainable,
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=-1,
                time_budget_s=seconds,
                reuse_actors=True,
                # One proposal ahead, so that an actor that comes free has its next trial at once.
                max_concurrent_trials=slots + 1,
            ),
            run_config=tune.RunConfig(
                # A name of its own: a resumed study never meets what Tune left there before.
                name=f"{phase}-{time.time_ns()}",
                storage_path=str(self._ledger.directory / "tune"),
                callbacks=[self._callback],
                failure_config=tune.FailureConfig(max_failures=search.max_retries),
                checkpoint_config=tune.CheckpointConfig(num_to_keep=2, checkpoint_at_end=False),
                verbose=0,
            ),
        )
        outcome = Outcome.INTERRUPTED
        try:
            tuner.fit()
            outcome = Outcome.STOPPED_EARLY
        finally:
            if self._callback.failure is not None:
                raise self._callback.failure  # Ray hides what a callback raised behind an error of its own
            self._callback.close(outcome)

    def _best(self) -> TrialRecord | None:
        return next(iter(rank(self._ledger.trials(), self._config.objectives[0])), None)

    def _remaining_seconds(self) -> float | None:
        limit = self._config.search.seconds
        return None if limit is None else limit - busy_seconds(self._ledger.trials())

    def _finish_mirror(self) -> int:
        return self._mirror.close() if self._mirror is not None else 0


def _mirror(ledger: Ledger) -> Any:
    from sngd_tune.tracking.live import LiveMirror

    mlflow = ledger.config.mlflow
    return LiveMirror(ledger, mlflow.tracking_uri) if mlflow.enabled else None


def _trainable(config: StudyConfig, splits: Splits, gate: Any) -> Any:
    """The trainable with data and plan: put into the object store once, one copy per node."""
    from ray import tune

    from sngd_tune.search.scheduler import decision_epochs
    from sngd_tune.trainables import TrialPlan, TrialTrainable

    resources = config.search.resources
    plan = TrialPlan(
        workload=config.workload,
        import_path=str(Path.cwd()),
        epochs=config.epochs,
        checkpoint_seconds=config.search.checkpoint_seconds,
        threads=max(1, int(resources.cpus)),
        decisions=decision_epochs(config),
        gate=gate,
    )
    prepared = tune.with_parameters(TrialTrainable, plan=plan, splits=splits)
    return tune.with_resources(prepared, {"cpu": resources.cpus, "gpu": resources.gpus})


@contextmanager
def _interrupt_on_terminate() -> Iterator[None]:
    """SIGTERM, which schedulers of clusters send first, counts as Ctrl-C."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread: whoever runs us there keeps its own signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
