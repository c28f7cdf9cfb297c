"""Every link of a page leads to a file and a heading; every docs/… that is named exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "tutorial": "a first kernel",
    "guide": "what a user does",
    "reference": "what a user looks up",
    "explanation": "what words and designs mean",
    "inside": "what holds it together, for those who change it",
}
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


def test_the_folders_of_the_documentation():
    """The four parts of Diátaxis, and a folder for those who change the code."""
    found = {page.relative_to(ROOT / "docs").parts[0] for page in (ROOT / "docs").rglob("*/*.md")}
    assert found == set(FOLDERS)


def test_the_first_page_leads_to_every_page():
    """docs/conf.py makes the side bar of the site from the rows of its tables."""
    index = ROOT / "docs" / "index.md"
    rows = re.findall(r"^\| \[.*?\]\((\S+\.md)\)", index.read_text(encoding="utf-8"), re.M)
    found = [(index.parent / row).resolve() for row in rows]
    assert sorted(found) == [page for page in PAGES if page not in (index, ROOT / "README.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    """To a file of the repository and, behind a #, to one of its headings; so does what is HTML."""
    text = page.read_text(encoding="utf-8")
    pictures = re.findall(r'(?:src|srcset|href)="([^"]+)"', text)
    for link in (*re.findall(r"\]\(([^)\s]+)\)", text), *pictures):
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
