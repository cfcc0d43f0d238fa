"""The one place where all of it meets: a study from its configuration to its confirmed result.

The order of things: everything that can be wrong with the input is found before the run directory is made; the search
runs; its winner, and the untuned default beside it, are trained again on seeds the search has not seen; the recipe and
the figures are written. Whatever stops it in between, the ledger has every finished trial, and `resume_study` goes on.
"""

import gc
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sngd_tune.cluster import check_resources, ray_session
from sngd_tune.confirmation import confirmations
from sngd_tune.errors import ConfigurationError, LedgerError
from sngd_tune.history import busy_seconds, past_trials
from sngd_tune.recipe import write_recipe
from sngd_tune.records.events import StudyListener
from sngd_tune.records.ranking import rank
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.trial import TrialConfig
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.report.figures import write_figures
from sngd_tune.report.study_page import write_study_page
from sngd_tune.runner import TrialRunner, interrupt_on_terminate
from sngd_tune.tracking.directory import hold
from sngd_tune.tracking.ledger import Ledger
from sngd_tune.tracking.manifest import Manifest
from sngd_tune.workloads.registry import load_data
from sngd_tune.workloads.workload import Splits

__all__ = ["StudyResult", "StudyRun", "load_splits", "resume_study", "run_study", "trial_config", "unused_removed"]


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
    splits = load_splits(config)
    with unused_removed(directory), hold(directory):
        Manifest.check_absent(directory)
        with ray_session(address):
            check_resources(config.search.resources)
            ledger = Ledger.create(directory, config)
            return StudyRun(ledger, TrialRunner(config, splits), listeners).conduct()


def resume_study(
    directory: Path, *, address: str | None = None, listeners: Sequence[StudyListener] = ()
) -> StudyResult:
    """Go on with a study: finished trials count, interrupted ones run again from their checkpoint, the rest follows.

    Raises: as `run_study`; and SchemaVersionError where another version wrote the ledger.
    """
    ledger = Ledger.open(directory)
    config = ledger.config
    splits = load_splits(config)
    with hold(directory), ray_session(address):
        check_resources(config.search.resources)
        return StudyRun(ledger, TrialRunner(config, splits), listeners).conduct()


def load_splits(
    config: StudyConfig, metrics: Iterable[str] = (), fishers: Iterable[str] = (), patterns: Iterable[str] = ()
) -> Splits:
    """The data of a study, checked against what it needs of the workload.

    Args:
        config: the study.
        metrics: others that will be looked at.
        fishers: kinds of Fisher matrix that other studies of the workload may take.
        patterns: of module names, of other studies of the workload (`StudyConfig.patterns`).

    Raises:
        ConfigurationError: as `load_data`.
    """
    wanted = {*config.objectives, *metrics}, {*config.fishers, *fishers}, {*config.patterns, *patterns}
    splits = load_data(config.workload, config.data_dir, *wanted)
    return splits.with_validation(config.validation_examples)


def trial_config(record: TrialRecord, config: StudyConfig) -> TrialConfig:
    """The configuration that a recorded trial ran with."""
    return TrialConfig.from_flat(
        record.parameters,
        workload=config.workload,
        epochs=config.epochs,
        seed=record.seed,
        seconds=config.seconds,
        epoch_examples=config.epoch_examples,
    )


@contextmanager
def unused_removed(directory: Path) -> Iterator[None]:
    """Where a study or comparison could not begin, take away the run directory that was made for it."""
    existed = directory.exists()
    try:
        yield
    except ConfigurationError:
        if not existed and directory.is_dir() and [path.name for path in directory.iterdir()] == [".lock"]:
            shutil.rmtree(directory)
        raise


class StudyRun:
    """A study under way. Ray is up, the run directory is held.

    Args:
        ledger: of the study.
        runner: of its workload.
        listeners: told about trials and epochs on this thread.

    Attributes:
        recorder: the Tune callback that writes the ledger and tells the listeners.
    """

    def __init__(self, ledger: Ledger, runner: TrialRunner, listeners: Sequence[StudyListener] = ()):
        from sngd_tune.tracking.callback import LedgerCallback

        self._ledger = ledger
        self._config = ledger.config
        self._runner = runner
        self._mirror = _mirror(ledger)
        watching = [*listeners, *([self._mirror] if self._mirror is not None else [])]
        self.recorder = LedgerCallback(ledger, watching)

    def settle(self) -> None:
        """Wait for the mirror, so that its work takes no time from trainings that are timed."""
        if self._mirror is not None:
            self._mirror.settle()

    def conduct(self) -> StudyResult:
        """Search, confirm, write down."""
        outcome: Literal["completed", "partial", "interrupted"] = "completed"
        with interrupt_on_terminate():
            try:
                self.search()
                if not self._confirm():
                    outcome = "partial"
            except KeyboardInterrupt:
                outcome = "interrupted"
            # Tune cleans up after an Exception only. After Ctrl-C actors and placement groups go with the reference
            # cycle of its controller; until then they hold CPUs for which a `resume_study` in this process would wait.
            gc.collect()
        return self.finish(outcome)

    def finish(self, outcome: Literal["completed", "partial", "interrupted"]) -> StudyResult:
        """Write down what has been found, and bring the mirror up to it."""
        best = self.best
        self._write_results(best)
        if outcome == "completed":
            shutil.rmtree(self._tune, ignore_errors=True)  # checkpoints have served
        missed = self._mirror.close() if self._mirror is not None else 0
        return StudyResult(self._ledger.directory, outcome, best, missed)

    def _write_results(self, best: TrialRecord | None) -> None:
        """The recipe, the figures and the page; all can be made again from the ledger."""
        from sngd_tune.search.importance import importances

        directory = self._ledger.directory
        try:
            if best is not None:
                objective = self._config.objectives[0]
                reached = f"{objective} {best.objectives[objective]:.6g}"
                origin = f"Best of study {self._config.name}: trial {best.trial}, {reached}"
                write_recipe(directory / "best.yaml", trial_config(best, self._config), origin)
            write_figures(directory)
            write_study_page(self._ledger, importances(self._config, past_trials(self._ledger)))
        except OSError as error:
            reason = f"{directory}: results cannot be written ({error.strerror or error}); every trial is in the ledger"
            raise LedgerError(f"{reason}: free space, then `sngd-tune resume`") from error

    def search(self) -> None:
        """Run the search trials that are still to run."""
        from sngd_tune.search.scheduler import make_scheduler
        from sngd_tune.search.searcher import StudySearcher

        past = past_trials(self._ledger)
        seconds = self._remaining_seconds()
        open_trials = self._config.search.trials - sum(trial.outcome.finished for trial in past)
        if open_trials <= 0 or (seconds is not None and seconds <= 0):
            return
        searcher = StudySearcher(self._config, past)
        try:
            scheduler = make_scheduler(self._config)
            self._runner.run("search", open_trials, searcher, scheduler, self.recorder, self._tune, seconds)
        finally:
            searcher.close()

    def _confirm(self) -> bool:
        """Train the winner and the default on fresh seeds; False where there is nothing to confirm, or one failed."""
        from ray.tune.schedulers import FIFOScheduler

        from sngd_tune.search.searcher import ListSearcher
        from sngd_tune.search.space import SearchSpace

        best = self.best
        if best is None:
            return False
        candidates = {"best": best.parameters}
        if self._config.confirm.baseline:
            candidates["default"] = SearchSpace(self._config).defaults()
        wanted = confirmations(self._config, candidates, self._config.confirm.seeds, self._ledger.trials())
        if wanted:
            self._runner.run("confirm", len(wanted), ListSearcher(wanted), FIFOScheduler(), self.recorder, self._tune)
        return not any(record.outcome.failed for record in self._ledger.trials() if record.phase == "confirm")

    @property
    def best(self) -> TrialRecord | None:
        """The winner of the search so far."""
        return next(iter(rank(self._ledger.trials(), self._config.objectives[0])), None)

    def _remaining_seconds(self) -> float | None:
        limit = self._config.search.seconds
        return None if limit is None else limit - busy_seconds(self._ledger.trials())

    @property
    def _tune(self) -> Path:
        return self._ledger.directory / "tune"


def _mirror(ledger: Ledger) -> Any:
    from sngd_tune.tracking.live import LiveMirror

    mlflow = ledger.config.mlflow
    return LiveMirror(ledger, mlflow.tracking_uri) if mlflow.enabled else None
