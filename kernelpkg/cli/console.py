"""What commands print with, and the statuses that they exit with."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from kernelpkg.cli.options import Shared
from kernelpkg.errors import KernelpkgError, aligned, escaped

FORMAT: Final = 1
"""Of all documents; a key that changes its meaning, or goes, raises it, and a new one does not."""

FINE: Final = 0
FOUND: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
"""128 and the number of SIGINT, as shells have it."""


def say(text: str = "", *, error: bool = False) -> None:
    """Print lines, to stderr for an `error`; what is not ours in them commands no terminal."""
    print(escaped(text, keep="\n"), file=sys.stderr if error else None)


def print_json(document: Mapping[str, Any]) -> None:
    """Print a document of a command, which begins with the format that it is in."""
    print(json_text({"format": FORMAT, **document}))


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


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows as aligned columns."""
    print("\n".join(aligned(rows)))


def complain(lines: Iterable[object]) -> None:
    for line in lines if sys.stderr is not None else ():  # it may be closed
        say(str(line), error=True)


@contextlib.contextmanager
def importing(what: str = "") -> Iterator[None]:
    """Raise KernelpkgError for a package that is missing or broken, and that something needs."""
    try:
        yield
    except ImportError as error:
        needed = f"{what} needs '{error.name}', which" if what else f"'{error.name}'"
        raise KernelpkgError(
            f"kernelpkg: {needed} cannot be imported ({error}); 'kernelpkg doctor' says more"
        ) from None


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
    """A progress bar on a terminal, and nothing elsewhere."""

    def __init__(self) -> None:
        self._bar: Any = None
        terminal = sys.stderr is not None and sys.stderr.isatty()  # it may be closed
        if terminal and not os.environ.get("KERNELPKG_NO_PROGRESS"):
            from tqdm import tqdm  # where no bar is shown, not needed

            self._bar = tqdm(leave=False, bar_format="{desc} |{bar}| {n_fmt}/{total_fmt}")

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    @property
    def shown(self) -> bool:
        """Whether there is a bar."""
        return self._bar is not None

    def step(self, what: str, done: int, steps: int) -> None:
        """Show what is about to be done, how many steps are done, and of how many."""
        if self._bar is not None:
            self._bar.total = steps
            self._bar.n = done
            self._bar.set_description_str(escaped(what))
