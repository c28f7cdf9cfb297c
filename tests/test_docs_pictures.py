"""The pictures of pages say what the pages say, and can be read in light and dark."""

from __future__ import annotations

import runpy
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONCEPTS = ROOT / "docs" / "explanation" / "concepts.md"
PICTURES = runpy.run_path(str(ROOT / "docs" / "pictures.py"))
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", ["light", "dark"])
def test_the_bars_are_those_of_the_table(name):
    """`python docs/pictures.py` draws them again after a change of the table."""
    rows = PICTURES["rows"]()
    assert len(rows) == len(list((ROOT / "kernels").glob("*/kernel.toml")))
    drawn = ET.parse(ROOT / "docs" / f"faster-{name}.svg").getroot()
    told = [text.text for text in drawn.iter(f"{SVG}text")]
    for op, value in rows:
        assert op in told
        assert f"{value:.2f}×" in told
    assert f"docs/faster-{name}.svg" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", ["light", "dark"])
def test_the_pipeline_is_drawn_as_it_is_described(name):
    """`python docs/pictures.py` draws it again after a change of its text."""
    path = ROOT / "docs" / f"pipeline-{name}.svg"
    assert path.read_text() == PICTURES["pipeline"](PICTURES["COLOURS"][name])
    drawn = [text.text for text in ET.parse(path).getroot().iter(f"{SVG}text")]
    steps = ("manifest", "pickers", "op", "config", "launch")
    assert [text for text in drawn if text in steps] == list(steps)
    for page, folder in ((ROOT / "README.md", "docs/"), (CONCEPTS, "../")):
        assert f'"{folder}pipeline-{name}.svg"' in page.read_text()


def luminance(colour):
    """Return the relative luminance of #rrggbb, by WCAG 2.2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("name", ["light", "dark"])
@pytest.mark.parametrize(
    ("text", "ground"),
    [("text", "page"), ("text", "panel"), ("faint", "panel"), ("on_bar", "bar")],
)
def test_text_stands_out(name, text, ground):
    """By 4.5 to 1 at least, on what it lies on."""
    colours = PICTURES["COLOURS"][name]
    dark, light = sorted(luminance(colours[which]) for which in (text, ground))
    assert (light + 0.05) / (dark + 0.05) >= 4.5
