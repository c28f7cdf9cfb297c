"""The exceptions of kernelpkg, and the one-line problems that they carry."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from attrs import field, frozen


@frozen(kw_only=True, order=True)
class Problem:
    """One thing that is wrong: its place, a stable code, and a message that ends with the remedy.

    `path` is relative to the root of the pack, with forward slashes; `line` counts from 1, and 0
    stands for the whole file. Problems sort by place, so that a report has a fixed order.
    """

    path: str
    line: int = 0
    code: str
    message: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else self.path
        return f"{place}: {self.code} {self.message}"


class KernelpkgError(Exception):
    """The root of every error that kernelpkg raises on purpose."""


def _in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(problems))


@frozen(kw_only=True)
class PackError(KernelpkgError):
    """What is read from disk is wrong; carries every problem that was found in one run."""

    problems: tuple[Problem, ...] = field(converter=_in_order)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class CallError(KernelpkgError, ValueError):
    """A call of an op that its manifest does not accept; raised before anything is launched."""


class UsageError(KernelpkgError):
    """A command or a function was asked for something that cannot be; exit status 2."""


class RegistrationError(KernelpkgError, ValueError):
    """An op or a kernel cannot be registered, for instance because its name is taken."""


class ConfigError(KernelpkgError, ValueError):
    """No config may be used for a call, or a config does not belong to its kernel."""


def suggestion(word: str, known: Iterable[Any]) -> str:
    """Return "; did you mean 'x'?" for the nearest of the known words, or nothing."""
    near = difflib.get_close_matches(word, [str(name) for name in known], n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""
