"""The local Fisher layers of the winner: what their matrices looked like over its training."""

from collections.abc import Callable, Sequence
from typing import Any

from sngd_tune.records.metrics import EpochMetrics, LayerDiagnostics
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.report.canvas import CATEGORIES, Drawing, Panel, line_key, whole_numbers
from sngd_tune.report.page import Block, FigureBlock, Section, TableBlock, TextBlock
from sngd_tune.report.vector import svg_of

__all__ = ["layers_section"]

_QUANTITIES: dict[str, tuple[str, Callable[[LayerDiagnostics], float]]] = {
    "effective rank": ("linear", lambda layer: layer.effective_rank),
    "condition number of G + λI": ("log", lambda layer: layer.condition_number),
    "damping λ": ("log", lambda layer: layer.damping),
}
_NAMED = len(CATEGORIES)  # layers that a legend can tell apart


def layers_section(config: StudyConfig, best: TrialRecord | None, epochs: Sequence[EpochMetrics]) -> Section:
    """Effective rank, condition number and damping by epoch, and a table of the last epoch."""
    title = "Fisher layers of the winner"
    if best is None or not any(metrics.layers for metrics in epochs):
        return Section(title, [TextBlock("The winner has no local Fisher layers.")], "layers")
    drawing = _draw_layers(config, epochs)
    blocks: list[Block] = [
        FigureBlock(svg_of(drawing.single(panel)), panel.caption, f"Layers of trial {best.trial}: {panel.caption}")
        for panel in drawing.panels
    ]
    return Section(title, [*blocks, _table(epochs[-1].layers)], "layers")


def _draw_layers(config: StudyConfig, epochs: Sequence[EpochMetrics]) -> Drawing:
    names = list(dict.fromkeys(layer.layer for metrics in epochs for layer in metrics.layers))
    colours = dict(zip(names, _colours(len(names)), strict=True))
    keys = [line_key(colour, f"layer {name}") for name, colour in colours.items()]
    if len(keys) > _NAMED:
        keys = [line_key(colours[names[0]], f"first: {names[0]}"), line_key(colours[names[-1]], f"last: {names[-1]}")]

    def panel(quantity: str) -> Panel:
        scale, value = _QUANTITIES[quantity]

        def draw(axis: Any) -> None:
            for name, colour in colours.items():
                line = [(m.epoch, value(layer)) for m in epochs for layer in m.layers if layer.layer == name]
                axis.plot(*zip(*line, strict=True), color=colour, linewidth=1.5, marker="o", markersize=3)
            if scale == "log" and all(value(layer) > 0 for m in epochs for layer in m.layers):
                axis.set_yscale("log")
            axis.set_xlabel("epoch")
            axis.set_ylabel(quantity)
            whole_numbers(axis)

        return Panel(f"{quantity} by epoch", draw)

    return Drawing(f"{config.name}: Fisher layers", [panel(quantity) for quantity in _QUANTITIES], keys)


def _colours(count: int) -> list[Any]:
    """Colours apart where there are few, else a sequence from the first layer to the last."""
    if count <= _NAMED:
        return list(CATEGORIES[:count])
    from matplotlib import colormaps

    return [colormaps["viridis"](0.1 + 0.8 * i / (count - 1)) for i in range(count)]


def _table(layers: Sequence[LayerDiagnostics]) -> TableBlock:
    columns = ("layer", *_QUANTITIES, "drift", "refreshes", "failed refreshes")
    rows = [
        (
            each.layer,
            *(value(each) for _, value in _QUANTITIES.values()),
            each.drift,
            each.refreshes,
            each.root_failures,
        )
        for each in layers
    ]
    return TableBlock(columns, rows, "After the last epoch; drift is the movement of G over it, relative to its norm.")
