"""The decision as one page of HTML, which prints on one sheet of A4, with many workloads on two."""

from importlib.resources import files
from pathlib import Path

from sngd_tune.report.decision.document import Document
from sngd_tune.report.page import render_template, write_html

__all__ = ["decision_page", "write_decision_page"]


def decision_page(document: Document) -> str:
    """The document as HTML that needs nothing else."""
    template = files("sngd_tune.report.decision").joinpath("page.html").read_text(encoding="utf-8")
    return render_template(template, document=document)


def write_decision_page(path: Path, document: Document) -> Path:
    """Write the page; its path.

    Raises:
        LedgerError: it cannot be written; a page that was there before is as it was.
    """
    return write_html(path, decision_page(document))
