"""The one place where all of it meets: what a study needs is checked, its run is held, and the study is conducted.

Everything that can be wrong with the input is found before the run directory is made. Whatever stops a study, the
ledger has every finished trial, and `resume_study` goes on.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from sngd_tune.energy.watts import named_watts
from sngd_tune.records.events import StudyListener
from sngd_tune.records.study import StudyConfig
from sngd_tune.run_session import RunSession, new_run, resumed_run
from sngd_tune.runner import TrialRunner
from sngd_tune.sizing.resources import settle_resources
from sngd_tune.study_run import StudyResult, StudyRun
from sngd_tune.tracking.ledger import Ledger
from sngd_tune.workloads.registry import find_workload, load_data
from sngd_tune.workloads.workload import Splits

__all__ = ["check_optuna_storage", "load_splits", "module_folder", "resume_study", "run_study"]


def run_study(
    config: StudyConfig,
    directory: Path,
    *,
    address: str | None = None,
    working_dir: Path | None = None,
    wait: float = 0.0,
    listeners: Sequence[StudyListener] = (),
) -> StudyResult:
    """Run a study from the start, in a new run directory.

    Args:
        config: a study that `search.load.load_study` has checked.
        directory: the run directory, made where it does not exist.
        address: of a Ray cluster; None starts a local one.
        working_dir: folder with the user's own workload, which travels to the cluster; None: the current one.
        wait: seconds that an autoscaling cluster has for its nodes.
        listeners: told about trials and epochs on this thread.

    Raises:
        ConfigurationError: workload, data, cluster, resources, a storage or the run directory are not as they must be;
            nothing was started.
        StudyHeldError: another live process holds the directory or its copy in the storage.
        StudyStorageError: Optuna's storage went away and did not come back; `resume_study` goes on.
        LedgerError: the ledger cannot be written any more; finished trials are intact.
    """
    folder = module_folder([config.workload], working_dir)
    splits = load_splits(config)
    check_optuna_storage(config)
    named_watts()  # a wrong one is told here, and not by every trial
    with new_run(directory, config.storage, address, folder) as session:
        settled = settle_resources(config, splits, wait)
        return _conduct(Ledger.create(directory, config), settled, splits, session, listeners)


def resume_study(
    directory: Path,
    *,
    storage: str | None = None,
    data_dir: Path | None = None,
    address: str | None = None,
    working_dir: Path | None = None,
    wait: float = 0.0,
    listeners: Sequence[StudyListener] = (),
) -> StudyResult:
    """Go on with a study: finished trials count, interrupted ones run again from their checkpoint, the rest follows.

    What the copy in the storage has beyond the run directory, since the study went on elsewhere, is fetched first.

    Args:
        directory: the run directory.
        storage: where the copy lies by now; None: where the study was begun with.
        data_dir: where the same data lie on this machine; None: where the study was begun with.
        address: as for `run_study`.
        working_dir: as for `run_study`.
        wait: as for `run_study`.
        listeners: as for `run_study`.

    Raises: as `run_study`; and SchemaVersionError where another version wrote the ledger.
    """
    ledger = Ledger.open(directory)
    config = ledger.config
    folder = module_folder([config.workload], working_dir)
    here = config if data_dir is None else config.model_copy(update={"data_dir": str(data_dir)})
    splits = load_splits(here)
    check_optuna_storage(config)
    named_watts()  # a wrong one is told here, and not by every trial
    with resumed_run(directory, storage or config.storage, address, folder) as session:
        settled = settle_resources(config, splits, wait)
        return _conduct(ledger, settled, splits, session, listeners)


def _conduct(
    ledger: Ledger, settled: StudyConfig, splits: Splits, session: RunSession, listeners: Sequence[StudyListener]
) -> StudyResult:
    """The study itself, with its copy in the storage beside it.

    The ledger keeps the resources as the file has them: another cluster makes other numbers of ``auto``.
    """
    runner = TrialRunner(settled, splits, session.checkpoints())
    return session.conduct(StudyRun(ledger, runner, [*listeners, *session.listeners]).conduct)


def module_folder(workloads: Iterable[str], working_dir: Path | None = None) -> Path | None:
    """The folder with the user's own workloads, on Python's path from here on; None where all are ours."""
    own = [workload for workload in workloads if ":" in workload]
    folder = working_dir or Path.cwd()
    for workload in own:
        find_workload(workload, folder)
    return folder if own else None


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
    return splits.with_training(config.training_examples).with_validation(config.validation_examples)


def check_optuna_storage(config: StudyConfig) -> None:
    """Raise ConfigurationError where Optuna's storage cannot be used, or has another study under the shared name."""
    from sngd_tune.search.study_storage import check_study_storage

    check_study_storage(config)
