"""The figures of a study as PNG files: learning curves, progress of the search, slices through the space."""

from pathlib import Path

from sngd_tune.report.best_so_far import draw_best_so_far
from sngd_tune.report.learning import draw_learning_curves
from sngd_tune.report.slices import draw_slices
from sngd_tune.tracking.ledger import Ledger

__all__ = ["write_figures"]


def write_figures(directory: Path | str) -> list[Path]:
    """Draw the study in `directory` into ``DIR/figures``; the paths of the figures that its trials allow.

    Raises:
        ConfigurationError: no study is there.
        LedgerError: the ledger is damaged, or the figures cannot be written.
    """
    ledger = Ledger.open(directory)
    config, records = ledger.config, ledger.trials()
    drawings = {
        "learning_curves.png": draw_learning_curves(config, records, ledger.epochs_by_trial()),
        "best_so_far.png": draw_best_so_far(config, records),
        "slices.png": draw_slices(config, [record for record in records if record.phase == "search"]),
    }
    folder = ledger.directory / "figures"
    return [drawing.save(folder / name) for name, drawing in drawings.items() if drawing is not None]
