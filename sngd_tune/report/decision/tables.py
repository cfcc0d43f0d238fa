"""A decision for a terminal, and as Markdown. Cells are plain text: what users named is no markup."""

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sngd_tune.report.comparison.tables import escaped
from sngd_tune.report.decision.document import Bullets, Document
from sngd_tune.report.page import TableBlock

__all__ = ["decision_markdown", "decision_tables"]


def decision_tables(document: Document) -> RenderableType:
    """The document for a terminal, the verdict first; without figures."""
    parts: list[RenderableType] = [Text(document.headline, "bold"), Text(f"{document.title}. {document.subtitle}")]
    for part in document.parts:
        blocks = [_shown(block) for block in part.blocks if isinstance(block, Bullets | TableBlock)]
        parts += [Text(f"\n{part.title}", "bold"), *blocks] if blocks else []
    return Group(*parts)


def decision_markdown(document: Document) -> str:
    """The document as Markdown, the verdict first; without figures."""
    parts = [f"**{escaped(document.headline)}**", escaped(f"{document.title}. {document.subtitle}")]
    for part in document.parts:
        blocks = [_markdown(block) for block in part.blocks if isinstance(block, Bullets | TableBlock)]
        parts += [f"**{escaped(part.title)}**", *blocks] if blocks else []
    return "\n\n".join(parts) + "\n"


def _shown(block: Bullets | TableBlock) -> RenderableType:
    if isinstance(block, Bullets):
        return Group(*(Text(f"· {item}") for item in block.items))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column, align in zip(block.columns, block.alignment, strict=True):
        table.add_column(Text(column), justify="right" if align == "right" else "left", overflow="fold")
    for row in block.cells:
        table.add_row(*map(Text, row))
    return Group(table, Text(block.caption, "dim"))


def _markdown(block: Bullets | TableBlock) -> str:
    if isinstance(block, Bullets):
        return "\n".join(f"- {escaped(item)}" for item in block.items)
    rules = ["--:" if align == "right" else "---" for align in block.alignment]
    rows = [list(map(escaped, block.columns)), rules, *(list(map(escaped, row)) for row in block.cells)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{table}\n\n{escaped(block.caption)}"
