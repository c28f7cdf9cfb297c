"""Drawings: texts are escaped, palettes are style sheets, pages are well-formed."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from kernelpkg.configs.selection import OUTCOMES
from kernelpkg.report import svg
from kernelpkg.report.coverage_chart import DARK, LETTERS, LIGHT, MEANS

DAY = svg.Palette(
    page="#ffffff",
    text="#000000",
    muted="#333333",
    edge="#444444",
    hatch="#999999",
    things={"exact": svg.Colours(fill="#0000ff", text="#ffffff")},
)
NIGHT = svg.Palette(
    page="#000000", text="#ffffff", muted="#cccccc", edge="#bbbbbb", hatch="#666666", things={}
)
SHAPES = svg.Shapes()
SVG = "{http://www.w3.org/2000/svg}"


def page(*parts):
    return svg.page(
        parts,
        shapes=SHAPES,
        wide=10,
        high=20,
        title="A <b>",
        described="x & y",
        light=DAY,
        dark=NIGHT,
    )


def test_a_page_is_well_formed_and_says_what_it_is():
    """Who hears it gets a title and a description; texts are texts."""
    root = ET.fromstring(page(svg.text(1, 2, "a < b & c"), svg.rect(0, 0, 1, 1, "exact edge")))
    assert root.get("role") == "img"
    assert root.get("viewBox") == "0 0 10 20"
    named = [root.find(f"*[@id='{name}']").text for name in root.get("aria-labelledby").split()]
    assert named == ["A <b>", "x & y"]
    assert root.find(f"{SVG}text").text == "a < b & c"


@pytest.mark.parametrize(
    "odd", ["\x00", "\x1b", "\x9b", "\n", "\u202e", "\ud800", "\uffff"], ids=ascii
)
def test_what_a_line_cannot_show_is_escaped(odd):
    """Names of models and values of configs may hold it; the file is read nevertheless."""
    told = f"a{odd}<b"
    drawn = svg.page(
        [svg.group([svg.text(0, 0, told)], told)],
        shapes=SHAPES, wide=1, high=1, title=told, described=told, light=DAY, dark=NIGHT,
    )  # fmt: skip
    root = ET.fromstring(drawn.encode())
    texts = [found.text for found in root.iter() if found.tag in _TOLD]
    assert texts == [f"a{ascii(odd)[1:-1]}<b"] * 4


_TOLD = {f"{SVG}{tag}" for tag in ("title", "desc", "text")}


def test_a_page_holds_both_palettes():
    """The dark one counts where the viewer prefers it, and nothing is fetched from elsewhere."""
    text = page()
    style = ET.fromstring(text).find(f"{SVG}style").text
    light, dark = style.split("@media (prefers-color-scheme:dark)")
    assert ".page{fill:#ffffff}" in light
    assert ".exact{fill:#0000ff}.on-exact{fill:#ffffff}" in light
    assert ".page{fill:#000000}" in dark
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_a_group_tells_its_tip():
    root = ET.fromstring(page(svg.group([svg.rect(0, 0, 1, 1, "exact")], "1 < 2")))
    assert root.find(f"{SVG}g/{SVG}title").text == "1 < 2"


def test_a_shape_is_written_once_however_often_it_is_used():
    """Its name is that of its place in the page; another shape has another."""
    shape = svg.rect(0, 0, 1, 1, "exact")
    used = [SHAPES.use(shape, 3, 0), SHAPES.use(shape, 0, 4), SHAPES.use(shape * 2, 0, 0)]
    assert used == ['<use href="#s0" x="3"/>', '<use href="#s0" y="4"/>', '<use href="#s1"/>']
    root = ET.fromstring(page(*used))
    drawn = {found.get("id"): len(found) for found in root.find(f"{SVG}defs").iter(f"{SVG}g")}
    assert drawn == {"s0": 1, "s1": 2}


def test_a_text_is_at_least_as_wide_as_it_is_long():
    assert svg.width("", 11) == 1
    assert svg.width("abcdefghij", 10) == 61


def luminance(colour):
    """Return the relative luminance of WCAG 2.2."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_all_texts_and_edges_can_be_seen(palette):
    """Texts have 4.5 to what they stand on, edges 3 to the page."""
    assert contrast(palette.text, palette.page) >= 7
    assert contrast(palette.muted, palette.page) >= 4.5
    assert contrast(palette.edge, palette.page) >= 3
    for outcome in OUTCOMES:
        colours = palette.things[outcome]
        assert contrast(colours.text, colours.fill) >= 4.5, outcome
    refused = palette.things["refused"]
    assert contrast(refused.text, palette.hatch) >= 4.5


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_outcomes_differ_by_letter_and_by_colour(palette):
    assert set(LETTERS) == set(MEANS) == set(palette.things) == set(OUTCOMES)
    assert len(set(LETTERS.values())) == len(OUTCOMES)
    assert len({palette.things[outcome].fill for outcome in OUTCOMES}) == len(OUTCOMES)
