"""The figure of a decision: the ratio of times to the best baseline and to AdamW, with intervals."""

from typing import Any

from sngd_tune.report.canvas import BEST, CATEGORIES, PLAIN, Drawing, Panel, dot_key, line_style
from sngd_tune.report.comparison.ratios import Ratio
from sngd_tune.report.decision.evidence import REFERENCE
from sngd_tune.report.decision.language import Language
from sngd_tune.report.decision.values import Decision, Duel

__all__ = ["ratio_figure"]

#: Ratios beyond these, misses among them, stand at the edge as arrows.
_EDGE = 5.0


def ratio_figure(decision: Decision, language: Language) -> Any | None:
    """A forest plot on a log scale, a row a workload; None where no ratio is known."""
    rows = [(each.workload, _shown(each.best, each.reference)) for each in decision.evidence]
    rows = [(name, duels) for name, duels in rows if duels]
    if not rows:
        return None

    def draw(axis: Any) -> None:
        for row, (_, duels) in enumerate(rows):
            for place, (ratio, colour) in enumerate(duels):
                _interval(axis, row + 0.24 * (place - (len(duels) - 1) / 2), ratio, colour)
        axis.axvline(1.0, color=PLAIN, linewidth=1, linestyle=line_style(dashed=True))
        axis.set_yticks(range(len(rows)), [name for name, _ in rows])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        _scale(axis, language)

    keys = [dot_key(BEST, language.say("figure.best")), dot_key(CATEGORIES[0], REFERENCE)]
    panel = Panel(language.say("figure.axis"), draw)
    figure = Drawing(language.say("figure.title"), [panel], keys).single(panel)
    figure.set_size_inches(*_size(len(rows)))
    return figure


def _size(rows: int) -> tuple[float, float]:
    """In inches: as high as its rows need."""
    return 4.6, 1.0 + 0.32 * rows


def _shown(best: Duel | None, reference: Duel | None) -> list[tuple[Ratio, str]]:
    """Ratios with their colours; one where AdamW is the best baseline."""
    if best is not None and reference is not None and best.baseline == reference.baseline:
        reference = None
    duels = ((best, BEST), (reference, CATEGORIES[0]))
    ratios = [(duel.ratio, colour) for duel, colour in duels if duel is not None]
    return [(ratio, colour) for ratio, colour in ratios if ratio is not None and ratio.verdict != "both miss"]


def _interval(axis: Any, row: float, ratio: Ratio, colour: str) -> None:
    low, high = (_inside(ratio.median if end is None else end) for end in (ratio.low, ratio.high))
    axis.plot([low, high], [row, row], color=colour, linewidth=2, solid_capstyle="butt")
    for end, marker in ((low, "<"), (high, ">")):
        if end in (_EDGE, 1 / _EDGE):
            axis.plot(end, row, marker=marker, color=colour, markersize=6, clip_on=False)
    if 1 / _EDGE < ratio.median < _EDGE:
        axis.plot(ratio.median, row, marker="o", color=colour, markersize=6, clip_on=False)


def _inside(value: float) -> float:
    return min(max(value, 1 / _EDGE), _EDGE)


def _scale(axis: Any, language: Language) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    axis.set_xscale("log")
    axis.set_xlim(1 / _EDGE / 1.1, _EDGE * 1.1)
    ticks = [0.2, 0.5, 1.0, 2.0, 5.0]
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticklabels([language.number(tick) for tick in ticks])
    axis.set_xlabel(language.say("figure.axis"))
