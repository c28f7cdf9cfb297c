"""The source of functions, kept as it was when they were loaded."""

from __future__ import annotations

import io
import linecache
import tokenize
from pathlib import Path
from typing import Any


class Pins:
    """Keeps the source of functions as it was when they were loaded.

    Helion compiles a function at its first call, from the lines that `linecache` has of its file
    by then. Without this, a file that is edited in between would be compiled in part as it is now.
    """

    def __init__(self) -> None:
        self._before: dict[str, Any] = {}

    def pin(self, path: Path, content: bytes) -> None:
        """Keep a file's lines; an entry without a time of change is never looked at again."""
        file = str(path)
        if file not in self._before:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
            lines = io.StringIO(content.decode(encoding), newline=None).readlines()
            self._before[file] = linecache.cache.get(file)
            linecache.cache[file] = (sum(map(len, lines)), None, lines, file)

    def undo(self) -> None:
        """Go back to the lines from before, of the functions that stay."""
        for file, entry in self._before.items():
            linecache.cache.pop(file, None)
            if entry is not None:
                linecache.cache[file] = entry
