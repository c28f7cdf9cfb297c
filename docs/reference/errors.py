"""Writes what errors.md beside this file says of each code, from the package: `make docs`.

What stands around the codes is written by people, and so is where a new code comes to: a heading
with nothing below it is filled. Headings, and no table, for each has an anchor.
"""

from __future__ import annotations

import re
from pathlib import Path

from kernelpkg.cli.codes import Meaning, codes

PAGE = Path(__file__).with_name("errors.md")


def entry(code: Meaning) -> str:
    """Return the heading of a code, with what is below it."""
    return f"### {code.code}\n\n{code.means} **Remedy:** {code.remedy}\n\n"


def page() -> str:
    """Return the page with the entries as the codes have them."""
    known = codes()
    text = PAGE.read_text(encoding="utf-8")
    old = re.compile(r"^### (KP\d{3})\n(?:(?!#).*\n)*", re.MULTILINE)
    return f"{old.sub(lambda found: entry(known[found[1]]), text).rstrip()}\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
