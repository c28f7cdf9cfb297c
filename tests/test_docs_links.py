"""Every link of a page leads to a file and a heading; every docs/… that is named exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("guide", "reference", "inside")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SOURCES = [
    ROOT / "Makefile",
    *(ROOT / "manifests").glob("*.toml"),
    *(
        path
        for room in ("kernelpkg", "tests", "benchmarks")
        for path in (ROOT / room).rglob("*.py")
    ),
]


def anchors(page):
    """Return the anchors that GitHub makes of the headings of a page."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_folders_of_the_documentation_are_three():
    """What a user does, what he looks up, and what holds it together inside."""
    assert sorted(path.name for path in (ROOT / "docs").iterdir()) == sorted(FOLDERS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    """To a file of the repository and, behind a #, to one of its headings."""
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not re.match(r"https?://", link):
            file, _, anchor = link.partition("#")
            found = page.parent / file if file else page
            assert found.exists(), link
            assert not anchor or anchor in anchors(found), link


def test_every_page_that_is_named_exists():
    """A page that moves takes with it every text that names it."""
    texts = {path: path.read_text(encoding="utf-8") for path in (*PAGES, *SOURCES)}
    named = re.compile(r"\bdocs/[\w/]+\.(?:md|svg)\b")
    found = {name for text in texts.values() for name in named.findall(text)}
    assert {name for name in found if not (ROOT / name).is_file()} == set()
