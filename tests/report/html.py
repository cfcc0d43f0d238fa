"""Reading a page as a browser does, strictly: what it holds, and whether it is well-formed."""

from html.parser import HTMLParser

#: Elements without an end.
_VOID = {"meta", "link", "br", "img", "hr", "input"}


class PageReader(HTMLParser):
    """Collects tags, attributes and text; every tag must be closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def values(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text.append(data)


def check_self_contained(reader: PageReader) -> None:
    """No script, nothing that a browser would fetch, and links only to places of the page, each there once."""
    assert not {"script", "iframe", "object", "embed", "link", "img", "base", "form"} & set(reader.tags)
    ids = reader.values("id")
    assert len(ids) == len(set(ids))
    for tag, name, value in reader.attributes:
        assert not name.startswith("on")
        assert not name.startswith("xmlns")
        assert name not in ("src", "srcset", "action", "xlink:href")
        if name == "href":
            assert value.startswith("#"), (tag, value)
            assert value[1:] in ids
        if "url(" in value:
            assert value.startswith("url(#"), (tag, name, value)
            assert value[5:-1] in ids
