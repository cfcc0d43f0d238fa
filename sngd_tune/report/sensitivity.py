"""Which parameters decided: a bar for each, with the number of trials behind it."""

from collections.abc import Sequence
from typing import Any

from sngd_tune.records.importance import Importance
from sngd_tune.records.study import StudyConfig
from sngd_tune.report.canvas import CATEGORIES, Drawing, Panel, words
from sngd_tune.report.page import Block, FigureBlock, Section, TextBlock
from sngd_tune.report.vector import svg_of

__all__ = ["sensitivity_section"]

_MOST = 14  # bars

_EXPLANATION = (
    "Functional ANOVA: the share of the variance in the order of the completed trials that each parameter explains by "
    "itself. What parameters do only together belongs to none of them. A parameter with a condition is judged among "
    "the trials in which it is active (their number stands beside its bar), so its share is not part of the same whole."
)


def sensitivity_section(config: StudyConfig, importances: Sequence[Importance]) -> Section:
    """The importances as bars; where there are none, why."""
    title = "Which parameters decided"
    if not importances:
        few = "Not stated: that takes ten completed trials that a parameter was active in, and a difference among them."
        return Section(title, [TextBlock(few)], "importances")
    blocks: list[Block] = [TextBlock(_EXPLANATION)]
    drawing = _draw_importances(config, importances)
    alt = "; ".join(f"{each.parameter} {each.share:.0%}" for each in importances[:_MOST])
    blocks.append(FigureBlock(svg_of(drawing.single(drawing.panels[0])), drawing.panels[0].caption, alt))
    known = {each.name for each in importances}
    missing = [name for name in config.space if name not in known]
    if missing:
        blocks.append(TextBlock(f"Not stated for want of trials: {', '.join(missing)}."))
    return Section(title, blocks, "importances")


def _draw_importances(config: StudyConfig, importances: Sequence[Importance]) -> Drawing:
    shown = list(importances[:_MOST])

    def draw(axis: Any) -> None:
        axis.barh(range(len(shown)), [each.share for each in shown], color=CATEGORIES[0], height=0.65)
        axis.set_yticks(range(len(shown)), [_label(each) for each in shown], fontsize=8)
        axis.invert_yaxis()
        axis.set_xlim(0, min(1.0, 1.3 * max(each.share for each in shown)) or 1.0)
        axis.set_xlabel("share of the variance")
        axis.grid(axis="y", visible=False)
        for place, each in enumerate(shown):
            text, look = f"{each.share:.0%}, {each.trials} trials", {"va": "center", "fontsize": 8}
            axis.annotate(text, (each.share, place), xytext=(3, 0), textcoords="offset points", **look)

    rest = f", the first {_MOST} of {len(importances)}" if len(importances) > _MOST else ""
    return Drawing(f"{config.name}: importances", [Panel(f"importance of the searched parameters{rest}", draw)])


def _label(importance: Importance) -> str:
    """A long condition goes on a line of its own, shortened: it may name many values."""
    name, condition = words(importance.name), importance.condition
    if not condition:
        return name
    text = f"{name}, {condition}"
    return text if len(text) <= 24 else f"{name}\n{condition if len(condition) <= 30 else condition[:29] + '…'}"
