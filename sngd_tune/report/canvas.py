"""How the figures of a report look: sizes, colours, legends, limits. Drawn without a display."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sngd_tune.errors import LedgerError
from sngd_tune.records.colours import BEST, CATEGORIES
from sngd_tune.records.metrics import direction

__all__ = [
    "BEST",
    "CATEGORIES",
    "FAILED",
    "PLAIN",
    "Drawing",
    "Panel",
    "canvas",
    "dot_key",
    "legend",
    "limit",
    "line_key",
    "line_style",
    "log_scale",
    "vertical_log_scale",
    "whole_numbers",
    "words",
]

PLAIN, FAILED = "#8A949E", "#B00020"

_DASHED = (0, (4, 2))


@dataclass(frozen=True)
class Panel:
    """One pair of axes: what it shows, in a few words, and the function that draws it there."""

    caption: str
    draw: Callable[[Any], None]


@dataclass(frozen=True)
class Drawing:
    """Panels that belong together, with one legend: a picture of all, or one of each.

    Attributes:
        title: what they show together.
        panels: at least one.
        keys: entries of the legend; none where it would say nothing.
    """

    title: str
    panels: Sequence[Panel]
    keys: Sequence[Any] = ()

    def whole(self) -> Any:
        """All panels in one figure, under the title."""
        return self._figure(self.title, self.panels)

    def save(self, path: Path) -> Path:
        """Write `whole` as a PNG file, in a folder that is made where it does not exist; the path.

        Raises:
            LedgerError: it cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.whole().savefig(path, dpi=130)
        except OSError as error:
            raise LedgerError(f"{path}: cannot be written ({error.strerror or error}); free space or fix it") from error
        return path

    def single(self, panel: Panel) -> Any:
        """One of the panels in a figure of its own, for a page that has captions."""
        return self._figure("", [panel])

    def _figure(self, title: str, panels: Sequence[Panel]) -> Any:
        figure, axes = canvas(title, len(panels))
        for axis, panel in zip(axes, panels, strict=True):
            panel.draw(axis)
        if self.keys:
            legend(figure, self.keys)
        return figure


def canvas(title: str, panels: int) -> tuple[Any, list[Any]]:
    """A figure with this many panels, at most three in a row."""
    from matplotlib.figure import Figure

    columns = 2 if panels == 4 else min(panels, 3)
    rows = math.ceil(panels / columns)
    # Figure without pyplot: no display, no global state, nothing to close.
    figure = Figure(figsize=(4.2 * columns, 3.3 * rows + 0.5), layout="constrained")
    if title:
        figure.suptitle(title)
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axis in axes[panels:]:
        axis.set_visible(False)
    for axis in axes[:panels]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.6)
    return figure, axes[:panels]


def limit(values: Sequence[float], axes: Sequence[Any], metric: str) -> None:
    """Keep a few bad trials from flattening the rest: cut off the worst tenth; losses over a decade get a log scale."""
    finite = sorted(value for value in values if math.isfinite(value))
    if not finite:
        return
    if direction(metric) == "maximize":
        finite.reverse()
    best, usual = finite[0], finite[int(0.9 * (len(finite) - 1))]
    for axis in axes:
        if best > 0 and usual / best > 10:
            axis.set_yscale("log")
            axis.set_ylim(best / 1.3, usual * 1.5)
        elif usual != best:
            ends = (best - 0.08 * (usual - best), usual + 0.25 * (usual - best))
            axis.set_ylim(min(ends), max(ends))


def log_scale(axis: Any) -> None:
    """A horizontal log scale with readable ticks; matplotlib's own overlap over one or two decades."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_xscale("log")
    low, high = axis.get_xlim()
    decades = math.log10(high / low)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,), numticks=12))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def vertical_log_scale(axis: Any) -> None:
    """A vertical log scale with readable ticks."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_yscale("log")
    low, high = axis.get_ylim()
    narrow = math.log10(high / low) < 1.5
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=12))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


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
    columns = max(2, round(figure.get_figwidth() / 2))  # an entry takes two inches, seldom more
    figure.legend(handles=list(keys), loc="outside lower center", ncols=min(len(keys), columns), frameon=False)


def whole_numbers(axis: Any) -> None:
    """Ticks at whole numbers along the horizontal axis."""
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def words(name: str) -> str:
    """A metric or parameter as a label; module names are left as they are."""
    plain, sign, pattern = name.partition("@")
    return f"{plain.replace('_', ' ')}{sign}{pattern}"
