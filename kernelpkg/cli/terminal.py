"""What a terminal shows: how wide lines are, whether they have colours, a bar while one waits."""

from __future__ import annotations

import os
import re
from contextvars import ContextVar
from typing import IO, Any, Final

import click

from kernelpkg.errors import Problem, display_width, escaped, wrapped

PLAIN: Final = 80
"""How wide tables are where no terminal says it, as in files and pipes."""

COLOUR: Final[ContextVar[str]] = ContextVar("COLOUR", default="auto")
"""What --color says."""

_COLOURS: Final = {"error": "red", "unverified": "yellow"}

_ROOM: Final = 40
"""What the bar, the numbers and the times of `bar` take of a line, and one column more."""


def is_terminal(stream: IO[str] | None) -> bool:
    """Return whether people read a stream; it may be closed."""
    return stream is not None and not stream.closed and stream.isatty()


def is_smart(stream: IO[str] | None) -> bool:
    """Return whether a stream takes colours, and lines that are drawn again."""
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def width(stream: IO[str] | None) -> int:
    """Return how wide the lines of a stream may be."""
    if stream is None or not is_terminal(stream):
        return PLAIN
    try:
        return os.get_terminal_size(stream.fileno()).columns or PLAIN
    except OSError:
        return PLAIN


def coloured(stream: IO[str] | None) -> bool:
    """Return whether a stream gets colours: as --color says, then NO_COLOR, then FORCE_COLOR."""
    if COLOUR.get() != "auto":
        return COLOUR.get() == "always"
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or is_smart(stream)


def shown(line: object, stream: IO[str] | None) -> str:
    """Return a line as a stream shows it, without what would command a terminal.

    On a terminal it is wrapped between words. There, and wherever colours are asked for, a problem
    has its severity before its code.
    """
    for_people = isinstance(line, Problem) and (is_terminal(stream) or coloured(stream))
    text = _severe(line) if for_people and isinstance(line, Problem) else escaped(str(line))
    if is_terminal(stream):
        text = _wrapped(text, width(stream))
    if for_people and isinstance(line, Problem) and coloured(stream):
        mark = f"{line.severity}[{line.code}]:"
        text = text.replace(mark, click.style(mark, fg=_COLOURS[line.severity], bold=True), 1)
    return text


def _severe(problem: Problem) -> str:
    place = f"{problem.path}:{problem.line}" if problem.line else problem.path
    return escaped(f"{place}: {problem.severity}[{problem.code}]: {problem.message}")


def _wrapped(line: str, columns: int) -> str:
    """Wrap a line between words, below its text where that has a label, and else with an indent."""
    if display_width(line) <= columns:
        return line
    label = _LABEL.match(line)
    lead = re.match("(# )? *", line)
    indent = len(label[0]) if label else len(lead[0]) + 2  # type: ignore[index]  # it matches
    return "\n".join(wrapped(line, columns, " " * indent))


_LABEL: Final = re.compile("(?!kernelpkg:)[a-z][a-z_ ]{0,9}: +")
"""What stands before the facts of `show` and `explain`."""


def bar(stream: IO[str]) -> Any:
    """Return a bar of rich's, which is gone when it is stopped; what is printed stands above it."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    colours = {} if coloured(stream) else {"color_system": None}
    return Progress(
        BarColumn(bar_width=12),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.description}", markup=False),
        console=Console(file=stream, force_terminal=True, width=width(stream), **colours),  # type: ignore[arg-type]
        transient=True,
        redirect_stdout=False,
        speed_estimate_period=1e9,  # by all steps: one of tuning takes minutes
        refresh_per_second=4,
    )


def beside_bar(text: str, columns: int) -> str:
    """Return as much of a text as stands on the line of a bar."""
    room = max(columns - _ROOM, 8)
    text = escaped(text)
    if display_width(text) <= room:
        return text
    while display_width(text) >= room:
        text = text[:-1]
    return f"{text}…"
