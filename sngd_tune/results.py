"""What the ledgers of a comparison say, put together and written down: JSON, page, figures, the run in MLflow."""

import json
import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from sngd_tune.history import past_trials
from sngd_tune.records.attempts import attempts_of, together
from sngd_tune.records.comparison import Cell
from sngd_tune.records.importance import Importance
from sngd_tune.report.comparison.figures import write_comparison_figures
from sngd_tune.report.comparison.page import write_comparison_page
from sngd_tune.report.comparison.summary import ComparisonReport, MethodResults, WorkloadResults, summarize_comparison
from sngd_tune.report.decision.decide import decide
from sngd_tune.report.decision.document import decision_dict, document
from sngd_tune.report.decision.economy import devices
from sngd_tune.report.decision.language import Language, LanguageCode
from sngd_tune.report.decision.page import write_decision_page
from sngd_tune.report.decision.values import Basis, Decision, Terms
from sngd_tune.report.setup import machine_section
from sngd_tune.search.importance import importances as find_importances
from sngd_tune.tracking.client import MirrorError
from sngd_tune.tracking.comparison import ComparisonManifest
from sngd_tune.tracking.files import replace_file
from sngd_tune.tracking.group import finish_group
from sngd_tune.tracking.ledger import Ledger
from sngd_tune.tracking.manifest import Manifest
from sngd_tune.tracking.mirror import SyncResult
from sngd_tune.tracking.sync import sync_study

__all__ = [
    "comparison_report",
    "comparison_results",
    "decision_report",
    "sync_comparison",
    "write_comparison",
    "write_page_of",
]

_log = logging.getLogger(__name__)

#: In a comparison's directory and, as artifacts, in its run in MLflow.
_REPORTS = ("report.json", "report.html", "decision.json", "decision.html")


def comparison_results(directory: Path, manifest: ComparisonManifest) -> list[WorkloadResults]:
    """What each workload's cells have so far; a cell that has not begun has no trials."""
    return [
        WorkloadResults(
            workload=budget.label,
            target=manifest.targets[budget.label],
            seconds=budget.seconds,
            confirm_seeds=manifest.config.confirm_seeds,
            methods={cell.method: _method(directory, cell) for cell in manifest.cells if cell.workload == budget.label},
        )
        for budget in manifest.config.workloads
    ]


def comparison_report(directory: Path) -> ComparisonReport:
    """The report of the comparison in `directory`, finished or not.

    Raises:
        ConfigurationError: no comparison is there.
        LedgerError: a file is damaged.
    """
    manifest = ComparisonManifest.read(directory)
    return _summary(manifest, comparison_results(directory, manifest))


def decision_report(directory: Path, terms: Terms) -> Decision:
    """The decision on the comparison in `directory`, finished or not. Raises as `comparison_report`."""
    manifest = ComparisonManifest.read(directory)
    results = comparison_results(directory, manifest)
    return decide(_summary(manifest, results), results, _basis(directory, manifest, results), terms)


def write_comparison(directory: Path, manifest: ComparisonManifest) -> int:
    """Write a comparison's reports and ``figures`` into its directory, and its result to MLflow.

    ``report.json`` and ``report.html`` are the comparison's, ``decision.json`` and ``decision.html`` the decision's on
    it, in English and without a rate or prices.

    Returns:
        records that MLflow could not take: 1 or 0.

    Raises:
        LedgerError: a file cannot be read or written.
    """
    results = comparison_results(directory, manifest)
    report = _summary(manifest, results)
    text = json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n"
    files = [replace_file(directory / "report.json", text.encode())]
    files.append(_page(directory, manifest, report, results, directory / "report.html"))
    files += _write_decision(directory, decide(report, results, _basis(directory, manifest, results), Terms()))
    files += write_comparison_figures(directory / "figures", report, results)
    return _mirror(directory, manifest, report, files)


def write_page_of(directory: Path, file: Path) -> Path:
    """Write the page of the comparison in `directory`, finished or not. Raises as `comparison_report`."""
    manifest = ComparisonManifest.read(directory)
    results = comparison_results(directory, manifest)
    return _page(directory, manifest, _summary(manifest, results), results, file)


def sync_comparison(directory: Path, tracking_uri: str | None = None) -> SyncResult:
    """Bring MLflow up to all ledgers of a comparison, and its result to its run.

    Args:
        directory: of the comparison.
        tracking_uri: MLflow store or server; default: what the comparison says, else SQLite beside its directory.

    Raises:
        ConfigurationError: no comparison is there, or the experiment was deleted in MLflow.
        LedgerError: a file is damaged.
        MirrorError: MLflow cannot be reached, or refuses a record.
    """
    directory = directory.absolute()
    manifest = ComparisonManifest.read(directory)
    begun = [cell for cell in manifest.cells if _ledger(directory, cell) is not None]
    synced = sum((sync_study(cell.directory(directory), tracking_uri) for cell in begun), SyncResult())
    files = [path for name in _REPORTS if (path := directory / name).is_file()]
    figures = sorted((directory / "figures").glob("*.png"))
    report = _summary(manifest, comparison_results(directory, manifest))
    finish_group(directory, manifest, report.scalars(), [*files, *figures], time.time(), tracking_uri)
    return synced


def _page(
    directory: Path,
    manifest: ComparisonManifest,
    report: ComparisonReport,
    results: Sequence[WorkloadResults],
    file: Path,
) -> Path:
    importances: dict[str, dict[str, Sequence[Importance]]] = {}
    machine = None
    for cell in manifest.cells:
        ledger = _ledger(directory, cell)
        if ledger is not None:
            found = find_importances(ledger.config, past_trials(ledger))
            importances.setdefault(cell.workload, {})[cell.method] = found
            machine = machine or machine_section(ledger, sorted({record.host for record in ledger.trials()}))
    return write_comparison_page(file, report, results, importances, machine)


def _write_decision(directory: Path, decision: Decision) -> list[Path]:
    told = document(decision, Language(LanguageCode.EN))
    text = json.dumps(decision_dict(decision, told), indent=2, ensure_ascii=False) + "\n"
    data = replace_file(directory / "decision.json", text.encode())
    return [data, write_decision_page(directory / "decision.html", told)]


def _basis(directory: Path, manifest: ComparisonManifest, results: Sequence[WorkloadResults]) -> Basis:
    ledgers = (_ledger(directory, cell) for cell in manifest.cells)
    first = next((ledger.manifest for ledger in ledgers if ledger is not None), None)
    methods = [method for workload in results for method in workload.methods.values()]
    records = [record for method in methods for record in method.trials]
    return Basis(
        machine=first.machine if first else None,
        hosts=tuple(sorted({record.host for record in records if record.host})),
        versions={"sngd_tune": manifest.code_version, **(first.versions if first else {})},
        created=manifest.created,
        trials=sum(record.phase == "search" for record in records),
        trainings=sum(record.phase == "confirm" for record in records),
        device_seconds=sum(devices(each.config) * _seconds(each) for each in methods),
        attempts=together(each.attempts for each in methods),
    )


def _seconds(method: MethodResults) -> float:
    """Of training, with what was lost and trained again."""
    return sum(each.training_seconds for each in method.trials) + sum(each.seconds for each in method.attempts.lost)


def _summary(manifest: ComparisonManifest, results: Iterable[WorkloadResults]) -> ComparisonReport:
    return summarize_comparison(manifest.config.name, manifest.config.candidate, list(results))


def _method(directory: Path, cell: Cell) -> MethodResults:
    ledger = _ledger(directory, cell)
    if ledger is None:
        return MethodResults(config=cell.study, trials=[], epochs={})
    trials = ledger.trials()
    attempts = attempts_of(trials, ledger.reports())
    return MethodResults(config=cell.study, trials=trials, epochs=ledger.epochs_by_trial(), attempts=attempts)


def _ledger(directory: Path, cell: Cell) -> Ledger | None:
    home = cell.directory(directory)
    return Ledger.open(home) if Manifest.present(home) else None


def _mirror(directory: Path, manifest: ComparisonManifest, report: ComparisonReport, files: list[Path]) -> int:
    if not manifest.config.mlflow.enabled:
        return 0
    try:
        finish_group(directory, manifest, report.scalars(), files, time.time())
    except MirrorError as error:
        _log.warning("%s", error)
        return 1
    return 0
