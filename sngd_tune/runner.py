"""Trials on Ray Tune: what the studies of one workload have in common, and one phase of trials at a time."""

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sngd_tune.cluster.deaths import lost_calls_are_deaths
from sngd_tune.cluster.resources import bundle, trial_slots
from sngd_tune.cluster.session import import_path
from sngd_tune.gate import make_gate
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.study import StudyConfig
from sngd_tune.storage import Place
from sngd_tune.tracking.callback import Recorder
from sngd_tune.workloads.workload import Splits

if TYPE_CHECKING:
    from sngd_tune.search.retries import RetryingSearcher

__all__ = ["TrialRunner", "interrupt_on_terminate"]


class TrialRunner:
    """Runs trials of one workload; data and plan go into Ray's object store once, one copy per node. Ray is up.

    Args:
        config: a study; another one that differs in method and space alone may be run with the same runner.
        splits: data of its workload.
        checkpoints: where trials keep them, a folder that exists or an object store; on a cluster all nodes see it.
    """

    def __init__(self, config: StudyConfig, splits: Splits, checkpoints: Place) -> None:
        self.checkpoints = checkpoints
        self._search = config.search
        self._gate = make_gate()
        self._trainable = _trainable(config, splits, checkpoints, self._gate)

    def run(
        self,
        phase: str,
        trials: int,
        searcher: "RetryingSearcher",
        scheduler: Any,
        recorder: Recorder,
        seconds: float | None = None,
        at_a_time: int | None = None,
    ) -> None:
        """Run the trials of a phase to their end.

        Args:
            phase: its name, for the start gate.
            trials: how many there will be, at most.
            searcher: proposes them, those that were lost again; it says when there are no more.
            scheduler: Tune's early stopper.
            recorder: Tune's callback, which knows what happened to each trial.
            seconds: of wall-clock after which what still runs is stopped.
            at_a_time: trials at most that run at once; None: as many as there is room for.

        Raises:
            LedgerError: a record cannot be written.
        """
        from ray import tune

        slots = min(trial_slots(self._search.resources), at_a_time or trials)
        self._gate.expect.remote(phase, min(slots, trials))
        recorder.ask(searcher.on_trial_failed)
        outcome = Outcome.INTERRUPTED
        # Tune's own files serve nobody afterwards: trials keep their checkpoints themselves, the ledger keeps the rest.
        with tempfile.TemporaryDirectory(prefix="sngd_tune-", ignore_cleanup_errors=True) as storage:
            tuner = tune.Tuner(
                self._trainable,
                tune_config=tune.TuneConfig(
                    search_alg=searcher,
                    scheduler=scheduler,
                    num_samples=-1,
                    time_budget_s=seconds,
                    reuse_actors=True,
                    # One proposal ahead, so that an actor that comes free has its next trial at once; Tune would
                    # start it where there is room.
                    max_concurrent_trials=slots + (at_a_time is None),
                ),
                run_config=tune.RunConfig(
                    name=phase,
                    storage_path=storage,
                    callbacks=[recorder],
                    failure_config=tune.FailureConfig(max_failures=0),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    verbose=0,
                ),
            )
            try:
                with lost_calls_are_deaths():
                    tuner.fit()
                outcome = Outcome.STOPPED_EARLY
            finally:
                if recorder.failure is not None:
                    raise recorder.failure  # Ray hides what a callback raised behind an error of its own
                recorder.close(outcome)


def _trainable(config: StudyConfig, splits: Splits, checkpoints: Place, gate: Any) -> Any:
    import ray
    from ray import tune

    from sngd_tune.search.scheduler import decided_by, decisions
    from sngd_tune.trainables.distributed import DistributedTrainable
    from sngd_tune.trainables.plan import TrialPlan
    from sngd_tune.trainables.trial import TrialTrainable

    resources = config.search.resources
    wanted = bundle(resources)
    plan = TrialPlan(
        workload=config.workload,
        import_path=import_path(),
        epochs=config.epochs,
        seconds=config.seconds,
        epoch_examples=config.epoch_examples,
        checkpoints=checkpoints,
        checkpoint_seconds=config.search.checkpoint_seconds,
        threads=max(1, int(resources.cpus)),
        gpus=wanted.get("GPU", 0.0),
        decisions=decisions(config),
        decided_by=decided_by(config),
        gate=gate,
        noise=config.noise,
    )
    if resources.workers == 1:
        prepared = tune.with_parameters(TrialTrainable, plan=plan, splits=splits)
        return tune.with_resources(prepared, tune.PlacementGroupFactory([wanted]))
    prepared = tune.with_parameters(DistributedTrainable, plan=plan, splits=[ray.put(splits)])
    return tune.with_resources(prepared, tune.PlacementGroupFactory([{}, *[wanted] * resources.workers]))


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
