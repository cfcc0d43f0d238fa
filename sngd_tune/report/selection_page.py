"""The page of a selection: what was chosen first, then what it was chosen from, then what the probe saw."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sngd_tune.records.selection import LayerChoice, RatePoint, SelectionRecord
from sngd_tune.report.canvas import BEST, CATEGORIES, FAILED, PLAIN, Drawing, Panel, dot_key, line_key, log_scale
from sngd_tune.report.page import Block, CodeBlock, Page, Section, TableBlock, TextBlock, figure_blocks, write_page
from sngd_tune.report.selection import (
    choice_table,
    layer_name,
    probe_table,
    rate_table,
    reason_table,
    sentences,
    share_of_step,
    size,
    step_table,
)

__all__ = ["selection_page", "write_selection_figures", "write_selection_page"]

#: Layers that are drawn: those that decide most.
_MAX_PANELS = 12

#: How alternatives are told apart, by what their name begins with; the first that fits counts.
_KINDS = {
    "diagonal": "diagonal",
    "block": "blocks",
    "input rank": "low rank",
    "input": "input, dense",
    "kron": "kron",
}
_OTHER = "other"
_COLOURS = dict(zip((*_KINDS.values(), _OTHER), CATEGORIES, strict=True))


def write_selection_page(path: Path, record: SelectionRecord, usage: str) -> Path:
    """Write the page; its path.

    Raises:
        LedgerError: it cannot be written; a page that was there before is as it was.
    """
    return write_page(path, selection_page(record, usage))


def write_selection_figures(folder: Path, record: SelectionRecord) -> list[Path]:
    """Draw a selection into PNG files; the paths of those that it allows.

    Args:
        folder: made where it does not exist.
        record: of the selection.

    Raises:
        LedgerError: they cannot be written.
    """
    drawings = {"gain_and_price.png": _draw_alternatives(record), "learning_rates.png": _draw_rates(record)}
    return [drawing.save(folder / name) for name, drawing in drawings.items() if drawing is not None]


def selection_page(record: SelectionRecord, usage: str) -> Page:
    """The page of a selection.

    Args:
        record: of the selection.
        usage: Python lines that train with it.
    """
    alternatives = _draw_alternatives(record)
    sections = [
        Section("What was chosen", [TextBlock(_outcome(record)), choice_table(record)], "choice"),
        Section("Use it", [CodeBlock(usage)], "use"),
        Section("Why", [reason_table(record)], "reasons"),
        Section("Gain against price", [*_left_out(record), *figure_blocks(alternatives)], "alternatives"),
        Section("What the probe saw", [probe_table(record)] if record.probes else [], "probe"),
        Section("Time of a step", [step_table(record)], "step"),
        Section("Learning rate", _rates(record), "rates"),
        Section("All that was weighed", _weighed(record), "weighed"),
    ]
    kept = [section for section in sections if section.blocks]
    subtitle = f"{len(record.layers)} layers, batches of {record.batch_size:.4g} examples. {record.device}"
    return Page(f"Settings selected for {record.subject}", subtitle, kept)


def _outcome(record: SelectionRecord) -> str:
    """What was chosen, and below it how."""
    said = sentences(record)
    return "\n\n".join((" ".join(said[:-2]), " ".join(said[-2:])))


def _draw_alternatives(record: SelectionRecord) -> Drawing | None:
    """Gain against price of what each layer could have had, the chosen one marked; None where there is nothing."""
    shown = _shown(record)
    if not shown:
        return None
    kinds = dict.fromkeys(_kind(each.name) for choice in shown for each in choice.alternatives)
    keys = [dot_key(_COLOURS[kind], kind) for kind in _COLOURS if kind in kinds]
    keys += [dot_key(BEST, "chosen", hollow=True), line_key(PLAIN, "without a local Fisher layer", dashed=True)]
    caption = "layer {}: gain of what it could have against its price"
    panels = [Panel(caption.format(layer_name(each.layer)), _panel(record, each)) for each in shown]
    return Drawing(f"{record.subject}: gain against price", panels, keys)


def _panel(record: SelectionRecord, choice: LayerChoice) -> Any:
    def draw(axis: Any) -> None:
        prices = [100 * share_of_step(each.seconds, record) for each in choice.alternatives]
        gains = [each.gain for each in choice.alternatives]
        ranks = [i for i, each in enumerate(choice.alternatives) if _kind(each.name) == "low rank"]
        axis.plot([prices[i] for i in ranks], [gains[i] for i in ranks], color=_COLOURS["low rank"], linewidth=0.9)
        colours = [_COLOURS[_kind(each.name)] for each in choice.alternatives]
        axis.scatter(prices, gains, s=28, c=colours, linewidths=0, zorder=3)
        axis.axhline(1.0, color=PLAIN, linewidth=1, linestyle=(0, (4, 2)))
        axis.set_title(f"layer {layer_name(choice.layer)}", fontsize=9)
        axis.set_xlabel("price, % of a step")
        axis.set_ylabel("gain")
        axis.margins(y=0.15)  # room for the name
        if min(prices) > 0:
            log_scale(axis)
        _mark(axis, choice, 100 * share_of_step(choice.seconds, record))

    return draw


def _mark(axis: Any, choice: LayerChoice, price: float) -> None:
    """A ring around the chosen one, with its name; a layer without one has its name on the line."""
    look = {"fontsize": 8, "color": BEST, "textcoords": "offset points"}
    if choice.settings is None:
        axis.annotate("none", (0.02, 1.0), xycoords=axis.get_yaxis_transform(), xytext=(0, 4), **look)
        return
    axis.scatter([price], [choice.gain], s=95, facecolors="none", edgecolors=BEST, linewidths=1.8, zorder=4)
    axis.annotate(choice.name, (price, choice.gain), xytext=(0, 9), ha="center", **look)


def _draw_rates(record: SelectionRecord) -> Drawing | None:
    """Held-out loss of the short trainings against their learning rate; None without any."""
    if not record.rates:
        return None
    decays = sorted({point.weight_decay for point in record.rates})
    colours = {decay: CATEGORIES[i % len(CATEGORIES)] for i, decay in enumerate(decays)}

    def draw(axis: Any) -> None:
        for decay, colour in colours.items():
            line = sorted((p.lr, p.loss) for p in _finite(record.rates) if p.weight_decay == decay)
            axis.plot([lr for lr, _ in line], [loss for _, loss in line], color=colour, marker="o", markersize=5)
        diverged = [point.lr for point in record.rates if not math.isfinite(point.loss)]
        look = {"s": 24, "marker": "x", "color": FAILED, "transform": axis.get_xaxis_transform()}
        axis.scatter(diverged, [0.97] * len(diverged), **look)  # heights in axes coordinates: they have no loss
        best = record.rates[0]
        axis.scatter([best.lr], [best.loss], s=95, facecolors="none", edgecolors=BEST, linewidths=1.8, zorder=4)
        axis.set_xlabel("learning rate")
        axis.set_ylabel("held-out loss")
        rates = [point.lr for point in record.rates]
        axis.set_xlim(min(rates) / 1.5, max(rates) * 1.5)
        log_scale(axis)

    keys = [line_key(colour, f"weight decay {decay:g}") for decay, colour in colours.items()]
    keys.append(dot_key(BEST, "chosen", hollow=True))
    if len(_finite(record.rates)) < len(record.rates):
        keys.append(dot_key(FAILED, "diverged", marker="x"))
    caption = "held-out loss at the end of each short training"
    return Drawing(f"{record.subject}: learning rates", [Panel(caption, draw)], keys)


def _rates(record: SelectionRecord) -> list[Block]:
    return [*figure_blocks(_draw_rates(record)), rate_table(record)] if record.rates else []


def _weighed(record: SelectionRecord) -> list[Block]:
    rows = [
        (
            *(layer_name(choice.layer), each.name, f"{each.relative_damping:.3g}", f"{each.gain:.3g}"),
            *(f"{share_of_step(each.seconds, record):.1%}", size(each.bytes)),
        )
        for choice in record.layers
        for each in choice.alternatives
    ]
    names = ("layer", "local Fisher layer", "damping", "gain", "of a step", "memory")
    caption = "Each with the damping that suits it, at the refresh interval that was chosen for its layer"
    return [TableBlock(names, rows, caption, ("left",) * 2 + ("right",) * 4)] if rows else []


def _left_out(record: SelectionRecord) -> list[Block]:
    """Which layers the figures do not show."""
    drawable = sum(bool(choice.alternatives) for choice in record.layers)
    if drawable <= _MAX_PANELS:
        return []
    return [TextBlock(f"The {_MAX_PANELS} of {drawable} layers whose loss can fall most; the others stand below.")]


def _shown(record: SelectionRecord) -> list[LayerChoice]:
    """The layers that decide most, by their largest expected decrease; in the order of the model."""
    plain = {probe.layer: probe.progress for probe in record.probes}
    drawable = [choice for choice in record.layers if choice.alternatives]

    def weight(choice: LayerChoice) -> float:
        return plain.get(choice.layer, 0.0) * max(each.gain for each in choice.alternatives)

    most = sorted(drawable, key=weight, reverse=True)[:_MAX_PANELS]
    return [choice for choice in drawable if choice in most]


def _kind(name: str) -> str:
    return next((kind for start, kind in _KINDS.items() if name.startswith(start)), _OTHER)


def _finite(points: Sequence[RatePoint]) -> list[RatePoint]:
    return [point for point in points if math.isfinite(point.loss)]
