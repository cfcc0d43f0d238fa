"""What more time buys: validation loss against training seconds, and the trials that nothing beats in both."""

import math
from collections.abc import Sequence
from typing import Any

from sngd_tune.records.outcome import Outcome
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.report.canvas import BEST, PLAIN, Drawing, Panel, dot_key, limit, line_key
from sngd_tune.report.learning import Curves
from sngd_tune.report.page import Block, FigureBlock, TableBlock
from sngd_tune.report.vector import svg_of

__all__ = ["front_blocks"]

_Point = tuple[float, float, str]  # seconds, loss, trial


def front_blocks(config: StudyConfig, records: Sequence[TrialRecord], curves: Curves) -> list[Block]:
    """The last validation loss and the training seconds of each completed search trial; empty without one.

    On the front are the trials with the lowest loss of all that took no longer; they are marked, and listed.
    """
    points = sorted(
        (record.training_seconds, curves[record.trial][-1].validation_loss, record.trial)
        for record in records
        if record.phase == "search" and record.outcome is Outcome.COMPLETED and record.trial in curves
    )
    points = [point for point in points if math.isfinite(point[1])]
    if not points:
        return []
    front = _front(points)
    panel = Panel("validation loss against training seconds", lambda axis: _draw(axis, points, front))
    keys = [dot_key(PLAIN, "completed trial"), line_key(BEST, "Pareto front")]
    drawing = Drawing(f"{config.name}: loss against time", [panel], keys)
    alt = f"{panel.caption}: {len(front)} of {len(points)} trials are on the front"
    rows = [(trial, seconds, loss) for seconds, loss, trial in front]
    table = TableBlock(("trial", "training seconds", "validation loss"), rows, "No trial was better in both than these")
    return [FigureBlock(svg_of(drawing.single(panel)), panel.caption, alt), table]


def _front(points: Sequence[_Point]) -> list[_Point]:
    """Of points in the order of seconds, those with a lower loss than all before."""
    front: list[_Point] = []
    for point in points:
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


def _draw(axis: Any, points: Sequence[_Point], front: Sequence[_Point]) -> None:
    axis.scatter([p[0] for p in points], [p[1] for p in points], s=18, color=PLAIN, alpha=0.8, linewidths=0)
    seconds, losses = [p[0] for p in front], [p[1] for p in front]
    axis.step([*seconds, points[-1][0]], [*losses, losses[-1]], where="post", color=BEST, linewidth=1.4)
    axis.scatter(seconds, losses, s=30, color=BEST, linewidths=0, zorder=3)
    axis.set_xlabel("seconds of training")
    axis.set_ylabel("validation loss")
    limit([p[1] for p in points], [axis], "validation_loss")
