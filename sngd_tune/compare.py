"""A comparison from its configuration to its result: methods on workloads, under budgets that are equal.

What makes it one (after AlgoPerf, Dahl et al. 2023, and Choi et al. 2019):

- every method has one published space for all workloads, the same number of trials, the same sampler, early stopper and
  seeds, and each training, of a search or of a winner, the same seconds (evaluation not counted): a method with dearer
  steps takes fewer of them;
- two winners of each search are trained again on seeds that it has not seen, the same for all methods: the best by the
  objective, which the test metric at the end of the budget is of, and the one that reached the target first, which
  time and steps to the target are of;
- these trainings are interleaved, seed by seed and method by method: what else the machine does meets all alike.

A cell is an ordinary study in ``DIR/<workload>/<method>``; `resume` repeats no finished trial.
"""

import gc
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sngd_tune.cluster.resources import wait_for_resources
from sngd_tune.confirmation import confirmations
from sngd_tune.energy.watts import named_watts
from sngd_tune.errors import ConfigurationError
from sngd_tune.launch import check_optuna_storage, load_splits, module_folder
from sngd_tune.records.comparison import Cell, ComparisonConfig, WorkloadBudget
from sngd_tune.records.events import StudyListener
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.ranking import winners
from sngd_tune.records.target import Target
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.results import write_comparison
from sngd_tune.run_session import RunSession, new_run, resumed_run
from sngd_tune.runner import TrialRunner, interrupt_on_terminate
from sngd_tune.study_run import StudyRun
from sngd_tune.tracking.comparison import ComparisonManifest
from sngd_tune.tracking.ledger import Ledger
from sngd_tune.tracking.manifest import Manifest
from sngd_tune.tracking.routing import RoutingCallback
from sngd_tune.workloads.registry import find_workload
from sngd_tune.workloads.workload import Splits

__all__ = ["ComparisonResult", "check_comparison", "past_records", "resume_comparison", "run_comparison"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ComparisonResult:
    """How a comparison ended.

    Attributes:
        directory: everything else can be read from there.
        outcome: ``"completed"``; ``"partial"`` where a method has no winner, or a winner's training failed;
            ``"interrupted"`` after Ctrl-C.
        mirror_missed: records that MLflow still lacks.
        copy_missed: files that the copy in the storage still lacks.
    """

    directory: Path
    outcome: Literal["completed", "partial", "interrupted"]
    mirror_missed: int = 0
    copy_missed: int = 0


def run_comparison(
    config: ComparisonConfig,
    cells: Sequence[Cell],
    directory: Path,
    *,
    address: str | None = None,
    working_dir: Path | None = None,
    wait: float = 0.0,
    listeners: Sequence[StudyListener] = (),
) -> ComparisonResult:
    """Run a comparison from the start, in a new directory.

    Args:
        config: a comparison that `search.comparison.load_comparison` has checked.
        cells: its studies.
        directory: made where it does not exist.
        address: of a Ray cluster; None starts a local one.
        working_dir: as for `run_study`.
        wait: as for `run_study`.
        listeners: told about trials and epochs of all cells on this thread.

    Raises:
        ConfigurationError: a workload, its data, its target, resources, a storage or the directory are not as they must
            be; nothing was started.
        StudyHeldError: another live process holds the directory or its copy in the storage.
        LedgerError: a ledger cannot be written any more; finished trials are intact.
    """
    folder = module_folder((budget.workload for budget in config.workloads), working_dir)
    targets = check_comparison(config, cells)
    check_optuna_storage(cells[0].study)
    named_watts()  # a wrong one is told here, and not by every trial
    manifest = ComparisonManifest.new(config, targets, cells)
    with new_run(directory, config.storage, address, folder) as session:
        wait_for_resources(config.search.resources, wait, _log.info)
        manifest.write(directory)
        return _Comparison(session, manifest, listeners).conduct()


def check_comparison(config: ComparisonConfig, cells: Sequence[Cell]) -> dict[str, Target]:
    """The target of each workload, once all data is known to be there and as any method needs it.

    Raises:
        ConfigurationError: a workload, its data or its target is not as it must be.
    """
    targets = {budget.label: _target(budget) for budget in config.workloads}
    for budget in config.workloads:
        _load(targets[budget.label], _cells_of(budget, cells))
    return targets


def resume_comparison(
    directory: Path,
    *,
    storage: str | None = None,
    data_dir: Path | None = None,
    address: str | None = None,
    working_dir: Path | None = None,
    wait: float = 0.0,
    listeners: Sequence[StudyListener] = (),
) -> ComparisonResult:
    """Go on with a comparison: finished trials count, the rest follows.

    Args: as for `resume_study`.

    Raises: as `run_comparison`; and SchemaVersionError where another version wrote it.
    """
    manifest = ComparisonManifest.read(directory).with_data(data_dir)
    config = manifest.config
    folder = module_folder((budget.workload for budget in config.workloads), working_dir)
    check_optuna_storage(manifest.cells[0].study)
    named_watts()  # a wrong one is told here, and not by every trial
    with resumed_run(directory, storage or config.storage, address, folder) as session:
        wait_for_resources(config.search.resources, wait, _log.info)
        return _Comparison(session, manifest, listeners).conduct()


def past_records(directory: Path) -> list[TrialRecord]:
    """The trials of all cells that have begun."""
    ledgers = (
        Ledger.open(cell.directory(directory))
        for cell in ComparisonManifest.read(directory).cells
        if Manifest.present(cell.directory(directory))
    )
    return [record for ledger in ledgers for record in ledger.trials()]


class _Comparison:
    """A comparison under way."""

    def __init__(self, session: RunSession, manifest: ComparisonManifest, listeners: Sequence[StudyListener]) -> None:
        self._session = session
        self._directory = session.directory
        self._manifest = manifest
        self._listeners = [*listeners, *session.listeners]
        self._missed = 0

    def conduct(self) -> ComparisonResult:
        """All of it, with its copy in the storage beside it."""
        return self._session.conduct(self._all, self._manifest.folders(self._directory))

    def _all(self) -> ComparisonResult:
        """All workloads, one after another; then the result."""
        outcome: Literal["completed", "partial", "interrupted"] = "completed"
        with interrupt_on_terminate():
            try:
                sound = [self._workload(budget) for budget in self._manifest.config.workloads]
                if not all(sound):
                    outcome = "partial"
            except KeyboardInterrupt:
                outcome = "interrupted"
            gc.collect()  # after Ctrl-C, Tune's actors hold CPUs until then
        self._missed += write_comparison(self._directory, self._manifest)
        return ComparisonResult(self._directory, outcome, self._missed)

    def _workload(self, budget: WorkloadBudget) -> bool:
        """Search with each method, then train the winners again; False where one is missing or failed."""
        cells = _cells_of(budget, self._manifest.cells)
        target = self._manifest.targets[budget.label]
        ledgers = [self._ledger(cell) for cell in cells]
        runner = TrialRunner(cells[0].study, _load(target, cells), self._session.checkpoints(budget.label))
        outcome: Literal["completed", "interrupted"] = "interrupted"
        with ExitStack() as finishing:
            runs = [StudyRun(ledger, runner, self._listeners) for ledger in ledgers]
            finishing.callback(lambda: self._finish(runs, outcome))
            for run in runs:
                run.settle()
            for run in runs:
                run.search()
            self._confirm(budget, runner, ledgers, runs)
            outcome = "completed"
        return all(_sound(ledger) for ledger in ledgers)

    def _ledger(self, cell: Cell) -> Ledger:
        directory = cell.directory(self._directory)
        return Ledger.open(directory) if Manifest.present(directory) else Ledger.create(directory, cell.study)

    def _confirm(
        self, budget: WorkloadBudget, runner: TrialRunner, ledgers: Sequence[Ledger], runs: Sequence[StudyRun]
    ) -> None:
        from ray.tune.schedulers import FIFOScheduler

        from sngd_tune.search.searcher import ListSearcher

        target, seeds = self._manifest.targets[budget.label], self._manifest.config.confirm_seeds
        wanted = list(_interleaved([_wanted(ledger, target, seeds) for ledger in ledgers]))
        if wanted:
            recorder = RoutingCallback(
                {ledger.config.name: run.recorder for ledger, run in zip(ledgers, runs, strict=True)}
            )
            searcher = ListSearcher(wanted, ledgers[0].config.search.max_retries)
            runner.run("confirm", len(wanted), searcher, FIFOScheduler(), recorder)

    def _finish(self, runs: Sequence[StudyRun], outcome: Literal["completed", "interrupted"]) -> None:
        self._missed += sum(run.finish(outcome).mirror_missed for run in runs)


def _wanted(ledger: Ledger, target: Target, seeds: int) -> list[dict[str, Any]]:
    """Trainings of a cell's winners that are still to run."""
    records = ledger.trials()
    chosen = winners(records, ledger.epochs_by_trial(), ledger.config.objectives[0], target)
    parameters = {candidate: record.parameters for candidate, record in chosen.items()}
    return confirmations(ledger.config, parameters, seeds, records)


def _interleaved(by_method: Sequence[Sequence[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Seed by seed, in each candidate by candidate, in each method by method."""
    every = [(entry["number"], entry["candidate"], i, entry) for i, group in enumerate(by_method) for entry in group]
    yield from (entry for *_, entry in sorted(every, key=lambda item: item[:3]))


def _sound(ledger: Ledger) -> bool:
    """Whether a cell has a winner whose trainings all completed."""
    confirmed = [record for record in ledger.trials() if record.phase == "confirm"]
    return bool(confirmed) and all(record.outcome is Outcome.COMPLETED for record in confirmed)


def _cells_of(budget: WorkloadBudget, cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.workload == budget.label]


def _target(budget: WorkloadBudget) -> Target:
    if budget.target is not None:
        return budget.target.target()
    own = find_workload(budget.workload).target
    if own is None:
        raise ConfigurationError(
            f"workload={budget.workload!r}: has no target; name one in the file: target: {{metric: validation_loss, "
            "value: …}"
        )
    return own


def _load(target: Target, cells: Sequence[Cell]) -> Splits:
    """The data of a workload, checked against what any of its methods needs."""
    fishers = {kind for cell in cells for kind in cell.study.fishers}
    patterns = {pattern for cell in cells for pattern in cell.study.patterns}
    return load_splits(cells[0].study, {target.metric}, fishers, patterns)
