"""What the ledgers of a scaling study say, put together and written down: JSON, page, figures, the runs in MLflow."""

import json
from pathlib import Path
from typing import Any

from sngd_tune.report.page import Section
from sngd_tune.report.scaling.figures import write_scaling_figures
from sngd_tune.report.scaling.laws import critical_batches, worker_scalings
from sngd_tune.report.scaling.page import write_scaling_page
from sngd_tune.report.scaling.summary import summarize_scaling
from sngd_tune.report.scaling.values import ScalingReport
from sngd_tune.report.setup import machine_section
from sngd_tune.tracking.files import replace_file
from sngd_tune.tracking.live_scaling import LiveScaling
from sngd_tune.tracking.mirror import SyncResult
from sngd_tune.tracking.scaling import ScalingManifest
from sngd_tune.tracking.scaling_runs import Findings, ScalingMirror
from sngd_tune.tracking.trainings import trainings_of, variant_ledger

__all__ = ["scaling_report", "sync_scaling", "write_page_of_scaling", "write_scaling"]


def scaling_report(directory: Path) -> ScalingReport:
    """The report of the scaling study in `directory`, finished or not.

    Raises:
        ConfigurationError: none is there.
        LedgerError: a file is damaged.
    """
    return _report(directory, ScalingManifest.read(directory))


def write_scaling(directory: Path, manifest: ScalingManifest, live: LiveScaling | None) -> int:
    """Write ``scaling.json``, ``fits.json``, ``scaling.html`` and ``figures``, and end the runs in MLflow.

    Args:
        directory: of the study.
        manifest: of the study.
        live: what has shown it in MLflow so far, if anything has.

    Returns:
        records that MLflow could not take.

    Raises:
        LedgerError: a file cannot be read or written.
    """
    report = _report(directory, manifest)
    files = [
        replace_file(directory / "scaling.json", _json(_values(report))),
        replace_file(directory / "fits.json", _json(report.laws.to_dict())),
        _page(directory, manifest, report, directory / "scaling.html"),
        *write_scaling_figures(directory / "figures", report),
    ]
    return 0 if live is None else live.close(Findings(report.series, report.choices, files))


def write_page_of_scaling(directory: Path, file: Path) -> Path:
    """Write the page of the scaling study in `directory`, finished or not. Raises as `scaling_report`."""
    manifest = ScalingManifest.read(directory)
    return _page(directory, manifest, _report(directory, manifest), file)


def sync_scaling(directory: Path, tracking_uri: str | None = None) -> SyncResult:
    """Bring MLflow up to the ledgers of a scaling study; what is there already stays as it is.

    Raises:
        ConfigurationError: none is there, or the experiment was deleted in MLflow.
        LedgerError: a file is damaged.
        MirrorError: MLflow cannot be reached, or refuses a record.
    """
    directory = directory.absolute()
    manifest = ScalingManifest.read(directory)
    report = _report(directory, manifest)
    names = ("scaling.json", "fits.json", "scaling.html")
    files = [path for name in names if (path := directory / name).is_file()]
    files += sorted((directory / "figures").glob("*.png"))
    findings = Findings(report.series, report.choices, files)
    return ScalingMirror(directory, manifest, tracking_uri).reconcile(findings)


def _report(directory: Path, manifest: ScalingManifest) -> ScalingReport:
    found = {variant.name: list(trainings_of(directory, manifest, variant)) for variant in manifest.variants}
    return summarize_scaling(manifest.config, manifest.target, manifest.points, found)


def _page(directory: Path, manifest: ScalingManifest, report: ScalingReport, file: Path) -> Path:
    return write_scaling_page(file, report, manifest.config, _machine(directory, manifest))


def _machine(directory: Path, manifest: ScalingManifest) -> Section | None:
    begun = (ledger for each in manifest.variants if (ledger := variant_ledger(directory, each)) is not None)
    ledger = next(begun, None)
    return machine_section(ledger, sorted({record.host for record in ledger.trials()})) if ledger is not None else None


def _values(report: ScalingReport) -> dict[str, Any]:
    """The report for JSON, with the laws of workers and of the batch size."""
    workers = [each.to_dict() for each in worker_scalings(report)]
    batches = {method: fit.to_dict() for method, fit in critical_batches(report).items()}
    return {**report.to_dict(), "workers": workers, "critical_batch": batches}


def _json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
