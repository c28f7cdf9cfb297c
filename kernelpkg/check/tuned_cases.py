"""The cases of a config file held against the kernel: real calls, of the grid, and reached."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from kernelpkg.check.checkedfile import CheckedFile, Row, identities
from kernelpkg.configs.match import order
from kernelpkg.configs.picker import compile_picker
from kernelpkg.errors import Problem, counted
from kernelpkg.manifest.cases import Case, cases_of, guard_problems, needed_axes, show
from kernelpkg.packs.read import unfit

_LISTED: Final = 16
"""How many values of an axis a message lists."""


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
            text = f"case {tuned.case(place)}: {message}; no call is like it, so remove it"
            found.append(tuned.finding("KP211", text, "cases", place))
    return found, frozenset(wrong)


def _impossible(tuned: CheckedFile, rows: dict[int, Row]) -> Iterator[tuple[int, str]]:
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


def _off_grid(tuned: CheckedFile, good: dict[int, Row]) -> Iterator[Problem]:
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
        message = f"{which} of no grid of [inputs] that is for 'tune'"
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
            f"({first}{more}), whose calls take the config of another case, or a default; "
            "tune them"
        )
        yield tuned.finding("KP207", message, severity="unverified")


def _listed(rows: Sequence[Row]) -> str:
    """Return the last values of rows, without the middle of many."""
    texts = [show(row[-1]) for row in rows]
    if len(texts) > _LISTED:
        texts = [*texts[: _LISTED - 2], "…", texts[-1]]
    return ", ".join(texts)


def _unreached(tuned: CheckedFile, good: dict[int, Row]) -> Iterator[Problem]:
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
