"""The figures of a study as PNG files: learning curves, progress of the search, slices through the space."""

from pathlib import Path
from typing import Any

from sngd_tune.errors import LedgerError
from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.report.best_so_far import draw_best_so_far
from sngd_tune.report.learning import draw_learning_curves
from sngd_tune.report.slices import draw_slices
from sngd_tune.tracking.ledger import Ledger

__all__ = ["epochs_by_trial", "write_figures"]


def write_figures(directory: Path | str) -> list[Path]:
    """Draw the study in `directory` into ``DIR/figures``; the paths of the figures that its trials allow.

    Raises:
        ConfigurationError: no study is there.
        LedgerError: the ledger is damaged, or the figures cannot be written.
    """
    ledger = Ledger.open(directory)
    config, records = ledger.config, ledger.trials()
    drawings = {
        "learning_curves.png": draw_learning_curves(config, records, epochs_by_trial(ledger)),
        "best_so_far.png": draw_best_so_far(config, records),
        "slices.png": draw_slices(config, [record for record in records if record.phase == "search"]),
    }
    folder = ledger.directory / "figures"
    return [_save(drawing.whole(), folder / name) for name, drawing in drawings.items() if drawing is not None]


def epochs_by_trial(ledger: Ledger) -> dict[str, list[EpochMetrics]]:
    """The epochs of each trial that has any, in order.

    Raises:
        LedgerError: the ledger is damaged.
    """
    curves: dict[str, list[EpochMetrics]] = {}
    for trial, _, metrics in ledger.epoch_metrics():
        curves.setdefault(trial, []).append(metrics)
    return curves


def _save(figure: Any, path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
    except OSError as error:
        raise LedgerError(f"{path}: cannot be written ({error.strerror or error}); free space or fix it") from error
    return path
