"""Tuned cases of a file against their kernel: real calls, of the grid, reached, and not ragged.

Why keys are ragged: rules are applied one after another. Once a tuned value of an axis is taken,
only the cases that have it are left for the axes after it; where those are few, every call of the
value's range gets one of them, however many cases its neighbours have.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from attrs import frozen

from kernelpkg.check.config_files import CheckedFile, KeyRow, identities
from kernelpkg.configs.match import Matcher, identity, matcher, order
from kernelpkg.configs.picker import compile_picker
from kernelpkg.errors import Problem, counted
from kernelpkg.manifest.cases import Case, cases_of, guard_problems, needed_axes, show
from kernelpkg.manifest.spec import Match, Rule, Scalar
from kernelpkg.packs.read import unfit

_LISTED: Final = 16
"""How many values of an axis a message lists."""

FEWER: Final = 4
"""A value is ragged where its neighbours have at least so many times as many later values."""

_TAKES: Final[frozenset[Match]] = frozenset({"nearest", "ceil", "floor", "pow2", "ranges"})
"""Match kinds by which a tuned value takes other calls than those equal to it."""


def value_findings(tuned: CheckedFile) -> tuple[list[Problem], frozenset[int]]:
    """Return what is wrong with values of keys, and the places of the cases that have them.

    A value must be of its axis's type, and the call that a key stands for one that the guards
    take and that arguments can be made for.
    """
    spec, found = tuned.spec, []
    wrong: set[int] = set()
    for place, row in tuned.rows.items():
        for axis, value in zip(spec.key_axes, row, strict=True):
            problem = spec.axis_types[axis].problem(value)
            if problem is not None:
                wrong.add(place)
                at = ("cases", place, "key", axis)
                message = f"case {place}, key: axis '{axis}' {problem}; correct it, or tune again"
                found.append(tuned.finding("KP210", message, *at))
    good = {place: row for place, row in tuned.rows.items() if place not in wrong}
    for place, message in _impossible(tuned, good):
        if place not in wrong:
            wrong.add(place)
            text = f"case {tuned.case(place)}: {message}; no call matches it, so remove it"
            found.append(tuned.finding("KP211", text, "cases", place))
    return found, frozenset(wrong)


def _impossible(tuned: CheckedFile, rows: dict[int, KeyRow]) -> Iterator[tuple[int, str]]:
    """Yield (place, message) for keys that no call has; guards see what keys name alone."""
    spec = tuned.spec
    keys = [
        Case(values=dict(zip(spec.key_axes, row, strict=True)), use=(), grid=place)
        for place, row in rows.items()
    ]
    for case, _, message in guard_problems(spec, keys):
        yield case.grid, message
    needed = set(needed_axes(spec))
    calls = []
    for case in keys:
        values = {**spec.defaults, **case.values}
        if needed <= values.keys():
            ordered = {axis.name: values[axis.name] for axis in spec.axes if axis.name in values}
            calls.append(Case(values=ordered, use=(), grid=case.grid))
    for case, _, _, message in unfit(spec, calls):
        yield case.grid, message


def case_findings(tuned: CheckedFile, wrong: Collection[int]) -> Iterator[Problem]:
    """Yield cases without a generator and cases of the grid that lack, unreached, and unused."""
    if not tuned.file.cases:
        message = (
            "the file has no cases, so calls get what they would get without it; "
            "tune again, or remove it"
        )
        yield tuned.finding("KP205", message, "cases")
        return
    used = {case.config for case in tuned.file.cases}
    for place in range(len(tuned.file.configs)):
        if place not in used:
            message = f"config {place} is of no case; remove it"
            yield tuned.finding("KP206", message, "configs", place)
    good = {place: row for place, row in tuned.rows.items() if place not in wrong}
    yield from _off_grid(tuned, good)
    if tuned.spec.picker is None:
        yield from _unreached(tuned, good)


def _off_grid(tuned: CheckedFile, good: dict[int, KeyRow]) -> Iterator[Problem]:
    """Yield cases that the grid does not have, together where only the last axis differs."""
    if not tuned.spec.key_axes:  # all calls get the one case
        return
    grid = {identities(case.key(tuned.spec)): case for case in cases_of(tuned.spec, "tune")}
    axis = tuned.spec.key_axes[-1]
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, row in good.items():
        if identities(row) not in grid:
            groups.setdefault(identities(row[:-1]), []).append(place)
    for places in groups.values():
        rows = sorted((good[place] for place in places), key=lambda row: order(row[-1]))
        which = f"case {tuned.shown_case(rows[0])} is"
        if len(rows) > 1:
            others = tuned.shown_case(rows[0][:-1])
            which = f"{len(rows)} cases {others}{', ' * bool(others)}{axis}={_listed(rows)} are"
        message = f"{which} in no grid of [inputs] for 'tune'"
        if tuned.overlay:
            message += ", so nothing tunes or tests it again; add it to the grid to have it checked"
            yield tuned.finding("KP215", message, "cases", min(places), severity="unverified")
        else:
            what = "them" if len(rows) > 1 else "it"
            message += f"; add {what} to the grid, or remove {what}"
            yield tuned.finding("KP215", message, "cases", min(places))
    lacking = [case for key, case in grid.items() if key not in tuned.by_row]
    if lacking:
        first = "; ".join(tuned.shown_case(case.key(tuned.spec)) for case in lacking[:2])
        more = f" and {len(lacking) - 2} more" if lacking[2:] else ""
        message = (
            f"the file lacks {len(lacking)} of {counted(len(grid), 'case')} of the grid for 'tune' "
            f"({first}{more}), whose calls take the config of another case, or a default; tune them"
        )
        yield tuned.finding("KP207", message, severity="unverified")


def _listed(rows: Sequence[KeyRow]) -> str:
    """Return the last values of rows, without the middle of many."""
    texts = [show(row[-1]) for row in rows]
    if len(texts) > _LISTED:
        texts = [*texts[: _LISTED - 2], "…", texts[-1]]
    return ", ".join(texts)


def _unreached(tuned: CheckedFile, good: dict[int, KeyRow]) -> Iterator[Problem]:
    """Yield the cases that not even a call equal to them gets, with what that gets instead."""
    axes = tuned.spec.key_axes
    places = list(good)
    keys = [dict(zip(axes, row, strict=True)) for row in good.values()]
    picker = compile_picker(tuned.spec.rules, keys, {})
    for index in picker.unreachable():
        place = places[index]
        other = picker.pick(good[place]).index
        instead = "none" if other is None else f"case {tuned.case(places[other])}"
        message = (
            f"no call gets case {tuned.case(place)}: by the rules, one equal to it gets {instead}; "
            "remove it, or change the rules"
        )
        yield tuned.finding("KP212", message, "cases", place)


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
    rows: tuple[KeyRow, ...]


def ragged(rules: Sequence[Rule], rows: Sequence[KeyRow], depth: int = 0) -> Iterator[Ragged]:
    """Yield the ragged values among tuned keys, by the rules from one on to the last but one.

    Combinations are counted with sizes rounded up to a power of two, so that a size that was tuned
    for the powers of two is none beside one that was tuned for every multiple of eight. A value is
    held against those that would have its calls without it. Where most values of an axis have few
    combinations, none is ragged: that is how they were tuned.
    """
    later = [place for place in range(depth + 1, len(rules)) if rules[place].match != "ignore"]
    if not later or not rows:
        return
    if rules[depth].match == "ignore":
        yield from ragged(rules, rows, depth + 1)
        return
    groups: dict[object, list[KeyRow]] = {}
    for row in rows:
        groups.setdefault(identity(row[depth]), []).append(row)
    strays = set()
    if rules[depth].match in _TAKES:
        for found in _strays(rules, groups, depth, later):
            strays.add(found.value)
            yield found
    for value, group in groups.items():
        if value not in strays:
            yield from ragged(rules, group, depth + 1)


def _strays(
    rules: Sequence[Rule], groups: Mapping[object, list[KeyRow]], depth: int, later: Sequence[int]
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


def _combinations(group: Sequence[KeyRow], later: Sequence[int]) -> int:
    return len({identities([row[place] for place in later]) for row in group})


def _coarse(rule: Rule, value: Scalar) -> object:
    """Return what counts as one later value: sizes up to the next power of two are the same."""
    if rule.match in _TAKES and isinstance(value, int | float) and not isinstance(value, bool):
        return value if value <= 1 else 1 << (math.ceil(value) - 1).bit_length()
    return identity(value)


def _taken(found: Matcher, value: int) -> tuple[int | None, int | None]:
    """Return the first and the last whole number of which a tuned value takes the calls.

    None stands for no end: sizes have no values below 0.
    """
    turns = sorted(found.turns())  # from one to the next, all numbers find the same
    place = found.places[value]

    def taker(number: int) -> int:
        return found.find(number)[0]

    low = next((t for t in reversed(turns) if t <= value and taker(t - 1) != place), None)
    high = next((t - 1 for t in turns if t > value and taker(t) != place), None)
    if low is not None and low <= 0 and value == min(n for n in found.tuned if isinstance(n, int)):
        low = None
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
    match low, high:
        case None, None:
            ends = "of any size"
        case None, _:
            ends = f"up to {high}"
        case _, None:
            ends = f"from {low} on"
        case _:
            ends = f"from {low} to {high}"
    where = "".join(f"{axis}={show(value)} and " for axis, value in found.before.items())
    others = " and ".join(f"{near} has {count}" for near, count in found.others.items())
    what = "value" if len(found.later) == 1 else "combination"
    values = f"{counted(found.own, what)} of {', '.join(found.later)}"
    which, them = f"{len(found.rows)} cases with {found.axis}={found.value} take", "them"
    if len(found.rows) == 1:
        which, them = f"case {tuned.case(place)} takes", "it"
    remedy = f"tune {found.axis}={found.value} for as many as they are, or remove {them}"
    if asked:
        remedy = "the grid has no more for it; check whether you want them there"
    return (
        f"{which} every call with {where}{found.axis} {ends}, with {values}, where {others}; "
        f"{remedy}"
    )
