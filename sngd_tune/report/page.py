"""A report as one HTML file that needs nothing else: no script, no font, no image, no network.

A page is a list of sections, a section a list of blocks; whoever has something to report makes these values, and
`write_page` alone knows HTML. Text is text: names and errors of users are escaped, never interpreted.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from sngd_tune.atomic import replacing
from sngd_tune.errors import LedgerError
from sngd_tune.report.canvas import Drawing
from sngd_tune.report.vector import own_ids, svg_of, width_of

__all__ = [
    "Block",
    "CodeBlock",
    "FigureBlock",
    "Page",
    "Section",
    "TableBlock",
    "TextBlock",
    "figure_blocks",
    "render",
    "render_template",
    "svg_of",
    "write_html",
    "write_page",
]

#: Figures wider than this (points) take a row of their own.
_HALF_PAGE = 400.0
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


@dataclass(frozen=True)
class TextBlock:
    """Paragraphs of plain text; an empty line ends one."""

    text: str
    kind = "text"

    @property
    def paragraphs(self) -> list[str]:
        """What stands between the empty lines."""
        return [part.strip() for part in re.split(r"\n\s*\n", self.text) if part.strip()]


@dataclass(frozen=True)
class CodeBlock:
    """Lines to copy: as they are, in a fixed width, in a box that scrolls."""

    text: str
    kind = "code"


@dataclass(frozen=True)
class TableBlock:
    """A table, which scrolls in its own box where the page is narrower.

    Attributes:
        columns: headings.
        rows: one cell a column; floats are shown with four digits, None as a dash, the rest as ``str`` has it.
        caption: one line above it, or ``""``.
        align: ``"left"`` or ``"right"`` a column; empty: numbers right, the rest left.

    Raises:
        ValueError: a row, or `align`, has another number of entries than `columns`.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    align: Sequence[str] = ()
    kind = "table"

    def __post_init__(self) -> None:
        for entries in (*self.rows, *([self.align] if self.align else [])):
            if len(entries) != len(self.columns):
                raise ValueError(f"{entries!r}: must have {len(self.columns)} entries, as the table has columns")

    @property
    def alignment(self) -> list[str]:
        """One for each column."""
        return list(self.align) or [_alignment([row[i] for row in self.rows]) for i in range(len(self.columns))]

    @property
    def cells(self) -> list[list[str]]:
        """The rows as text."""
        return [[_cell(value) for value in row] for row in self.rows]


@dataclass(frozen=True)
class FigureBlock:
    """A figure; narrow ones stand side by side where there is room, wide ones take the row.

    Attributes:
        svg: of `svg_of`.
        caption: below it.
        alt: what it shows, for those who do not see it.
    """

    svg: str
    caption: str
    alt: str
    kind = "figure"

    @property
    def wide(self) -> bool:
        """Whether it takes a row of its own."""
        return width_of(self.svg) > _HALF_PAGE


Block = TextBlock | CodeBlock | TableBlock | FigureBlock


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: its heading, also in the table of contents.
        blocks: what it shows, in this order.
        anchor: its name in links to it; ``""``: made from the title.
    """

    title: str
    blocks: Sequence[Block]
    anchor: str = ""


@dataclass(frozen=True)
class Page:
    """A whole page; the first section should say what came out."""

    title: str
    subtitle: str
    sections: Sequence[Section]

    @cached_property
    def anchors(self) -> list[str]:
        """A link name for each section, each once."""
        taken: list[str] = []
        for section in self.sections:
            slug = re.sub(r"[^a-z0-9]+", "-", (section.anchor or section.title).lower()).strip("-") or "section"
            names = (slug, *(f"{slug}-{n}" for n in range(2, len(self.sections) + 2)))
            taken.append(next(name for name in names if name not in taken))
        return taken


def render(page: Page) -> str:
    """The page as HTML."""
    return render_template(files("sngd_tune.report").joinpath("page.html").read_text(encoding="utf-8"), page=page)


def render_template(template: str, **values: Any) -> str:
    """A template of Jinja with these values: what is text is escaped, and the filter `own_ids` takes a figure's SVG."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    numbers = iter(range(1, 1 << 30))
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # What HTML cannot hold is shown as the sign for it. Markup, which is ours, stays what it is.
        finalize=lambda value: _CONTROL.sub("\N{REPLACEMENT CHARACTER}", value) if type(value) is str else value,
    )
    environment.filters["own_ids"] = lambda svg: Markup(own_ids(svg, f"f{next(numbers)}-"))
    return environment.from_string(template).render(**values)


def figure_blocks(drawing: Drawing | None) -> list[Block]:
    """A figure for each panel of a drawing, under the panel's caption; empty for None."""
    if drawing is None:
        return []
    return [
        FigureBlock(svg_of(drawing.single(panel)), panel.caption, f"{drawing.title}: {panel.caption}")
        for panel in drawing.panels
    ]


def write_page(path: Path | str, page: Page) -> Path:
    """Write a page as one file, whole or not at all; its path.

    Raises:
        LedgerError: it cannot be written; a page that was there before is as it was.
    """
    return write_html(Path(path), render(page))


def write_html(path: Path, content: str) -> Path:
    """What `write_page` does, of a page that is rendered already."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(content.encode())
    except OSError as error:
        raise LedgerError(f"{path}: cannot be written ({error.strerror or error}); free space or fix it") from error
    return path


def _alignment(values: Sequence[Any]) -> str:
    known = [value for value in values if value is not None]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
    return "right" if known and numbers else "left"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
