"""Causes: what is wrong with many cases for one reason is one finding, and the rest is counted."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator

from attrs import evolve, frozen

from kernelpkg.errors import Problem

_NUMBER = re.compile(r"\d[\d.]*(e[+-]?\d+)?( (codes?|elements?|is|are)\b)?|\b(nan|inf)\b")
"""A number, with the words that agree with it: "1 code" and "2 codes" are one cause."""


@frozen(kw_only=True)
class Occurrence:
    """A problem of one case, whose message is what stands behind `label`, which names the case.

    `size` is that of the case. `cause` is equal for problems that are one; without any, those are
    whose messages differ in numbers alone.
    """

    problem: Problem
    label: str
    size: float
    cause: Hashable = None


def once_each(found: Iterable[Occurrence]) -> Iterator[Problem]:
    """Yield a problem for each cause, as the smallest case has it, and how many more there are."""
    groups: dict[Hashable, list[Occurrence]] = {}
    for one in dict.fromkeys(found):
        problem = one.problem
        cause = _NUMBER.sub("", problem.message) if one.cause is None else one.cause
        groups.setdefault((problem.path, problem.code, problem.severity, cause), []).append(one)
    for group in groups.values():
        first = min(group, key=lambda one: (not one.size, one.size))  # empty ones show the least
        more = f" and {len(group) - 1} more" if group[1:] else ""
        yield evolve(first.problem, message=f"{first.label}{more}{first.problem.message}")
