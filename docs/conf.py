"""The site: Sphinx and MyST over the Markdown of docs/ and of the root, `make site`.

Pages are plain Markdown, with relative links that GitHub follows too. What is in the side bar, in
which order, follows from the tables of docs/index.md.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
VERSION = re.compile(r'__version__: Final = "(.+)"')

project = "kernelpkg"
release = VERSION.findall((ROOT / "kernelpkg/__init__.py").read_text(encoding="utf-8"))[0]
extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = ["docs/**/*.md", "docs/*.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
exclude_patterns = [".*", "builds", "configs", "dist", "kernelpkg", "kernels", "tests"]
myst_heading_anchors = 4  # as GitHub gives every heading one
nitpicky = True

html_theme = "furo"
html_title = f"kernelpkg {release}"
html_copy_source = False
templates_path = ["templates"]
html_additional_pages = {"index": "index.html"}  # the root of the site leads to docs/index


def add_contents(app: Sphinx, name: str, source: list[str]) -> None:
    """Give the first page a table of contents: a part for each heading, a page for each row."""
    if name != root_doc:
        return
    for part in re.split(r"^## ", source[0], flags=re.MULTILINE)[1:]:
        pages = "\n".join(re.findall(r"^\| \[.*?\]\((\S+)\.md\)", part, re.MULTILINE))
        caption = part.partition("\n")[0]
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{pages}\n```\n"


def copy_files(app: Sphinx, exception: Exception | None) -> None:
    """Put pictures and the page of the first pack where pages look; Sphinx reads none of HTML."""
    if exception is None and app.builder.name == "html":
        for path in (*(ROOT / "docs").glob("*.svg"), ROOT / "docs/first_pack.html"):
            shutil.copy(path, app.outdir / "docs")


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("source-read", add_contents)
    app.connect("build-finished", copy_files)
