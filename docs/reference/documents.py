"""Writes the sections of json.md beside this file, one for each command: `make docs`.

What stands before them is written by people.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kernelpkg.cli.document_schemas import DOCUMENTS, document_rows
from kernelpkg.cli.program import COMMANDS

PAGE = Path(__file__).with_name("json.md")


def section(command: str) -> Iterator[str]:
    """Yield the lines of a command: a table of keys for each document that it prints."""
    text = COMMANDS[command][1]
    yield f"## {command}\n\n[`{command}`](cli.md#{command}): {text}.\n"
    for when, kind in DOCUMENTS[command].items():
        if len(DOCUMENTS[command]) > 1 or when:
            yield f"{(when or 'otherwise').capitalize()}:\n"
        yield "| key | type |\n| --- | --- |"
        rows = [row for row in document_rows(kind) if row[0] != "format"]
        yield "\n".join(f"| `{path}` | {words} |" for path, words in rows) + "\n"


def page() -> str:
    """Return the page with the sections as the types have them."""
    before = PAGE.read_text(encoding="utf-8").partition("\n## new\n")[0]
    lines = [line for command in DOCUMENTS for line in section(command)]
    return f"{before.rstrip()}\n\n" + "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
