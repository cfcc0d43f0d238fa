"""The figures of a study as PNG files: learning curves, progress of the search, slices through the space."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sngd_tune.errors import LedgerError
from sngd_tune.records.metrics import EpochMetrics, direction
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.ranking import rank
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.report.canvas import BEST, PLAIN, canvas, dot_key, legend, limit, line_key, line_style, words
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
    records = [record for record in ledger.trials() if record.phase == "search"]
    curves: dict[str, list[EpochMetrics]] = {}
    for trial, _, metrics in ledger.epoch_metrics():
        curves.setdefault(trial, []).append(metrics)
    drawn = {
        "learning_curves.png": _learning_curves(ledger.config, records, curves),
        "best_so_far.png": _best_so_far(ledger.config, records),
        "slices.png": draw_slices(ledger.config, records),
    }
    folder = ledger.directory / "figures"
    return [_save(figure, folder / name) for name, figure in drawn.items() if figure is not None]


def _learning_curves(
    config: StudyConfig, records: Sequence[TrialRecord], curves: Mapping[str, Sequence[EpochMetrics]]
) -> Any:
    """Validation loss by epoch and by seconds of training, the best trial in front."""
    shown = [record for record in records if record.trial in curves]
    if not shown:
        return None
    best = next(iter(rank(records, config.objectives[0])), None)
    figure, axes = canvas(f"{config.name}: learning curves", panels=2)
    positions: tuple[tuple[str, Callable[[EpochMetrics], float]], ...] = (
        ("epoch", lambda metrics: metrics.epoch),
        ("seconds of training", lambda metrics: metrics.training_seconds),
    )
    for axis, (label, position) in zip(axes, positions, strict=True):
        for record in shown:
            _curve(axis, curves[record.trial], position, record is best, record.outcome)
        axis.set_xlabel(label)
        axis.set_ylabel("validation loss")
    losses = [metrics.validation_loss for record in shown for metrics in curves[record.trial]]
    limit(losses, axes, "validation_loss")
    _whole_numbers(axes[0])
    keys = [line_key(PLAIN, "completed"), line_key(PLAIN, "stopped early or failed", dashed=True)]
    legend(figure, [line_key(BEST, f"best: trial {best.trial}"), *keys] if best else keys)
    return figure


def _curve(
    axis: Any, epochs: Sequence[EpochMetrics], position: Callable[[EpochMetrics], float], best: bool, outcome: Outcome
) -> None:
    finite = [metrics for metrics in epochs if math.isfinite(metrics.validation_loss)]
    look = {"color": BEST, "linewidth": 2.2, "zorder": 3} if best else {"color": PLAIN, "linewidth": 1, "alpha": 0.7}
    axis.plot(
        [position(metrics) for metrics in finite],
        [metrics.validation_loss for metrics in finite],
        marker="o" if len(finite) == 1 else None,  # a line of one point is invisible
        markersize=3,
        linestyle=line_style(dashed=outcome is not Outcome.COMPLETED),
        **look,
    )


def _best_so_far(config: StudyConfig, records: Sequence[TrialRecord]) -> Any:
    """The first objective of each completed trial, and the best until then, by trials and by seconds of the study."""
    objective = config.objectives[0]
    ranked = sorted(rank(records, objective), key=_end)
    if not ranked:
        return None
    values = [float(record.objectives[objective] or 0.0) for record in ranked]  # rank leaves no None
    better = min if direction(objective) == "minimize" else max
    best = [better(values[: i + 1]) for i in range(len(values))]
    start = min(record.started for record in records)
    ends = sorted(_end(record) for record in records if record.outcome.finished)
    figure, axes = canvas(f"{config.name}: best so far", panels=2)
    for axis, label, position in (
        (axes[0], "trials ended", lambda at: sum(end <= at for end in ends)),
        (axes[1], "seconds since the start", lambda at: at - start),
    ):
        at = [position(_end(record)) for record in ranked]
        axis.scatter(at, values, s=14, color=PLAIN, alpha=0.8, linewidths=0)
        axis.step([*at, position(ends[-1])], [*best, best[-1]], where="post", color=BEST, linewidth=2)
        axis.set_xlabel(label)
        axis.set_ylabel(words(objective))
    limit(values, axes, objective)
    _whole_numbers(axes[0])
    legend(figure, [dot_key(PLAIN, "completed trial"), line_key(BEST, "best so far")])
    return figure


def _end(record: TrialRecord) -> float:
    return record.ended if record.ended is not None else record.updated


def _whole_numbers(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def _save(figure: Any, path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
    except OSError as error:
        raise LedgerError(f"{path}: cannot be written ({error.strerror or error}); free space or fix it") from error
    return path
