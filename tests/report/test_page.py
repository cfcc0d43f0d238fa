from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from sngd_tune.errors import LedgerError
from sngd_tune.report.page import (
    CodeBlock,
    FigureBlock,
    Page,
    Section,
    TableBlock,
    TextBlock,
    render,
    svg_of,
    write_page,
)
from tests.report.html import PageReader, check_self_contained

MARKUP = (
    "<script>alert(1)</script>",
    "</style></title><img src=x onerror=alert(1)>",
    "<a href='https://evil.example'>",
    '"><svg onload=alert(1)>',
    "{{ 7 * 7 }}{% raw %}",
    "&lt;&amp;&#x3c;]]><!-- -->",
    "\u202eright to left\u0000\u0007\ud800\uffff\U0001f600\u2028",
)
#: Any text, lone surrogates and control characters too, and what an attacker would try.
text = st.one_of(st.sampled_from(MARKUP), st.text(st.characters(exclude_categories=[]), max_size=30))
cells = st.one_of(text, st.none(), st.booleans(), st.integers(), st.floats())


def figure(label: str = "loss", width: float = 4.0) -> str:
    drawn = Figure(figsize=(width, 3))
    axis = drawn.subplots()
    axis.plot([1, 2, 3], [3, 1, 2], marker="o")
    axis.set_xlabel(label)
    return svg_of(drawn)


FIGURE = figure()


@st.composite
def tables(draw: st.DrawFn) -> TableBlock:
    width = draw(st.integers(1, 4))
    row = st.lists(cells, min_size=width, max_size=width)
    columns = draw(st.lists(text, min_size=width, max_size=width))
    return TableBlock(columns, draw(st.lists(row, max_size=3)), draw(text))


blocks = st.one_of(
    st.builds(TextBlock, text),
    st.builds(CodeBlock, text),
    tables(),
    st.builds(FigureBlock, st.just(FIGURE), text, text),
)
pages = st.builds(Page, text, text, st.lists(st.builds(Section, text, st.lists(blocks, max_size=3), text), max_size=3))


@settings(max_examples=60, deadline=None)
@given(page=pages)
def test_any_text_gives_a_well_formed_page_that_fetches_nothing(page: Page) -> None:
    html = render(page)
    reader = PageReader(html)
    check_self_contained(reader)
    assert html.encode("utf-8")
    figures = sum(isinstance(block, FigureBlock) for section in page.sections for block in section.blocks)
    assert reader.tags.count("svg") == figures
    assert reader.tags.count("section") == len(page.sections)


@pytest.mark.parametrize("markup", MARKUP[:-1])
def test_markup_is_shown_as_text(markup: str) -> None:
    html = render(
        Page(
            markup,
            markup,
            [Section(markup, [TextBlock(markup), CodeBlock(markup), TableBlock([markup], [[markup]], markup)])],
        )
    )
    shown = " ".join(PageReader(html).text)
    assert shown.count(markup) >= 7


def test_control_characters_become_the_sign_for_them() -> None:
    assert "a\ufffdb\ufffd" in render(Page("a\x00b\ud800", "", []))


def test_a_page_is_written_whole(tmp_path: Path) -> None:
    page = Page("Études", "subtitle", [Section("One", [TextBlock("first\n\nsecond")])])
    path = write_page(tmp_path / "new" / "page.html", page)
    assert path.read_text(encoding="utf-8") == render(page)
    assert [each.name for each in path.parent.iterdir()] == ["page.html"]
    assert path.stat().st_mode & 0o444 == 0o444


def test_a_page_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(LedgerError, match=r"there: cannot be written"):
        write_page(tmp_path / "there", Page("", "", []))
    assert [each.name for each in tmp_path.iterdir()] == ["there"]


def test_the_table_of_contents_leads_to_each_section_once() -> None:
    sections = [
        Section("Same title", []),
        Section("Same title", []),
        Section("Ωμέγα", []),
        Section("x", [], "Own name"),
    ]
    page = Page("", "", sections)
    assert page.anchors == ["same-title", "same-title-2", "section", "own-name"]
    reader = PageReader(render(page))
    assert reader.values("href") == [f"#{anchor}" for anchor in page.anchors]


def test_numbers_stand_right_and_words_left() -> None:
    table = TableBlock(("name", "n", "share", "mixed"), [("a", 1, 0.123456, 1.0), ("b", None, 2.0, "x")])
    assert table.alignment == ["left", "right", "right", "left"]
    assert table.cells == [["a", "1", "0.1235", "1"], ["b", "–", "2", "x"]]
    assert TableBlock(("n",), [(1,)], align=("left",)).alignment == ["left"]


@pytest.mark.parametrize(("rows", "align"), [([(1,)], ()), ([(1, 2, 3)], ()), ([], ("left",))])
def test_a_table_of_another_width_is_refused(rows: list[tuple[int, ...]], align: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="must have 2 entries"):
        TableBlock(("a", "b"), rows, align=align)


def test_the_same_figure_has_the_same_bytes() -> None:
    assert figure() == FIGURE
    assert figure("other") != FIGURE


def test_a_figure_has_no_document_of_its_own_and_takes_the_colour_of_the_page() -> None:
    assert FIGURE.startswith("<svg ")
    assert "http" not in FIGURE
    assert "#000000" not in FIGURE
    assert "currentColor" in FIGURE
    assert ">loss</text>" in FIGURE


def test_figures_of_one_page_share_no_id() -> None:
    block = FigureBlock(FIGURE, "caption", "alt")
    reader = PageReader(render(Page("", "", [Section("s", [block, block])])))
    check_self_contained(reader)
    assert any(value.startswith("f1-") for value in reader.values("id"))
    assert any(value.startswith("f2-") for value in reader.values("id"))


def test_text_in_a_figure_is_text() -> None:
    svg = figure("<script>alert(1)</script> & \x00 \U0001f600 url(#x)")
    reader = PageReader(render(Page("", "", [Section("s", [FigureBlock(svg, "", "")])])))
    check_self_contained(reader)
    assert "<script>alert(1)</script> & \ufffd \U0001f600 url(#x)" in reader.text


def test_a_wide_figure_takes_the_row() -> None:
    assert FigureBlock(figure(width=9), "", "").wide
    assert not FigureBlock(FIGURE, "", "").wide
