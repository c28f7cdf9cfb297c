"""What commands print with, and the statuses that they exit with."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, Final

from attrs import define, field

from kernelpkg.cli import terminal, verbose
from kernelpkg.cli.options import Shared
from kernelpkg.errors import KernelpkgError, Problem, aligned, folded, in_common

FORMAT: Final = 1
"""Of all documents; a key that changes its meaning, or goes, raises it, and a new one does not."""

FINE: Final = 0
FOUND: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
"""128 and the number of SIGINT, as shells have it."""


def say(text: str = "", *, error: bool = False) -> None:
    """Print lines, to stderr for an `error`; what is not ours in them commands no terminal."""
    stream = sys.stderr if error else sys.stdout
    print("\n".join(terminal.shown(line, stream) for line in text.split("\n")), file=stream)
    _HELD.covered |= not error


def print_json(document: Mapping[str, Any]) -> None:
    """Print a document of a command, which begins with the format that it is in."""
    print(json_text({"format": FORMAT, **document}))
    _HELD.covered = True


def json_text(document: Any) -> str:
    """Return a document as text; what a terminal or the encoding cannot show is escaped."""
    wide = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
    text = json.dumps(document, indent=2, ensure_ascii=not wide)
    shown = (c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    return text if text.replace("\n", "").isprintable() else "".join(shown)


def tell(shared: Shared, document: Mapping[str, Any], lines: Iterable[str]) -> None:
    """Print a document where it is asked for, and lines for people where it is not."""
    if shared.as_json:
        print_json(document)
    else:
        say("\n".join(lines))


def print_table(rows: Sequence[Sequence[str]], fold: Sequence[str] = ()) -> None:
    """Print rows as aligned columns; a line says of which of `fold` all rows have the same."""
    rows, same = folded(rows, fold)
    width = terminal.width(sys.stdout)
    print("\n".join((*aligned(rows, width=width), *in_common(same, width))))
    _HELD.covered = True


@define
class _Held:
    """What a terminal shows below the results of a command, where people look first.

    `told` was printed early; where results were printed since, it is `covered`, and printed again.
    """

    lines: list[object] = field(factory=list)
    told: list[object] = field(factory=list)
    covered: bool = False


_HELD: Final = _Held()


def complain(lines: Iterable[object], *, early: bool = False) -> None:
    """Print problems and other lines to stderr.

    On a terminal that shows the results too, they come behind those, unless they are told `early`.
    """
    found = list(lines)
    if sys.stderr is None:  # it may be closed
        return
    if not terminal.is_terminal(sys.stdout) or not terminal.is_terminal(sys.stderr):
        _print_sorted(found, sys.stderr)
    elif early:
        _print_sorted(found, sys.stderr)
        _HELD.told += found
        _HELD.covered = False
    else:
        _HELD.lines += found


def print_findings(lines: Iterable[object]) -> None:
    """Print what a command was asked to find; on a terminal, it comes behind everything else."""
    if terminal.is_terminal(sys.stdout):
        _HELD.lines += lines
    else:
        _print_sorted(lines, sys.stdout)


def print_held() -> None:
    """Print what was held back for the end, errors last."""
    lines = [*(_HELD.told if _HELD.covered else ()), *_HELD.lines]
    forget_held()
    if lines:
        sys.stdout.flush()
        _print_sorted(lines, sys.stderr if terminal.is_terminal(sys.stderr) else sys.stdout)


def forget_held() -> None:
    """Print nothing of what was held back, as where nobody reads any more."""
    _HELD.told, _HELD.lines = [], []


def _print_sorted(lines: Iterable[object], stream: IO[str] | None) -> None:
    """Print lines, the problems that are errors behind all others."""

    def last(line: object) -> bool:
        return isinstance(line, Problem) and line.severity == "error"

    for line in sorted(lines, key=last):
        print(terminal.shown(line, stream), file=stream)


@contextlib.contextmanager
def importing(what: str = "") -> Iterator[None]:
    """Raise KernelpkgError for a package that is missing or broken, and that something needs.

    A terminal shows what it waits for: it may take ten seconds.
    """
    try:
        with ProgressBar("importing") as progress, contextlib.redirect_stdout(sys.stderr):
            progress.step(IMPORTING)
            yield
    except ImportError as error:
        needed = f"{what} needs '{error.name}', which" if what else f"'{error.name}'"
        raise KernelpkgError(
            f"kernelpkg: {needed} cannot be imported ({error}); 'kernelpkg doctor' says more"
        ) from None


IMPORTING: Final = "importing PyTorch and Helion"


@contextlib.contextmanager
def ended_like_ctrl_c() -> Iterator[list[int]]:
    """End a run at SIGTERM, as batch systems send it, and at SIGHUP as at Ctrl-C.

    The list gets the exit status that shells give these ends.
    """
    ended: list[int] = []

    def end(number: int, _: object) -> None:
        ended.append(128 + number)
        raise KeyboardInterrupt(
            128 + number
        )  # by default the process just ends, and tidies nothing

    before = {
        number: signal.signal(number, end)
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is signal.SIG_DFL  # else nohup, or whoever runs this, has it
    }
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class ProgressBar:
    """A progress bar on a terminal, and nothing elsewhere, nor where what is done is `quick`.

    `what` is done meanwhile, and is a phase of the command for --verbose.
    """

    def __init__(self, what: str, *, quick: bool = False) -> None:
        self._phase = verbose.phase(what)
        self._bar: Any = None
        self._columns = 0
        unwanted = quick or os.environ.get("KERNELPKG_NO_PROGRESS")
        if terminal.is_smart(sys.stderr) and not unwanted:
            self._columns = terminal.width(sys.stderr)
            self._bar = terminal.bar(sys.stderr)
            self._task = self._bar.add_task(what, total=None)

    def __enter__(self) -> ProgressBar:
        if self._bar is not None:
            self._bar.start()
        self._phase.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._phase.__exit__(None, None, None)
        if self._bar is not None:
            self._bar.stop()

    def step(self, what: str, done: int = 0, steps: int | None = None) -> None:
        """Show what is about to be done, how many steps are done, and of how many, if it is known.

        With none done the times begin anew, for another kind of steps.
        """
        verbose.begin_step("finishing" if done == steps else what)
        if self._bar is None:
            return
        text = terminal.beside_bar(what, self._columns)
        if done == 0:
            self._bar.reset(self._task, total=steps)
        self._bar.update(self._task, description=text, completed=done, total=steps, refresh=True)
