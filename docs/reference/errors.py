"""Writes the rows of errors.md beside this file, from the codes of the package: `make docs`.

What stands around the tables is written by people, and so is which table a new code comes to: a
row with its code and nothing else is filled.
"""

from __future__ import annotations

import re
from pathlib import Path

from kernelpkg.cli.codes import Meaning, codes

PAGE = Path(__file__).with_name("errors.md")


def row(code: Meaning) -> str:
    """Return the row of a code."""
    return f"| `{code.code}` | {code.means} | {code.remedy} |"


def page() -> str:
    """Return the page with the rows as the codes have them."""
    known = codes()
    text = PAGE.read_text(encoding="utf-8")
    return re.sub(r"^\| `(KP\d{3})` \|.*$", lambda found: row(known[found[1]]), text, flags=re.M)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
