"""JSON text -> its document, and where in the text each value stands."""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_left
from typing import Any, NoReturn

JsonPath = tuple[str | int, ...]
"""A value's place in a document: the names and positions that lead to it."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s"{}\[\]:,]+')


def parse(text: str) -> tuple[Any, bool]:
    """Return the document, and whether one of its objects has a name twice.

    Raises json.JSONDecodeError with the place of what is wrong, ValueError for NaN, for Infinity
    and for numbers beyond floats, and RecursionError for a document that is nested too deep.
    """
    repeated = False

    def collected(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeated
        found = dict(pairs)
        repeated = repeated or len(found) < len(pairs)
        return found

    document = json.loads(
        text, object_pairs_hook=collected, parse_constant=_refuse, parse_float=_finite
    )
    return document, repeated


def unreadable(error: Exception, text: str) -> tuple[int, str]:
    """Return the line and what is wrong, where a file, or `parse` of its text, raised an error."""
    if isinstance(error, json.JSONDecodeError):
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        what = "ends in the middle of its JSON" if cut else f"is not JSON at column {error.colno}"
        return error.lineno, f"the file {what} ({error.msg})"
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return 0, f"the file cannot be read ({reason})"


def lines(text: str) -> tuple[dict[JsonPath, int], tuple[tuple[JsonPath, int], ...]]:
    """Return the line of each value of a text that parses, and each name that is there again.

    A value of an object stands where its name does; one that is there twice, where it does first.
    """
    ends = [end.start() for end in re.finditer("\n", text)]
    found: dict[JsonPath, int] = {}
    again: list[tuple[JsonPath, int]] = []
    path: list[str | int] = []
    inside: list[set[str] | int] = []  # per open bracket: the names so far, or their number
    naming = False
    for token in _TOKEN.finditer(text):
        word, line = token[0], bisect_left(ends, token.start()) + 1
        around = inside[-1] if inside else None
        if word in (",", ":"):
            naming = word == "," and isinstance(around, set)
            continue
        if word in ("}", "]"):
            inside.pop()
        elif naming and isinstance(around, set):
            naming = False
            path.append(json.loads(word))
            if path[-1] in around:
                again.append((tuple(path), line))
            around.add(str(path[-1]))
            found.setdefault(tuple(path), line)
            continue
        else:
            if isinstance(around, int):
                path.append(around)
                inside[-1] = around + 1
                found.setdefault(tuple(path), line)
            if word in ("{", "["):
                inside.append(set() if word == "{" else 0)
                naming = word == "{"
                continue
        if path:
            path.pop()
    return found, tuple(again)


def _refuse(word: str) -> NoReturn:
    message = f"{word} is no finite number"
    raise ValueError(message)


def _finite(word: str) -> float:
    number = float(word)
    return number if math.isfinite(number) else _refuse(word)
