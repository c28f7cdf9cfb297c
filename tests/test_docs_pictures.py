"""The bars of the README say what the table of the page says."""

from __future__ import annotations

import runpy
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PICTURES = runpy.run_path(str(ROOT / "docs" / "pictures.py"))


@pytest.mark.parametrize("name", ["light", "dark"])
def test_the_bars_are_those_of_the_table(name):
    """`python docs/pictures.py` draws them again after a change of the table."""
    rows = PICTURES["rows"]()
    assert len(rows) == len(list((ROOT / "kernels").glob("*/kernel.toml")))
    drawn = ET.parse(ROOT / "docs" / f"faster-{name}.svg").getroot()
    told = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    for op, value in rows:
        assert op in told
        assert f"{value:.2f}×" in told
    assert f"docs/faster-{name}.svg" in (ROOT / "README.md").read_text()
