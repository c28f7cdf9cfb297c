"""What codes of problems mean, and what to do: the one place where that stands."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Final

from attrs import frozen

FILE: Final = Path(__file__).with_name("codes.toml")


@frozen(kw_only=True)
class Meaning:
    """What a code means, and the remedy; both are sentences in Markdown."""

    code: str
    means: str
    remedy: str

    def text(self) -> str:
        """Return both without Markdown: links lose where they lead, and names have quotes."""
        text = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", f"{self.means} {self.remedy}")
        return text.replace("`", "'")


@cache
def codes() -> dict[str, Meaning]:
    """Return all codes, in their order."""
    found = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return {code: Meaning(code=code, **texts) for code, texts in found.items()}
