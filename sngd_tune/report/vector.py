"""Figures as SVG that stands inside an HTML page: no document of its own, no reference to anything outside."""

import io
import re
import warnings
from typing import Any
from xml.etree import ElementTree

__all__ = ["own_ids", "svg_of", "width_of"]

#: What XML 1.0 cannot hold; matplotlib would write it all the same.
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
#: One salt for all, so that the same figure has the same bytes; a page makes its ids its own (`own_ids`).
_SALT = "sngd_tune"


def svg_of(figure: Any) -> str:
    """A matplotlib figure as an ``<svg>`` element, the same bytes for the same figure.

    The background is transparent and what is black takes the colour of the page's text, so that it is read on light and
    on dark ground. Text stays text. Sizes are matplotlib's points, which the page scales.
    """
    import matplotlib as mpl

    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": _SALT}), warnings.catch_warnings():
        # The browser has glyphs that matplotlib's font, here only to measure, lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    root = ElementTree.fromstring(_NOT_XML.sub("\N{REPLACEMENT CHARACTER}", buffer.getvalue()))
    _simplify(root)
    for element in root.iter():
        element.attrib = {name: value.replace("#000000", "currentColor") for name, value in element.attrib.items()}
    return ElementTree.tostring(root, encoding="unicode")


def own_ids(svg: str, prefix: str) -> str:
    """The SVG with this before each of its ids, so that figures of one page do not take each other's parts."""
    root = ElementTree.fromstring(svg)
    _simplify(root)
    for element in root.iter():
        for name, value in element.attrib.items():
            if name == "id":
                element.set(name, f"{prefix}{value}")
            elif name == "href":
                element.set(name, re.sub("^#", f"#{prefix}", value))
            else:
                element.set(name, value.replace("url(#", f"url(#{prefix}"))
    return ElementTree.tostring(root, encoding="unicode")


def width_of(svg: str) -> float:
    """The natural width in points; 0 where the SVG names none."""
    found = re.match(r'<svg[^>]*\bwidth="([\d.]+)(?:pt)?"', svg)
    return float(found[1]) if found else 0.0


def _simplify(root: ElementTree.Element) -> None:
    """Plain names as HTML wants them, without namespaces, metadata and styles that would reach beyond the figure."""
    root.attrib.pop("version", None)
    for element in list(root.iter()):
        element.tag = _plain(element.tag)
        element.attrib = {_plain(name): value for name, value in element.attrib.items()}
        for child in list(element):
            if _plain(child.tag) in ("metadata", "style", "script"):
                element.remove(child)
    named = {found for element in root.iter() for found in _references(element)}
    for element in root.iter():
        if element.get("id") not in named:
            element.attrib.pop("id", None)


def _references(element: ElementTree.Element) -> list[str]:
    """The ids that an element refers to."""
    href = element.get("href", "")
    inside = [found for value in element.attrib.values() for found in re.findall(r"url\(#([^)]+)\)", value)]
    return [href.removeprefix("#"), *inside] if href.startswith("#") else inside


def _plain(name: str) -> str:
    return name.rpartition("}")[2]
