"""How the search went: the best trial until then, by trials, by seconds used on devices and by seconds gone by."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from sngd_tune.records.metrics import direction
from sngd_tune.records.ranking import rank
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.report.canvas import BEST, PLAIN, Drawing, Panel, dot_key, limit, line_key, whole_numbers, words

__all__ = ["draw_best_so_far"]


def draw_best_so_far(config: StudyConfig, records: Sequence[TrialRecord]) -> Drawing | None:
    """The first objective of each completed trial, and the best until then; None before the first.

    Device seconds are the training seconds of the trials that had ended by then, whatever their outcome.
    """
    objective = config.objectives[0]
    search = [record for record in records if record.phase == "search"]
    ranked = sorted(rank(search, objective), key=_end)
    if not ranked:
        return None
    values = [float(record.objectives[objective] or 0.0) for record in ranked]  # rank leaves no None
    best = list(itertools.accumulate(values, min if direction(objective) == "minimize" else max))
    ended = sorted((record for record in search if record.outcome.finished), key=_end)
    start = min(record.started for record in search)

    def panel(label: str, position: Callable[[float], float]) -> Panel:
        def draw(axis: Any) -> None:
            at = [position(_end(record)) for record in ranked]
            axis.scatter(at, values, s=14, color=PLAIN, alpha=0.8, linewidths=0)
            axis.step([*at, position(_end(ended[-1]))], [*best, best[-1]], where="post", color=BEST, linewidth=2)
            axis.set_xlabel(label)
            axis.set_ylabel(words(objective))
            limit(values, [axis], objective)
            if label == "trials ended":
                whole_numbers(axis)

        return Panel(f"best so far against {label}", draw)

    panels = [
        panel("trials ended", lambda at: sum(_end(record) <= at for record in ended)),
        panel("device seconds", lambda at: sum(r.training_seconds for r in ended if _end(r) <= at)),
        panel("seconds since the start", lambda at: at - start),
    ]
    keys = [dot_key(PLAIN, "completed trial"), line_key(BEST, "best so far")]
    return Drawing(f"{config.name}: best so far", panels, keys)


def _end(record: TrialRecord) -> float:
    return record.ended if record.ended is not None else record.updated
