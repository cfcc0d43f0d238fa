"""A scaling study from its configuration to its result: how time, memory and progress go with size.

- One axis at a time is moved away from a base point (a grid moves two); nothing else changes, but for what the file's
  `follow` says. Settings are tuned anew only where `tune` says so: candidates are points of their own. Elsewhere losses
  and times to a target along an axis are those of the file's settings.
- Points that share a model, data and workers are a variant: an ordinary run directory, ``DIR/<variant>``.
- Trainings are interleaved, seed by seed, in each variant by variant, in each method by method: what else the machine
  does meets all points alike. A round of a variant starts a process (seconds).
- By default one trial runs at a time, so that none disturbs the times of another.
- A point whose model, optimizer and local Fisher layers are predicted to need more memory than there is is not tried;
  its trials are in the ledger as out of memory, with the figures. `resume` asks again: the cluster may be another.
"""

import gc
import logging
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sngd_tune.checkpoints import CheckpointCleaner
from sngd_tune.cluster.resources import wait_for_resources
from sngd_tune.launch import load_splits, module_folder
from sngd_tune.records.events import StudyListener
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.scaling import PlannedPoint, ScalingConfig, Variant
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.run_session import RunSession, new_run, resumed_run
from sngd_tune.runner import TrialRunner, interrupt_on_terminate
from sngd_tune.scaling_check import check_scaling, refusal
from sngd_tune.scaling_results import write_scaling
from sngd_tune.search.seeds import derive_seed
from sngd_tune.tracking.ledger import Ledger
from sngd_tune.tracking.live_scaling import LiveScaling
from sngd_tune.tracking.manifest import Manifest
from sngd_tune.tracking.provenance import code_version
from sngd_tune.tracking.scaling import ScalingManifest

__all__ = ["ScalingResult", "resume_scaling", "run_scaling"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScalingResult:
    """How a scaling study ended.

    Attributes:
        directory: everything else can be read from there.
        outcome: ``"completed"``; ``"partial"`` where a training failed or a point does not fit; ``"interrupted"`` after
            Ctrl-C.
        mirror_missed: records that MLflow still lacks.
        copy_missed: files that the copy in the storage still lacks.
    """

    directory: Path
    outcome: Literal["completed", "partial", "interrupted"]
    mirror_missed: int = 0
    copy_missed: int = 0


def run_scaling(
    config: ScalingConfig,
    directory: Path,
    *,
    address: str | None = None,
    working_dir: Path | None = None,
    wait: float = 0.0,
    listeners: Sequence[StudyListener] = (),
) -> ScalingResult:
    """Run a scaling study from the start, in a new directory.

    Args:
        config: that `search.scaling.load_scaling` has checked.
        directory: made where it does not exist.
        address: of a Ray cluster; None starts a local one.
        working_dir: as for `run_study`.
        wait: as for `run_study`.
        listeners: told about trials and epochs of all variants on this thread.

    Raises:
        ConfigurationError: workload, data, points, resources, the storage or the directory are not as they must be;
            nothing was started.
        StudyHeldError: another live process holds the directory or its copy in the storage.
        LedgerError: a ledger cannot be written any more; finished trials are intact.
    """
    folder = module_folder([config.workload], working_dir)
    manifest = check_scaling(config)
    with new_run(directory, config.storage, address, folder) as session:
        _await_resources(manifest, wait)
        manifest.write(directory)
        return _Scaling(session, manifest, listeners).conduct()


def resume_scaling(
    directory: Path,
    *,
    storage: str | None = None,
    data_dir: Path | None = None,
    address: str | None = None,
    working_dir: Path | None = None,
    wait: float = 0.0,
    listeners: Sequence[StudyListener] = (),
) -> ScalingResult:
    """Go on with a scaling study: finished trials count, the rest follows.

    Args: as for `resume_study`.

    Raises: as `run_scaling`; and SchemaVersionError where another version wrote it.
    """
    manifest = ScalingManifest.read(directory).with_data(data_dir)
    folder = module_folder([manifest.config.workload], working_dir)
    with resumed_run(directory, storage or manifest.config.storage, address, folder) as session:
        _await_resources(manifest, wait)
        return _Scaling(session, manifest, listeners).conduct()


class _Scaling:
    """A scaling study under way."""

    def __init__(self, session: RunSession, manifest: ScalingManifest, listeners: Sequence[StudyListener]) -> None:
        self._session = session
        self._directory = session.directory
        self._manifest = manifest
        self._points = {point.name: point for point in manifest.points}
        self._live = LiveScaling(self._directory, manifest) if manifest.config.mlflow.enabled else None
        self._listeners = [*listeners, *session.listeners, *([self._live] if self._live is not None else [])]
        self._runners: dict[str, TrialRunner] = {}

    def conduct(self) -> ScalingResult:
        """All of it, with its copy in the storage beside it."""
        return self._session.conduct(self._all, self._manifest.folders(self._directory))

    def _all(self) -> ScalingResult:
        """All rounds; then the result."""
        outcome: Literal["completed", "partial", "interrupted"] = "completed"
        with interrupt_on_terminate():
            try:
                if self._live is not None:
                    self._live.settle()  # else the store is made beside trainings that are timed
                for variant, seeds in _rounds(self._manifest):
                    self._train(variant, seeds)
                if not all(map(self._sound, self._manifest.variants)):
                    outcome = "partial"
            except KeyboardInterrupt:
                outcome = "interrupted"
            gc.collect()  # after Ctrl-C, Tune's actors hold CPUs until then
        missed = write_scaling(self._directory, self._manifest, self._live)
        return ScalingResult(self._directory, outcome, missed)

    def _train(self, variant: Variant, seeds: range) -> None:
        """What is still to be trained of a variant in a round."""
        ledger = self._ledger(variant)
        points = [self._points[name] for name in variant.points]
        refused = {point.name: reason for point in points if (reason := refusal(variant, point)) is not None}
        wanted = _wanted(variant, points, seeds, ledger.trials())
        for config in wanted:
            if config["candidate"] in refused:
                self._refuse(ledger, config, refused[config["candidate"]])
        self._run(variant, ledger, [config for config in wanted if config["candidate"] not in refused])

    def _sound(self, variant: Variant) -> bool:
        """Whether every training of a variant counts; what does not fit does not."""
        ledger = self._ledger(variant)
        sound = all(map(self._counts, ledger.trials()))
        if sound:
            with suppress(OSError):
                self._session.checkpoints(variant.name).clear()  # they have served
        return sound

    def _counts(self, record: TrialRecord) -> bool:
        """Whether a training did what it was for; a candidate that diverges has answered."""
        answered = record.outcome is Outcome.DIVERGED and bool(self._points[str(record.candidate)].tuned)
        return answered or record.outcome is Outcome.COMPLETED

    def _run(self, variant: Variant, ledger: Ledger, wanted: Sequence[Mapping[str, Any]]) -> None:
        from ray.tune.schedulers import FIFOScheduler

        from sngd_tune.search.searcher import ListSearcher
        from sngd_tune.tracking.callback import LedgerCallback

        if not wanted:
            return
        runner = self._runner(variant)
        recorder = LedgerCallback(ledger, [*self._listeners, CheckpointCleaner(runner.checkpoints)])
        searcher = ListSearcher(wanted, variant.study.search.max_retries)
        at_a_time = variant.trials_at_a_time
        runner.run("scale", len(wanted), searcher, FIFOScheduler(), recorder, at_a_time=at_a_time)

    def _runner(self, variant: Variant) -> TrialRunner:
        """One a variant: Ray's object store never lets go of its data."""
        if variant.name not in self._runners:
            place = self._session.checkpoints(variant.name)
            self._runners[variant.name] = TrialRunner(variant.study, load_splits(variant.study), place)
        return self._runners[variant.name]

    def _ledger(self, variant: Variant) -> Ledger:
        directory = self._directory / variant.name
        return Ledger.open(directory) if Manifest.present(directory) else Ledger.create(directory, variant.study)

    def _refuse(self, ledger: Ledger, config: Mapping[str, Any], reason: str) -> None:
        """Record that a trial is not tried."""
        now = time.time()
        record = TrialRecord(
            study=config["study"],
            workload=ledger.config.workload,
            **{key: config[key] for key in ("trial", "number", "phase", "candidate", "parameters", "seed", "attempt")},
            outcome=Outcome.OUT_OF_MEMORY,
            started=now,
            updated=now,
            ended=now,
            error=reason,
            code_version=code_version(),
            host=socket.gethostname(),
        )
        ledger.write_trial(record)
        for listener in self._listeners:
            listener.trial_started(record)
            listener.trial_finished(record)


def _rounds(manifest: ScalingManifest) -> Iterator[tuple[Variant, range]]:
    """As many seeds at once as trials run at a time."""
    seeds = manifest.config.seeds
    for first in range(seeds):
        for variant in manifest.variants:
            if first % variant.trials_at_a_time == 0:
                yield variant, range(first, min(seeds, first + variant.trials_at_a_time))


def _wanted(
    variant: Variant, points: Sequence[PlannedPoint], seeds: range, past: Sequence[TrialRecord]
) -> list[dict[str, Any]]:
    """Tune configs of the trainings that are still to run, seed by seed; the seeds are the same at all points."""
    study, done = variant.study, {record.trial: record for record in past}
    wanted = []
    for seed in seeds:
        for point in points:
            before = done.get(f"{point.name}.{seed}")
            if before is None or not before.outcome.finished or before.outcome is Outcome.OUT_OF_MEMORY:
                config = {
                    "study": study.name,
                    "trial": f"{point.name}.{seed}",
                    "number": seed,
                    "phase": "confirm",
                    "candidate": point.name,
                    "parameters": dict(point.parameters),
                    "seed": derive_seed(study.search.seed, "scale", seed),
                    "attempt": 0 if before is None else before.attempt + 1,
                    "resume": before is not None,
                    "epochs_known": 0 if before is None else before.epochs,
                }
                wanted.append(config)
    return wanted


def _await_resources(manifest: ScalingManifest, wait: float) -> None:
    for variant in manifest.variants:
        wait_for_resources(variant.study.search.resources, wait, _log.info)
