"""The mirror of a ledger in MLflow: a parent run per study, a child run per trial, every record exactly once.

What makes replays harmless:

- a run is found by its tags, ``sngd_tune.study_id`` and ``sngd_tune.trial``;
- an epoch is one batch whose last metric, ``epoch``, marks it complete, and a step that has the mark is not sent again;
- the timestamp comes from the record: a batch that arrives twice after all (its request timed out, but landed) meets
  its own primary key in MLflow's store (key, timestamp, step, run, value) and changes nothing;
- of two runs that an ambiguous creation left behind, the one with more epochs stays, and the other is deleted.

An attempt that repeats epochs after a lost process adds only the steps that MLflow does not have: metrics there cannot
be taken back. The ledger keeps both.
"""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.tracking.entries import (
    epoch_metrics,
    parameters,
    run_name,
    run_status,
    study_metrics,
    study_note,
    study_status,
    trial_tags,
)
from sngd_tune.tracking.group import artifacts_beside, ensure_group, store_uri
from sngd_tune.tracking.ledger import Ledger
from sngd_tune.tracking.manifest import Manifest
from sngd_tune.tracking.store import EPOCHS_TAG, STUDY_TAG, TRIAL_TAG, Run, RunStore

__all__ = ["Mirror", "SyncResult"]


@dataclass(frozen=True, kw_only=True)
class SyncResult:
    """What a reconciliation did: records (epochs and outcomes) that it wrote, and that were there already."""

    written: int = 0
    already: int = 0

    def __add__(self, other: "SyncResult") -> "SyncResult":
        return SyncResult(written=self.written + other.written, already=self.already + other.already)


class Mirror:
    """Writes the records of one study to MLflow. Every method may be repeated at will; one thread at a time.

    Every method raises `MirrorError` where MLflow is not there or refuses a record, and ConfigurationError where the
    experiment was deleted in MLflow.

    Args:
        directory: the run directory of the study.
        manifest: its manifest.
        tracking_uri: MLflow store or server; default: what the study says, else SQLite beside the run directory, with
            the artifacts in ``mlartifacts`` next to it. A study of a comparison is a child of the comparison's run.
    """

    def __init__(self, directory: Path, manifest: Manifest, tracking_uri: str | None = None) -> None:
        self._directory = directory
        self._manifest = manifest
        self._config = manifest.study_config()
        self.tracking_uri = store_uri(directory, self._config.mlflow, tracking_uri)
        self._store_or_none: RunStore | None = None
        self._runs: dict[str, Run] | None = None  # by trial; the parent under ""

    def ensure_parent(self) -> str:
        """The parent run of the study, made and opened where needed; its id."""
        run = self._parent()
        self._store.set_status(run, "RUNNING")
        return run.run_id

    def ensure_trial(self, record: TrialRecord) -> str:
        """The run of a trial, made where it does not exist and opened again where an attempt runs; its id."""
        run = self._trial(record)
        if record.outcome is Outcome.RUNNING:
            self._store.set_tags(run, trial_tags(record))
            self._store.set_status(run, "RUNNING")
        return run.run_id

    def log_epoch(self, record: TrialRecord, metrics: EpochMetrics, time: float) -> bool:
        """Write an epoch that arrived at `time` (UTC, Unix seconds); False where it was there already."""
        return self._store.log_step(self._trial(record), epoch_metrics(metrics), metrics.epoch, time)

    def finish_trial(self, record: TrialRecord) -> bool:
        """Write the outcome of a trial; False where it was there already."""
        run = self._trial(record)
        # What the run has is known where it was made or read in this process; else the tag stays for reconcile to set.
        epochs = {} if run.steps is None else {EPOCHS_TAG: _extent(run.steps)}
        tags, status = {**trial_tags(record), **epochs}, run_status(record.outcome)
        if run.status == status and all(run.tags.get(key) == value for key, value in tags.items()):
            return False
        self._store.set_tags(run, tags)
        self._store.set_status(run, status, record.ended)
        return True

    def finish_study(self, trials: Sequence[TrialRecord]) -> None:
        """Send page, figures and best settings, count the outcomes, and end the parent unless trials still run."""
        parent = self._parent()
        outcomes = [record.outcome for record in trials]
        self._log_artifacts(parent)
        counts = {f"trials.{outcome}": outcomes.count(outcome) for outcome in Outcome}
        # A count of nothing is worth a tag only where it replaces another.
        self._store.set_tags(parent, {tag: str(n) for tag, n in counts.items() if n or tag in parent.tags})
        ended = max((record.ended or record.updated for record in trials), default=self._manifest.created)
        self._store.log_metrics(parent, study_metrics(self._config.objectives[0], trials), ended)
        self._store.set_status(parent, study_status(set(outcomes)), ended)

    def reconcile(self, ledger: Ledger, progress: Callable[[], None] = lambda: None) -> SyncResult:
        """Bring MLflow up to the ledger, whatever it has so far; `progress` is called after each trial.

        Raises:
            LedgerError: the ledger is damaged.
        """
        self.forget()
        trials = ledger.trials()
        epochs: dict[str, list[tuple[float, EpochMetrics]]] = {record.trial: [] for record in trials}
        for trial, time, metrics in ledger.epoch_metrics():
            # Between reading the trials and reading the epochs a running study may have added a trial.
            epochs.setdefault(trial, []).append((time, metrics))
        result = SyncResult()
        for record in trials:
            result += self._reconcile_trial(record, epochs[record.trial])
            progress()
        self.finish_study(trials)
        return result

    def forget(self) -> None:
        """Drop what is remembered of MLflow's state: after an error nobody knows whether the last write landed."""
        self._runs = None

    def _reconcile_trial(self, record: TrialRecord, epochs: Sequence[tuple[float, EpochMetrics]]) -> SyncResult:
        run, steps = self._trial(record), {metrics.epoch for _, metrics in epochs}
        if run.steps is None and run.tags.get(EPOCHS_TAG) == _extent(steps):
            run.steps = steps
        self.ensure_trial(record)
        writes = [self.log_epoch(record, metrics, time) for time, metrics in epochs]
        if record.outcome is not Outcome.RUNNING:
            writes.append(self.finish_trial(record))
        return SyncResult(written=sum(writes), already=len(writes) - sum(writes))

    @property
    def _store(self) -> RunStore:
        if self._store_or_none is None:
            config = self._config.mlflow
            # A server decides where its artifacts go; beside a database file there is only the current directory.
            artifacts = artifacts_beside(self._directory, config, self.tracking_uri)
            self._store_or_none = RunStore(self.tracking_uri, config.experiment or self._config.name, artifacts)
        return self._store_or_none

    def _known_runs(self) -> dict[str, Run]:
        """The runs of the study by trial, read once; copies that an ambiguous creation left are deleted."""
        if self._runs is None:
            found: dict[str, Run] = {}
            for run in sorted(self._store.runs(self._manifest.study_id), key=lambda run: (-run.last_step, run.run_id)):
                trial = run.tags.get(TRIAL_TAG, "")
                if trial in found:
                    self._store.delete(run)
                else:
                    found[trial] = run
            self._runs = found
        return self._runs

    def _parent(self) -> Run:
        runs = self._known_runs()
        if "" not in runs:
            runs[""] = self._store.create(self._parent_name(), self._parent_tags(), self._manifest.created)
        if "workload" not in runs[""].parameters:
            # The configuration goes first: the parameters say that it is there.
            self._store.log_text(runs[""], self._manifest.public_json(), "study.json")
            self._store.log_parameters(runs[""], self._parent_parameters())
        return runs[""]

    def _trial(self, record: TrialRecord) -> Run:
        runs, values = self._known_runs(), parameters(record.parameters)
        known = runs.get(record.trial)
        if known is not None and any(known.parameters.get(key, value) != value for key, value in values.items()):
            # A resumed search has found another winner, so this confirmation trains something else; MLflow lets no
            # parameter change.
            self._store.delete(known)
            del runs[record.trial]
        if record.trial not in runs:
            own = {STUDY_TAG: self._manifest.study_id, TRIAL_TAG: record.trial}
            place = {"mlflow.parentRunId": self._parent().run_id, "mlflow.source.name": "sngd-tune"}
            tags = {**own, **place, **trial_tags(record)}
            runs[record.trial] = self._store.create(run_name(record), tags, record.started)
        self._store.log_parameters(runs[record.trial], values)
        return runs[record.trial]

    def _parent_name(self) -> str:
        """The run directory's name, which tells the studies of one experiment apart, and the study's own."""
        if self._config.mlflow.group is not None:
            return self._config.name  # the comparison's run is above it
        study, directory = self._config.name, self._directory.name
        return directory if directory.startswith(study) else f"{study} {directory}"

    def _parent_tags(self) -> dict[str, str]:
        group = self._config.mlflow.group
        place = {"mlflow.parentRunId": ensure_group(self._store, group).run_id} if group is not None else {}
        return {
            **place,
            STUDY_TAG: self._manifest.study_id,
            "role": "study",
            "study": self._config.name,
            "workload": self._config.workload,
            "code_version": self._manifest.code_version,
            "mlflow.note.content": study_note(self._config),
            "mlflow.source.name": "sngd-tune",
        }

    def _parent_parameters(self) -> dict[str, str]:
        config, search = self._config, self._config.search
        values = {"workload": config.workload, "objectives": ", ".join(config.objectives), "epochs": config.epochs}
        values |= {"sampler": search.sampler, "trials": search.trials, "seed": search.seed}
        return parameters({**values, "scheduler": config.scheduler.name})

    def _log_artifacts(self, parent: Run) -> None:
        for name in ("best.yaml", "report.html"):
            if (self._directory / name).is_file():
                self._store.log_file(parent, self._directory / name)
        for figure in sorted((self._directory / "figures").glob("*.png")):
            self._store.log_file(parent, figure, "figures")


def _extent(steps: Set[int]) -> str:
    """Count and last of the steps; they count from 1, so where both agree the steps do."""
    return f"{len(steps)}/{max(steps, default=0)}"
