"""Trials on Ray Tune: what the studies of one workload have in common, and one phase of trials at a time."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sngd_tune.cluster import trial_slots
from sngd_tune.gate import make_gate
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.study import StudyConfig
from sngd_tune.tracking.callback import Recorder
from sngd_tune.workloads.workload import Splits

__all__ = ["TrialRunner", "interrupt_on_terminate"]


class TrialRunner:
    """Runs trials of one workload; data and plan go into Ray's object store once, one copy per node. Ray is up.

    Args:
        config: a study; another one that differs in method and space alone may be run with the same runner.
        splits: data of its workload.
    """

    def __init__(self, config: StudyConfig, splits: Splits) -> None:
        self._search = config.search
        self._gate = make_gate()
        self._trainable = _trainable(config, splits, self._gate)

    def run(
        self,
        phase: str,
        trials: int,
        searcher: Any,
        scheduler: Any,
        recorder: Recorder,
        storage: Path,
        seconds: float | None = None,
    ) -> None:
        """Run the trials of a phase to their end.

        Args:
            phase: its name, for the start gate and for Tune's folder.
            trials: how many there will be, at most.
            searcher: proposes them; it says when there are no more.
            scheduler: Tune's early stopper.
            recorder: Tune's callback, which knows what happened to each trial.
            storage: folder for Tune's own files.
            seconds: of wall-clock after which what still runs is stopped.

        Raises:
            LedgerError: a record cannot be written.
        """
        from ray import tune

        slots = trial_slots(self._search.resources)
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
                storage_path=str(storage),
                callbacks=[recorder],
                failure_config=tune.FailureConfig(max_failures=self._search.max_retries),
                checkpoint_config=tune.CheckpointConfig(num_to_keep=2, checkpoint_at_end=False),
                verbose=0,
            ),
        )
        outcome = Outcome.INTERRUPTED
        try:
            tuner.fit()
            outcome = Outcome.STOPPED_EARLY
        finally:
            if recorder.failure is not None:
                raise recorder.failure  # Ray hides what a callback raised behind an error of its own
            recorder.close(outcome)


def _trainable(config: StudyConfig, splits: Splits, gate: Any) -> Any:
    from ray import tune

    from sngd_tune.search.scheduler import decided_by, decisions
    from sngd_tune.trainables import TrialPlan, TrialTrainable

    resources = config.search.resources
    plan = TrialPlan(
        workload=config.workload,
        import_path=str(Path.cwd()),
        epochs=config.epochs,
        seconds=config.seconds,
        epoch_examples=config.epoch_examples,
        checkpoint_seconds=config.search.checkpoint_seconds,
        threads=max(1, int(resources.cpus)),
        decisions=decisions(config),
        decided_by=decided_by(config),
        gate=gate,
    )
    prepared = tune.with_parameters(TrialTrainable, plan=plan, splits=splits)
    return tune.with_resources(prepared, {"cpu": resources.cpus, "gpu": resources.gpus})


@contextmanager
def interrupt_on_terminate() -> Iterator[None]:
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
