"""What a selection chose, and why: sentences, tables, plain values. A table is the same on a terminal and on a page."""

import math
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sngd_tune.records.selection import LayerProbe, SelectionRecord
from sngd_tune.report.page import TableBlock
from sngd_tune.report.verdict import duration

__all__ = [
    "choice_table",
    "explanation",
    "layer_name",
    "overview",
    "probe_table",
    "rate_table",
    "reason_table",
    "selection_values",
    "sentences",
    "share_of_step",
    "size",
    "step_table",
]

#: Share of ``tr G`` that a layer's rank is counted for.
_MOST_OF_TRACE = 0.9
_ROUNDING = 1e-9


def overview(record: SelectionRecord) -> RenderableType:
    """What was chosen, in short."""
    return Group(_rendered(choice_table(record), "local Fisher layers"), Text("\n".join(sentences(record))))


def explanation(record: SelectionRecord) -> RenderableType:
    """All of it: what each layer got and why, what the probe saw of it, times and learning rates."""
    return Group(
        _rendered(choice_table(record), "local Fisher layers"),
        _rendered(reason_table(record), "why"),
        _rendered(probe_table(record), "what the probe saw"),
        _rendered(step_table(record), "time of a step"),
        _rendered(rate_table(record), "learning rates, the chosen one first"),
        Text("\n".join(sentences(record))),
    )


def sentences(record: SelectionRecord) -> list[str]:
    """What came out, in plain words: layers, step, decrease, memory, learning rate, origin."""
    if math.isnan(record.step.predicted):  # see `selection.transfer`
        return [_layers(record), "Carried over: neither times nor gains were measured.", _memory(record), _rate(record)]
    return [_layers(record), _step(record), _decrease(record), _memory(record), _rate(record), _origin(record)]


def choice_table(record: SelectionRecord) -> TableBlock:
    """What each layer got, what it gains and what it costs."""
    rows = []
    for choice in record.layers:
        settings = choice.settings
        got: tuple[Any, ...] = ("–", None, None)
        if settings is not None:
            got = (choice.name, _short(settings.relative_damping), settings.fisher_interval)
        share = f"{share_of_step(choice.seconds, record):.1%}"
        rows.append((layer_name(choice.layer), *got, f"{choice.gain:.3g}", share, size(choice.bytes)))
    names = ("layer", "local Fisher layer", "damping", "every", "gain", "of a step", "memory")
    caption = (
        "gain: expected decrease of the loss in a step over that without a local Fisher layer; of a step: its time over"
        f" that of a step with plain {_base(record)}; every: steps between refreshes"
    )
    return TableBlock(names, rows, caption, ("left",) * 2 + ("right",) * 5)


def reason_table(record: SelectionRecord) -> TableBlock:
    """Why each layer got it, in words."""
    rows = [(layer_name(choice.layer), choice.name, choice.reason) for choice in record.layers]
    return TableBlock(("layer", "got", "why"), rows)


def probe_table(record: SelectionRecord) -> TableBlock:
    """The figures of each layer."""
    drifts = sorted({age for probe in record.probes for age in probe.drift})
    ages = sorted({age for probe in record.probes for age in probe.retained_gain})
    names = (
        *("layer", "module", "shape", "positions"),
        *("rank", "rank for 90 %", "condition", "noise", "least damping"),
        *(f"drift {age}" for age in drifts),
        *(f"left {age}" for age in ages),
        *("rank of B", "kron's gain"),
    )
    rows = []
    for probe in record.probes:
        spectrum = (probe.positions, probe.effective_rank, _rank(probe), probe.condition_number)
        drift, left = [probe.drift.get(age) for age in drifts], [probe.retained_gain.get(age) for age in ages]
        outputs = (probe.output_effective_rank, probe.output_gain)
        figures = (*spectrum, probe.batch_noise, probe.least_damping, *drift, *left, *outputs)
        words = (layer_name(probe.layer), probe.module, _shape(probe))
        rows.append((*words, *(None if value is None else _short(value) for value in figures)))
    caption = (
        "rank: effective, tr(G)² / tr(G²); rank for 90 %: leading eigenvalues with that share of tr G; noise: of G from"
        " one batch, over its norm; least damping: what makes up for sampling; drift: of G in so many steps, over its"
        " norm; left: of the gain, with a root of so many steps; rank of B: of the output gradients; kron's gain: over"
        " the best without the output side"
    )
    return TableBlock(names, rows, caption, ("left", "left", *["right"] * (len(names) - 2)))


def step_table(record: SelectionRecord) -> TableBlock:
    """Times of a step and their ratios to plain SGD's; the budget."""
    step = record.step
    times = {
        "plain sgd": step.sgd,
        f"plain {_base(record)}": step.plain,
        "with the choice, predicted": step.predicted,
        "with the choice, measured": step.measured,
    }
    rows: list[tuple[Any, ...]] = [
        (name, 1e3 * seconds, f"{seconds / step.sgd:.2f}") for name, seconds in times.items() if seconds is not None
    ]
    rows.append(("budget", None, "none" if record.step_budget is None else f"{record.step_budget:.2f}"))
    return TableBlock(("step", "ms", "over plain sgd's"), rows, "", ("left", "right", "right"))


def rate_table(record: SelectionRecord) -> TableBlock:
    """The short trainings, the one that was chosen first."""
    rows = [
        (point.lr, point.weight_decay, point.steps, "diverged" if math.isnan(point.loss) else f"{point.loss:.4g}")
        for point in record.rates
    ]
    return TableBlock(("learning rate", "weight decay", "steps", "held-out loss"), rows, "", ("right",) * 4)


def selection_values(record: SelectionRecord) -> dict[str, Any]:
    """The record as JSON has it: what is not finite becomes None."""
    values: dict[str, Any] = _plain(record.to_dict())
    return values


def share_of_step(seconds: float, record: SelectionRecord) -> float:
    """Seconds over those of a step with the plain base optimizer."""
    return seconds / record.step.plain


def layer_name(layer: str) -> str:
    """A layer for people: one that is the model itself has no name of its own."""
    return layer or "(the model)"


def size(count: float) -> str:
    """Bytes in the unit that reads well.

    >>> size(0), size(69440), size(3 << 30)
    ('0 B', '67.8 KiB', '3 GiB')
    """
    for unit in ("B", "KiB", "MiB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} GiB"


def _layers(record: SelectionRecord) -> str:
    return f"{len(record.settings)} of {len(record.layers)} layers get a local Fisher layer."


def _step(record: SelectionRecord) -> str:
    step, base = record.step, _base(record)
    measured = "" if step.measured is None else f"; measured: {step.measured / step.sgd:.2f}"
    sought = "the best decrease per second was sought"
    budget = sought if record.step_budget is None else f"the budget is {record.step_budget:g} times"
    return (
        f"A step takes {step.ratio:.2f} times as long as one of plain sgd (predicted{measured}; plain {base}:"
        f" {step.plain / step.sgd:.2f}); {budget}."
    )


def _decrease(record: SelectionRecord) -> str:
    exact = record.bound <= record.gain * (1 + _ROUNDING)
    limit = "at this price" if record.step_budget is None else "within the budget"
    most = f"no choice {limit} has more" + ("" if exact else f" than {record.bound:.3g} times")
    return (
        f"It is expected to decrease the loss {record.gain:.3g} times as much as one of plain {_base(record)}; {most}."
    )


def _memory(record: SelectionRecord) -> str:
    kept = size(sum(choice.bytes for choice in record.layers))
    return f"Local Fisher layers keep {kept}" + (
        "." if record.memory_budget is None else f", of {size(record.memory_budget)} allowed."
    )


def _rate(record: SelectionRecord) -> str:
    given = ", ".join(f"{name} {_short(value)}" for name, value in record.optimizer.items())
    tried = len(record.rates)
    if not tried:
        return f"SNGD's arguments: {given}; no learning rate was tried."
    of = f"found by {tried} short training{'s' if tried > 1 else ''}"
    return f"SNGD's arguments: {given}, {of}, under {record.lr_schedule}."


def _origin(record: SelectionRecord) -> str:
    place = f" on {record.device}" if record.device else ""
    return f"Measured in {duration(record.seconds)}{place}, with batches of {record.batch_size:.4g} examples."


def _base(record: SelectionRecord) -> str:
    return str(record.optimizer.get("base", "base optimizer"))


def _shape(probe: LayerProbe) -> str:
    matrices = f"{probe.matrices} × " if probe.matrices > 1 else ""
    return f"{matrices}{probe.outputs} × {probe.inputs}"


def _rank(probe: LayerProbe) -> int | None:
    return next((rank for rank, share in sorted(probe.retained_trace.items()) if share >= _MOST_OF_TRACE), None)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _rendered(block: TableBlock, title: str) -> Table:
    look: Any = {"box": box.SIMPLE_HEAD, "pad_edge": False, "title_justify": "left", "caption_justify": "left"}
    table = Table(title=Text(title, style="bold"), caption=Text(block.caption) if block.caption else None, **look)
    for column, side in zip(block.columns, block.alignment, strict=True):
        table.add_column(Text(column), justify="right" if side == "right" else "left", overflow="fold")
    for row in block.cells:
        table.add_row(*map(Text, row))
    return table


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
