"""Colours of outcomes: each can be read, in light and in dark, and none stands alone."""

from __future__ import annotations

import pytest

from kernelpkg.report.coveragecolours import DARK, LETTERS, LIGHT, MEANS
from kernelpkg.report.coveragemap import OUTCOMES


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
