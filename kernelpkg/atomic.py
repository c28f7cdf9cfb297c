"""Files that are replaced as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Put a text in a file's place at once, through a file beside it that a failure removes."""
    replace_texts({path: text})


def replace_texts(texts: Mapping[Path, str]) -> None:
    """Put texts in their files' places, each at once; none where one of them cannot be written.

    All are written beside their places before the first of them is moved there. A failure leaves
    no file and no directory behind.
    """
    beside = {path: path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp") for path in texts}
    above = {parent for path in texts for parent in path.parents if not parent.exists()}
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with beside[path].open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        for path in texts:
            os.replace(beside[path], path)
    except BaseException:
        for left in beside.values():
            with contextlib.suppress(OSError):
                left.unlink()
        for made in sorted(above, reverse=True):
            with contextlib.suppress(OSError):  # one that is no longer empty, or was not made
                made.rmdir()
        raise
