"""Learning curves: the search behind, and in front the confirmed candidates as bands, or the best trial."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.ranking import rank
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.report.canvas import BEST, CATEGORIES, PLAIN, Drawing, Panel, limit, line_key, line_style

__all__ = ["Curves", "draw_learning_curves"]

#: Epochs by trial.
Curves = Mapping[str, Sequence[EpochMetrics]]
_Position = Callable[[EpochMetrics], float]

_COLOURS = {"best": BEST, "default": CATEGORIES[0]}


def draw_learning_curves(config: StudyConfig, records: Sequence[TrialRecord], curves: Curves) -> Drawing | None:
    """Validation loss by step and by seconds of training; None without an epoch.

    The candidates of the confirmation are drawn as the mean over their seeds, within the range from the lowest to the
    highest; before there are any, the best trial of the search stands in front.
    """
    search = [record for record in records if record.phase == "search" and record.trial in curves]
    confirmed = {name: _completed(records, curves, name) for name in _COLOURS}
    confirmed = {name: runs for name, runs in confirmed.items() if runs}
    if not search and not confirmed:
        return None
    best = next(iter(rank(search, config.objectives[0])), None)
    front = None if confirmed else best
    drawn = [curves[record.trial] for record in search] or [run for runs in confirmed.values() for run in runs]
    losses = [metrics.validation_loss for run in drawn for metrics in run]

    def panel(label: str, position: _Position) -> Panel:
        def draw(axis: Any) -> None:
            for record in search:
                chosen = front is not None and record.proposal == front.trial
                _curve(axis, curves[record.trial], position, chosen, record.outcome)
            for name, runs in confirmed.items():
                _band(axis, runs, position, _COLOURS[name])
            axis.set_xlabel(label)
            axis.set_ylabel("validation loss")
            limit(
                losses or [m.validation_loss for runs in confirmed.values() for run in runs for m in run],
                [axis],
                "validation_loss",
            )

        return Panel(f"validation loss by {label}", draw)

    panels = [panel("step", lambda m: m.steps), panel("seconds of training", lambda m: m.training_seconds)]
    return Drawing(f"{config.name}: learning curves", panels, _keys(search, confirmed, front))


def _keys(search: Sequence[TrialRecord], confirmed: Mapping[str, Sequence[Any]], front: TrialRecord | None) -> Any:
    keys = [line_key(_COLOURS[name], f"{name}, {len(runs)} seeds") for name, runs in confirmed.items()]
    if front is not None:
        keys.append(line_key(BEST, f"best: trial {front.trial}"))
    if search:
        keys.append(line_key(PLAIN, "completed"))
    if any(record.outcome is not Outcome.COMPLETED for record in search):
        keys.append(line_key(PLAIN, "stopped or failed", dashed=True))
    return keys


def _completed(records: Sequence[TrialRecord], curves: Curves, candidate: str) -> list[Sequence[EpochMetrics]]:
    """The curves of one candidate's completed confirmations."""
    return [
        curves[record.trial]
        for record in records
        if record.candidate == candidate and record.outcome is Outcome.COMPLETED and record.trial in curves
    ]


def _curve(axis: Any, epochs: Sequence[EpochMetrics], position: _Position, front: bool, outcome: Outcome) -> None:
    finite = [metrics for metrics in epochs if math.isfinite(metrics.validation_loss)]
    look = {"color": BEST, "linewidth": 2.2, "zorder": 3} if front else {"color": PLAIN, "linewidth": 1, "alpha": 0.6}
    axis.plot(
        [position(metrics) for metrics in finite],
        [metrics.validation_loss for metrics in finite],
        marker="o" if len(finite) == 1 else None,  # a line of one point is invisible
        markersize=3,
        linestyle=line_style(dashed=outcome is not Outcome.COMPLETED),
        **look,
    )


def _band(axis: Any, runs: Sequence[Sequence[EpochMetrics]], position: _Position, colour: str) -> None:
    """Mean and range at each evaluation that every run has, where it lay in the mean of the runs."""
    evaluations = list(zip(*runs, strict=False))
    at = [float(np.mean([position(metrics) for metrics in each])) for each in evaluations]
    losses = np.array([[metrics.validation_loss for metrics in each] for each in evaluations])
    axis.fill_between(at, losses.min(axis=1), losses.max(axis=1), color=colour, alpha=0.25, linewidth=0, zorder=3)
    marker = "o" if len(at) == 1 else None  # a line of one point is invisible
    axis.plot(at, losses.mean(axis=1), color=colour, linewidth=2, zorder=4, marker=marker)
