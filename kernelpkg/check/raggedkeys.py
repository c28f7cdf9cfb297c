"""Ragged keys: a stray case that takes a range of calls from neighbours that were tuned better.

Rules are applied one after another. Once a tuned value of an axis is taken, only the cases that
have it are left for the axes after it; where those are few, every call of the value's range gets
one of them, however many cases its neighbours have.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from attrs import frozen

from kernelpkg.check.checkedfile import CheckedFile, Row, identities
from kernelpkg.configs.match import Matcher, identity, matcher
from kernelpkg.errors import Problem, counted
from kernelpkg.manifest.cases import cases_of, show
from kernelpkg.manifest.spec import Match, Rule, Scalar

FEWER: Final = 4
"""A value is ragged where its neighbours have at least so many times as many later values."""

_TAKES: Final[frozenset[Match]] = frozenset({"nearest", "ceil", "floor", "pow2", "ranges"})
"""Match kinds by which a tuned value takes other calls than those equal to it."""

_FAR: Final = 1 << 40


@frozen(kw_only=True)
class Ragged:
    """A tuned value of an axis that takes calls from others, with fewer later values than theirs.

    `before` are the values of the axes before it; `low` and `high` are the first and the last
    whole number that it takes, None without an end. `later` are the axes after it, of which it has
    `own` combinations, and the values in `others` each as many as they say there.
    """

    axis: str
    value: int
    before: Mapping[str, Scalar]
    low: int | None
    high: int | None
    later: tuple[str, ...]
    own: int
    others: Mapping[int, int]
    rows: tuple[Row, ...]


def ragged(rules: Sequence[Rule], rows: Sequence[Row]) -> Iterator[Ragged]:
    """Yield the ragged values among tuned keys, by the rules from the first to the last but one.

    Combinations are counted with sizes rounded up to a power of two, so that a size that was tuned
    for the powers of two is none beside one that was tuned for every multiple of eight. A value is
    held against those that would have its calls without it. Where most values of an axis have few
    combinations, none is ragged: that is how they were tuned.
    """
    yield from _ragged(rules, list(rows), 0)


def _ragged(rules: Sequence[Rule], rows: list[Row], depth: int) -> Iterator[Ragged]:
    later = [place for place in range(depth + 1, len(rules)) if rules[place].match != "ignore"]
    if not later or not rows:
        return
    if rules[depth].match == "ignore":
        yield from _ragged(rules, rows, depth + 1)
        return
    groups: dict[object, list[Row]] = {}
    for row in rows:
        groups.setdefault(identity(row[depth]), []).append(row)
    strays = set()
    if rules[depth].match in _TAKES:
        for found in _strays(rules, groups, depth, later):
            strays.add(found.value)
            yield found
    for value, group in groups.items():
        if value not in strays:
            yield from _ragged(rules, group, depth + 1)


def _strays(
    rules: Sequence[Rule],
    groups: Mapping[object, list[Row]],
    depth: int,
    later: Sequence[int],
) -> Iterator[Ragged]:
    """Yield the ragged values of one axis, among keys that agree in the axes before it."""
    rule = rules[depth]
    everyone = matcher(rule, [value for value in groups if isinstance(value, int)])
    counts = {
        number: len({tuple(_coarse(rules[p], row[p]) for p in later) for row in groups[number]})
        for number in everyone.tuned
        if isinstance(number, int)
    }
    if not counts:
        return
    few = [value for value, count in counts.items() if count * FEWER <= max(counts.values())]
    if not few or 2 * len(few) > len(counts):
        return
    rest = matcher(rule, [value for value in counts if value not in few])
    for value in sorted(few):
        low, high = _taken(everyone, value)
        probes = (value if low is None else low, value, value if high is None else high)
        takers = {place for place in (rest.find(probe)[0] for probe in probes) if place >= 0}
        tuned = [rest.tuned[place] for place in sorted(takers)]
        neighbours = [near for near in tuned if isinstance(near, int)]
        if not neighbours or any(counts[value] * FEWER > counts[near] for near in neighbours):
            continue
        group = groups[value]
        names = [rules[place].axis for place in later]
        yield Ragged(
            axis=rule.axis,
            value=value,
            before={rules[p].axis: group[0][p] for p in range(depth)},
            low=low,
            high=high,
            later=tuple(names),
            own=_combinations(group, later),
            others={near: _combinations(groups[near], later) for near in neighbours},
            rows=tuple(group),
        )


def _combinations(group: Sequence[Row], later: Sequence[int]) -> int:
    return len({identities([row[place] for place in later]) for row in group})


def _coarse(rule: Rule, value: Scalar) -> object:
    """Return what counts as one later value: sizes up to the next power of two are the same."""
    if rule.match in _TAKES and isinstance(value, int | float) and not isinstance(value, bool):
        return value if value <= 1 else 1 << (math.ceil(value) - 1).bit_length()
    return identity(value)


def _taken(found: Matcher, value: int) -> tuple[int | None, int | None]:
    """Return the first and the last whole number of which a tuned value takes the calls.

    Without a tuned neighbour on a side it takes everything there, unless the rule bounds it. Sizes
    have no values below 0.
    """
    place = found.places[value]
    numbers = [number for number in found.tuned if isinstance(number, int)]
    below = [number for number in numbers if number < value]
    above = [number for number in numbers if number > value]

    def takes(number: int) -> bool:
        return found.find(number)[0] == place

    def last(near: int, far: int) -> int:
        """Return the number furthest from `near`, towards `far`, that the value takes."""
        while abs(far - near) > 1:
            middle = (near + far) // 2
            near, far = (middle, far) if takes(middle) else (near, middle)
        return near

    low: int | None
    if not below:
        low = None if takes(min(0, value)) else last(value, min(0, value))
    else:
        low = last(value, below[-1])
    high: int | None
    if not above:
        far = max(value, 1) * _FAR
        high = None if takes(far) else last(value, far)
    else:
        high = last(value, above[0])
    return low, high


def ragged_findings(tuned: CheckedFile, wrong: Collection[int]) -> Iterator[Problem]:
    """Yield the tuned values that take calls from neighbours with many more later values.

    Where the grid itself asks for no more, that is as its author wants it, and unverified.
    """
    if tuned.spec.picker is not None:  # it goes by no rules
        return
    rules = tuned.spec.rules
    rows = [row for place, row in tuned.rows.items() if place not in wrong]
    grid = {identities(case.key(tuned.spec)) for case in cases_of(tuned.spec, "tune")}
    for found in ragged(rules, rows):
        wanted = identities([*found.before.values(), found.value])
        of_grid = {key for key in grid if key[: len(wanted)] == wanted}
        asked = bool(of_grid) and of_grid <= {identities(row) for row in found.rows}
        place = min(tuned.by_row[identities(row)] for row in found.rows)
        yield tuned.finding(
            "KP214",
            _ragged_message(tuned, found, place, asked=asked),
            *("cases", place),
            severity="unverified" if asked else "error",
        )


def _ragged_message(tuned: CheckedFile, found: Ragged, place: int, *, asked: bool) -> str:
    low, high = found.low, found.high
    ends = f"from {low} to {high}"
    if low is None or high is None:
        ends = f"from {low} on" if low is not None else f"up to {high}"
    if low is None and high is None:
        ends = "of any size"
    where = "".join(f"{axis}={show(value)} and " for axis, value in found.before.items())
    others = " and ".join(f"{near} has {count}" for near, count in found.others.items())
    many = counted(len(found.rows), "case")
    what = "value" if len(found.later) == 1 else "combination"
    values = f"{counted(found.own, what)} of {', '.join(found.later)}"
    remedy = (
        "the grid has no more for it, so see whether they are wanted there"
        if asked
        else f"tune {found.axis}={found.value} for as many as they, or remove "
        + ("it" if len(found.rows) == 1 else "them")
    )
    which = (
        f"case {tuned.case(place)} takes"
        if len(found.rows) == 1
        else (f"{many} with {found.axis}={found.value} take")
    )
    return (
        f"{which} every call with {where}{found.axis} {ends}, with {values}, where {others}; "
        f"{remedy}"
    )
