"""The exceptions of kernelpkg, the one-line problems that they carry, and how texts are shown."""

from __future__ import annotations

import contextlib
import difflib
import heapq
import itertools
import re
import traceback
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, Literal

from attrs import asdict, field, frozen

_LONG: Final = 80
"""How much of a value a message shows."""

_SAID: Final = 300
"""How much of the text of an error a message shows; PyTorch's have up to 6,400 characters."""
_SHORT: Final = 400
_WORD: Final = re.compile(r"(\S{80})\S{281,}(\S{40})")
_LINE: Final = 1500
"""What is shown whole of a message, words that are longer, and the most of a line. A path is one
word, and has to be found, so it is cut where it is longer than any that people make."""

_COMPARED: Final = 30
"""How many words a suggestion is sought among."""

Progress = Callable[[str, int, int], None]
"""Takes what is being done, how many steps are done, and of how many."""

Severity = Literal["error", "unverified"]
"""An `error` is wrong for sure; what is `unverified` cannot be told here, and its message why."""


OPTIONS: Final[ContextVar[bool]] = ContextVar("OPTIONS", default=False)
"""Whether messages are for the command line, whose options stand for parameters of Python."""


def parameter(name: str, value: str = "") -> str:
    """Name a parameter in a message as the one who reads it gives it: `root=`, or `--root`.

    `value` is what to give; that of a flag is "True".
    """
    if not OPTIONS.get():
        return f"{name}={value}"
    option = f"--{name.replace('_', '-')}"
    return option if value in ("", "True") else f"{option} {value}"


def shortened(message: str) -> str:
    """Return a message in which what is longer than people read, as it is not ours, is cut."""
    if len(message) > _SHORT:
        message = _WORD.sub(r"\1…\2", message)
    return message if len(message) <= _LINE else f"{message[:1000]}…{message[-400:]}"


@frozen(kw_only=True, order=True)
class Problem:
    """One thing that is wrong: its place, a stable code, and a message that ends with the remedy.

    Its text is one line. Problems sort by place, so that a report has a fixed order.

    Attributes:
        path: Relative to the root of the pack, with forward slashes.
        line: Counts from 1; 0 stands for the whole file.
        code: `KP` and three digits, as cli/codes.toml and docs/reference/errors.md list them.
        severity: "error", or "unverified" for what cannot be told on this machine.
        message: What is wrong, what was got, and the remedy.
        level: The lowest level of `check` that reports it, 0 to 3.
    """

    path: str
    line: int = 0
    code: str
    severity: Severity = "error"
    message: str = field(converter=shortened)
    level: int = 0

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else self.path
        doubt = "unverified: " if self.severity == "unverified" else ""
        return shortened(escaped(f"{place}: {self.code} {doubt}{self.message}"))

    def to_json(self) -> dict[str, Any]:
        """Return the entry of `check --json`.

        Returns:
            A value for each attribute, by its name.
        """
        return asdict(self)


def escaped(text: str, keep: str = "") -> str:
    """Return a text in which all that a line cannot show is escaped, but for what is to be kept.

    Names of files and texts of manifests may hold anything, as what a terminal takes for commands.
    """
    if text.isprintable():
        return text
    shown = (c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)
    return "".join(shown)


def shown(value: object) -> str:
    """Return a value that was got, as Python writes it, shortened to what a line can hold."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        return "a number of thousands of digits"
    return text if len(text) <= _LONG else f"{text[: _LONG - 1]}…"


def quoted(text: str) -> str:
    """Return a text of a manifest in quotes, shortened to what a line can hold."""
    return f"'{text}'" if len(text) <= _LONG else f"'{text[: _LONG - 1]}…'"


def innermost(error: BaseException, inside: str = "") -> TracebackType | None:
    """Return the last entry of an error's traceback whose file begins with a path, or None."""
    found, place = None, error.__traceback__
    while place is not None:
        found = place if place.tb_frame.f_code.co_filename.startswith(inside) else found
        place = place.tb_next
    return found


def led_to(error: object) -> Iterator[BaseException]:
    """Yield an error and those behind it, 20 at most; nothing for what is not an error."""
    for _ in range(20):
        if not isinstance(error, BaseException):
            return
        yield error
        error = error.__cause__ or error.__context__


class KernelpkgError(Exception):
    """The root of every error that kernelpkg raises on purpose."""

    def __str__(self) -> str:
        return shortened(super().__str__())


def _in_order(found: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(sorted(found))


@frozen(kw_only=True)
class PackError(KernelpkgError):
    """What is read from disk is wrong; carries every problem that was found in one run.

    Its text has a line for each of them.

    Attributes:
        problems: In the order of their places.
    """

    problems: tuple[Problem, ...] = field(converter=_in_order)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


def pack_error(path: str, code: str, message: str, line: int = 0) -> PackError:
    """Return the error of one problem; see `Problem` for its parts."""
    return PackError(problems=(Problem(path=path, line=line, code=code, message=message),))


@contextlib.contextmanager
def collecting(problems: list[Problem]) -> Iterator[None]:
    """Go on behind what raises PackError, whose problems are added to those that there are.

    Args:
        problems: The list that they are added to.
    """
    try:
        yield
    except PackError as error:
        problems.extend(error.problems)


UNFORESEEN: Final[ContextVar[Callable[[str], None] | None]] = ContextVar("UNFORESEEN", default=None)
"""Gets the traceback of each error that was not foreseen, of which a message has one line."""


def unforeseen(error: BaseException) -> None:
    """Hand on the traceback of an error, where somebody wants it."""
    if (told := UNFORESEEN.get()) is not None:
        told("".join(traceback.format_exception(error)).rstrip())


def error_line(error: BaseException, text: str | None = None) -> str:
    """Return what an error says, on one line; one that was not foreseen has its class before it.

    Of a long text of such a one it is the first sentence. `text` is what is left of its text, for
    whoever takes it apart.
    """
    words = " ".join((str(error) if text is None else text).split())
    if isinstance(error, KernelpkgError):
        return words
    unforeseen(error)
    words = re.sub(r" at 0x[0-9a-f]+", "", words)  # an address is another one in each run
    line = f"{type(error).__name__}: {words}".rstrip(": ;")
    if len(line) > _SAID:
        line = f"{line.partition('. ')[0]}."
    return line if len(line) <= _SAID else f"{line[: _SAID - 1]}…"


def no_place(error: OSError) -> str:
    """Say that the system refuses a file to those who compile."""
    remedy = "TRITON_CACHE_DIR and TORCHINDUCTOR_CACHE_DIR name directories with room to write"
    return f"the system refuses a file: {error_line(error)}; {remedy}"


class CallError(KernelpkgError, ValueError):
    """A call of an op that its manifest does not accept; raised before anything is launched."""


class NotInterpreted(KernelpkgError, NotImplementedError):
    """A call that Helion's interpreter cannot run; what a GPU makes of it cannot be told.

    Attributes:
        line: Where the kernel asks for it, in the file of its function; 0 where no line does.
    """

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


class UsageError(KernelpkgError):
    """A command or a function was asked for something that cannot be; exit status 2."""


class LoadWarning(UserWarning):
    """A part of a pack failed to load, and nothing was said of that being fine or not."""


class RegistrationError(KernelpkgError, ValueError):
    """An op or a kernel cannot be registered, for instance because its name is taken."""


class ConfigError(KernelpkgError, ValueError):
    """No config may be used for a call, or a config does not belong to its kernel."""


class DisabledError(ConfigError, RuntimeError):
    """A kernel has no configs on this platform, and may not run without; or no picker of them."""


def _pairs(word: str) -> set[tuple[str, str]]:
    return {*itertools.pairwise(word)}


def suggestion(word: str, known: Iterable[Any]) -> str:
    """Return "; did you mean 'x'?" for the nearest of the known words, or nothing.

    Of many words only those are compared that share most pairs of letters: to compare two takes
    50 us, and a manifest may misspell each of hundreds.
    """
    if len(word) > _LONG:
        return ""
    names = [name for name in map(str, known) if len(name) <= 2 * _LONG]
    if len(names) > _COMPARED:
        pairs = _pairs(word)
        names = heapq.nlargest(
            _COMPARED, names, lambda name: 2 * len(pairs & _pairs(name)) - len(name)
        )
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def counted(number: float, noun: str, several: str = "") -> str:
    """Return a number with its noun, whose plural may be an irregular one."""
    return f"{number} {noun if number == 1 else several or f'{noun}s'}"


def display_width(text: str) -> int:
    """Return how many columns of a terminal a text takes: signs of East Asia take two."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(sign) in "WF" for sign in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Return a line as lines that are no wider, all but the first behind an indent.

    No word is cut, for it may be a name; one that is wider has a line of its own.
    """
    lines: list[str] = []
    for part in re.findall(r"\s*\S+", text):
        if lines and display_width(lines[-1]) + display_width(part) > width:
            lines.append(indent + part.lstrip())
        else:
            lines[-1:] = ["".join(lines[-1:]) + part]
    return lines


def aligned(
    rows: Sequence[Sequence[str]], right: Collection[int] = (), width: int | None = None
) -> list[str]:
    """Return the lines of a table: the columns of these places to the right, others to the left.

    Where it is wider than `width`, the texts of the last column are wrapped, or, without room for
    them, stand below their rows; if that is not enough, columns go on below, the first one again.
    """
    rows = [[escaped(cell) for cell in row] for row in rows]
    widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)]
    start = sum(widths[:-1]) + 2 * len(widths[:-1])
    if width is not None and start + widths[-1] > width and len(widths) > 1:
        if start - 2 <= width and any(" " in row[-1] for row in rows):
            return _wrapped(rows, right, width, start)
        taken = [sum(widths[: place + 1]) + 2 * place for place in range(len(widths))]
        fits = max(2, sum(end <= width for end in taken))
        if fits < len(widths):
            rest = [[row[0], *row[fits:]] for row in rows]
            behind = {place - fits + 1 for place in right if place >= fits}
            first = aligned([row[:fits] for row in rows], right, width)
            return [*first, "", *aligned(rest, behind | ({0} & {*right}), width)]
    return [
        "  ".join(
            " " * (width - display_width(cell)) + cell
            if place in right
            else cell + " " * (width - display_width(cell))
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


_NARROW: Final = 32
"""Texts are wrapped beside the other columns where so much is left for them."""


def _wrapped(
    rows: Sequence[Sequence[str]], right: Collection[int], width: int, start: int
) -> list[str]:
    """Return a table with the texts of its last column beside the others, or below them."""
    beside = width - start >= _NARROW
    indent = " " * (start if beside else 4)
    lines: list[str] = []
    for line, row in zip(aligned([row[:-1] for row in rows], right), rows, strict=True):
        text = wrapped(row[-1] if beside or row[-1] != "-" else "", width - len(indent))
        gap = " " * (start - display_width(line))
        first = [line + gap + text.pop(0)] if beside and text else [line]
        lines += [*first, *(indent + part for part in text)]
    return lines


def folded(
    rows: Sequence[Sequence[str]], columns: Collection[str]
) -> tuple[list[list[str]], dict[str, str]]:
    """Return a table without those of the columns that are equal in all rows, and what they are.

    Args:
        rows: The head, and the rows.
        columns: Which columns may be left out, as the head names them.
    """
    head, *others = rows
    same = {
        name: others[0][place]
        for place, name in enumerate(head)
        if name in columns and len({row[place] for row in others}) == 1
    }
    kept = [place for place, name in enumerate(head) if name not in same]
    said = {name: cell for name, cell in same.items() if cell not in ("", "-")}
    return [[row[place] for place in kept] for row in rows], said


def in_common(same: Mapping[str, str], width: int) -> list[str]:
    """Return what all rows of a table have in common, as lines below it."""
    text = ", ".join(f"{name} {escaped(cell)}" for name, cell in same.items())
    return wrapped(f"all: {text}" if text else "", width, indent="    ")


@frozen(kw_only=True)
class Checked:
    """What one level of `check` found, or several of them, and what they looked at."""

    findings: tuple[Problem, ...] = field(default=(), converter=_in_order)
    counts: Mapping[str, Any] = field(factory=dict)

    def merge(self, other: Checked) -> Checked:
        """Return the findings and counts of both; equal findings are one."""
        findings = dict.fromkeys([*self.findings, *other.findings])
        return Checked(findings=tuple(findings), counts={**self.counts, **other.counts})
