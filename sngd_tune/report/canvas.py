"""How the figures of a report look: sizes, colours, legends, limits. Drawn without a display."""

import math
from collections.abc import Sequence
from typing import Any

from sngd_tune.records.metrics import direction

__all__ = [
    "BEST",
    "CATEGORIES",
    "FAILED",
    "PLAIN",
    "canvas",
    "dot_key",
    "legend",
    "limit",
    "line_key",
    "line_style",
    "log_scale",
    "words",
]

# Okabe and Ito's colours, which stay apart for every kind of colour vision.
BEST, PLAIN, FAILED = "#D55E00", "#8A949E", "#B00020"
CATEGORIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#000000")

_DASHED = (0, (4, 2))


def canvas(title: str, panels: int) -> tuple[Any, list[Any]]:
    """A figure with this many panels, at most three in a row."""
    from matplotlib.figure import Figure

    columns = 2 if panels == 4 else min(panels, 3)
    rows = math.ceil(panels / columns)
    # Figure without pyplot: no display, no global state, nothing to close.
    figure = Figure(figsize=(4.2 * columns, 3.3 * rows + 0.5), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axis in axes[panels:]:
        axis.set_visible(False)
    for axis in axes[:panels]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.6)
    return figure, axes[:panels]


def limit(values: Sequence[float], axes: Sequence[Any], metric: str) -> None:
    """Keep a few bad trials from flattening the rest: a log scale over more than a decade, the worst tenth cut off."""
    finite = sorted(value for value in values if math.isfinite(value))
    if not finite or direction(metric) != "minimize":
        return
    low, usual = finite[0], finite[int(0.9 * (len(finite) - 1))]
    for axis in axes:
        if low > 0 and usual / low > 10:
            axis.set_yscale("log")
            axis.set_ylim(low / 1.3, usual * 1.5)
        elif usual > low:
            axis.set_ylim(low - 0.08 * (usual - low), usual + 0.25 * (usual - low))


def log_scale(axis: Any) -> None:
    """A horizontal log scale with readable ticks; matplotlib's own overlap over one or two decades."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_xscale("log")
    low, high = axis.get_xlim()
    decades = math.log10(high / low)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,), numticks=12))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def line_style(dashed: bool) -> Any:
    """Solid for what ran to its end, dashed for the rest."""
    return _DASHED if dashed else "-"


def line_key(colour: str, label: str, dashed: bool = False) -> Any:
    """A legend entry for a line."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, label=label, linewidth=2, linestyle=line_style(dashed))


def dot_key(colour: str, label: str, marker: str = "o", hollow: bool = False) -> Any:
    """A legend entry for points."""
    from matplotlib.lines import Line2D

    fill = "none" if hollow else colour
    return Line2D([], [], color=colour, label=label, linestyle="", marker=marker, markerfacecolor=fill)


def legend(figure: Any, keys: Sequence[Any]) -> None:
    """One legend below all panels, where it hides nothing."""
    figure.legend(handles=list(keys), loc="outside lower center", ncols=min(len(keys), 6), frameon=False)


def words(name: str) -> str:
    """A metric or parameter as a label."""
    return name.replace("_", " ")
