"""A study under way: search, confirmation, results.

The search runs; its winner, and the untuned default beside it, are trained again on seeds the search has not seen; the
recipe and the figures are written.
"""

import gc
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sngd_tune.checkpoints import CheckpointCleaner
from sngd_tune.confirmation import confirmations
from sngd_tune.errors import LedgerError, StudyStorageError
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
from sngd_tune.tracking.ledger import Ledger

__all__ = ["StudyResult", "StudyRun", "trial_config"]


@dataclass(frozen=True)
class StudyResult:
    """How a study ended.

    Attributes:
        directory: the run directory; everything else can be read from its ledger.
        outcome: ``"completed"``; ``"partial"`` where no trial completed or a confirmation is missing;
            ``"interrupted"`` after Ctrl-C.
        best: the winner of the search, by its validation objective; None where no trial completed.
        mirror_missed: records that MLflow still lacks; `sngd-tune sync` brings them.
        copy_missed: files that the copy in the storage still lacks; `sngd-tune resume` brings them.
    """

    directory: Path
    outcome: Literal["completed", "partial", "interrupted"]
    best: TrialRecord | None
    mirror_missed: int = 0
    copy_missed: int = 0


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
        cleaner = CheckpointCleaner(runner.checkpoints)
        watching = [*listeners, cleaner, *([self._mirror] if self._mirror is not None else [])]
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
            except StudyStorageError:
                self.finish("interrupted")
                raise
            # Tune cleans up after an Exception only. After Ctrl-C actors and placement groups go with the reference
            # cycle of its controller; until then they hold CPUs for which a `resume_study` in this process would wait.
            gc.collect()
        return self.finish(outcome)

    def finish(self, outcome: Literal["completed", "partial", "interrupted"]) -> StudyResult:
        """Write down what has been found, and bring the mirror up to it."""
        best = self.best
        self._write_results(best)
        if outcome == "completed":
            with suppress(OSError):
                self._runner.checkpoints.clear()  # they have served
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
        from sngd_tune.search.repeats import make_searcher
        from sngd_tune.search.scheduler import make_scheduler
        from sngd_tune.search.study_storage import open_study

        with open_study(self._config, self._ledger.manifest.study_id) as stored:
            # Even where nothing is left to run: Optuna hears what it missed when an earlier run was killed.
            searcher = make_searcher(self._config, past_trials(self._ledger), stored)
            open_trials, seconds = self._open_trials(), self._remaining_seconds()
            if open_trials > 0 and (seconds is None or seconds > 0):
                try:
                    scheduler = make_scheduler(self._config)
                    self._runner.run("search", open_trials, searcher, scheduler, self.recorder, seconds)
                finally:
                    searcher.close()
        if searcher.failure is not None and self._open_trials() > 0:
            raise searcher.failure

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
            searcher = ListSearcher(wanted, self._config.search.max_retries)
            self._runner.run("confirm", len(wanted), searcher, FIFOScheduler(), self.recorder)
        return not any(record.outcome.failed for record in self._ledger.trials() if record.phase == "confirm")

    @property
    def best(self) -> TrialRecord | None:
        """The winner of the search so far."""
        return next(iter(rank(self._ledger.trials(), self._config.objectives[0])), None)

    def _open_trials(self) -> int:
        """How many trainings of the search are still to be made or to be run again."""
        finished = sum(trial.outcome.finished for trial in past_trials(self._ledger))
        return self._config.search.trainings - finished

    def _remaining_seconds(self) -> float | None:
        limit = self._config.search.seconds
        return None if limit is None else limit - busy_seconds(self._ledger.trials())


def _mirror(ledger: Ledger) -> Any:
    from sngd_tune.tracking.live import LiveMirror

    mlflow = ledger.config.mlflow
    return LiveMirror(ledger, mlflow.tracking_uri) if mlflow.enabled else None
