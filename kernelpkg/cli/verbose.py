"""What --verbose says while a command runs: what takes how long, and tracebacks."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Final

import click
from attrs import define, field

from kernelpkg.cli import terminal
from kernelpkg.errors import UNFORESEEN

_LEAST: Final = 0.1
"""Steps that take fewer seconds are not worth a line."""

_REST: Final = "the rest"


@define
class _Account:
    """What the time of a command goes to: when each phase began, and the step that is being done.

    `seen` are tracebacks, each of which is printed once.
    """

    phases: list[tuple[float, str]]
    step: tuple[float, str] | None = None
    seen: set[str] = field(factory=set)

    def end_step(self, now: float) -> None:
        """Print the step that was done until now, if it took long."""
        begun, what = self.step or (now, "")
        self.step = None
        if now - begun >= _LEAST:
            note(f"{what}: {now - begun:.1f} s")


_ACCOUNT: Final[ContextVar[_Account | None]] = ContextVar("_ACCOUNT", default=None)
"""Of the command that runs, with --verbose alone."""


def note(text: str) -> None:
    """Print a line to stderr, with --verbose."""
    if _ACCOUNT.get() is None or sys.stderr is None:
        return
    line = terminal.shown(f"# {text}", sys.stderr)
    print(click.style(line, dim=True) if terminal.coloured(sys.stderr) else line, file=sys.stderr)


def begin_step(what: str) -> None:
    """Count the time from now on as that of a step."""
    if account := _ACCOUNT.get():
        now = time.perf_counter()
        account.end_step(now)
        account.step = (now, what)


@contextlib.contextmanager
def phase(what: str) -> Iterator[None]:
    """Count the time inside as that of a phase."""
    account = _ACCOUNT.get()
    if account is None:
        yield
        return
    account.phases.append((time.perf_counter(), what))
    try:
        yield
    finally:
        now = time.perf_counter()
        account.end_step(now)
        account.phases.append((now, _REST))


@contextlib.contextmanager
def told(started: float) -> Iterator[None]:
    """Say more of what is done inside, and at its end what the time since a moment went to."""
    account = _Account(phases=[(started, "starting"), (time.perf_counter(), _REST)])
    before, watched = _ACCOUNT.set(account), UNFORESEEN.set(_print_traceback)
    try:
        yield
    finally:
        note(_times(account.phases, time.perf_counter()))
        UNFORESEEN.reset(watched)
        _ACCOUNT.reset(before)


def _times(phases: list[tuple[float, str]], end: float) -> str:
    """Return what the time went to; the parts, as they are printed, add up to the whole."""
    start = phases[0][0]
    tenths: dict[str, int] = {}
    ends = [*(begun for begun, _ in phases[1:]), end]
    for (begun, what), until in zip(phases, ends, strict=True):
        took = round((until - start) * 10) - round((begun - start) * 10)
        tenths[what] = tenths.get(what, 0) + took
    rest = tenths.pop(_REST, 0)
    parts = [f"{what} {n / 10:.1f} s" for what, n in {**tenths, _REST: rest}.items() if n]
    whole = f"{round((end - start) * 10) / 10:.1f} s"
    return f"time: {whole}" + (f" = {' + '.join(parts)}" if parts else "")


def _print_traceback(text: str) -> None:
    """Print the traceback of an error, of this process or of a worker."""
    account = _ACCOUNT.get()
    if account is not None and text not in account.seen:
        account.seen.add(text)
        for line in text.split("\n"):
            if not re.fullmatch("[ ~^]*", line):  # what marks a place in the line above it
                note(line)
