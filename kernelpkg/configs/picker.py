"""Rules and tuned keys, compiled once, so that a call's axis values lead to one tuned key.

Every level of the tree holds the tuned values of one axis, among the keys that the rules before
it left over. The ops that are vendored into vLLM run a copy of what picks keys here, in lines of
88 columns, with dataclasses for attrs (`vllm/vendor/op_picker.write_shared`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Final, Literal

from attrs import frozen

from kernelpkg.configs.match import BUCKETED, EXACT, Matcher, identity, inexact, matcher, order
from kernelpkg.errors import suggestion
from kernelpkg.manifest.spec import CaseKey, Match, Rule, Scalar

Outcome = Literal["exact", "bucketed", "extrapolated", "miss"]

MEMO_LIMIT: Final = 65_536
"""How many calls a picker remembers before it forgets them all."""

_OUTCOMES: tuple[Outcome, ...] = ("exact", "bucketed", "extrapolated", "miss")
_Row = tuple[int, tuple[Scalar, ...]]


@frozen(kw_only=True)
class Pick:
    """The outcome for one call: the position of a key, and how it was reached."""

    index: int | None
    outcome: Outcome


@frozen(kw_only=True)
class Step:
    """What one rule did with one axis of a call; a rule behind a miss does nothing.

    `chosen` is the tuned value that was taken; it is None for a miss and for an ignored axis.
    """

    axis: str
    match: Match
    value: Scalar
    candidates: tuple[Scalar, ...] = ()
    chosen: Scalar = None
    outcome: Outcome = "miss"
    text: str = "not reached"


_MISSED = Pick(index=None, outcome="miss")


class _Leaf:
    """The end of a path: one tuned key, as a pick for each way to reach it."""

    __slots__ = ("picks",)

    def __init__(self, rows: Sequence[_Row], ignored: Sequence[int]) -> None:
        """Take the row with the smallest ignored values; with none, all picks miss."""

        def smallest(row: _Row) -> list[tuple[object, ...]]:
            return [order(row[1][place]) for place in ignored]

        best = min(rows, key=smallest, default=None)
        self.picks = tuple(
            _MISSED if best is None else Pick(index=best[0], outcome=outcome)
            for outcome in _OUTCOMES
        )


class _Level:
    """The tuned values of one axis, and what is below each place of their matchers.

    The second one is for calls of which an earlier axis had no equal value.
    """

    __slots__ = ("below", "find", "find_inexact", "matchers")

    def __init__(self, found: Matcher, below: Sequence[_Level | _Leaf]) -> None:
        self.matchers = (found, inexact(found))
        self.find, self.find_inexact = (item.find for item in self.matchers)
        self.below = tuple(below)


class Picker:
    """The rules of one kernel over its tuned keys, ready to answer calls.

    `default_index` is the position of the empty key, which no rule ever picks; `rows`
    are the other keys, as their position and their values in the order of the rules.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        rows: Sequence[_Row],
        *,
        default_index: int | None = None,
    ) -> None:
        self.rules = tuple(rules)
        self.rows = tuple(rows)
        self.default_index = default_index
        self._root = _build(self.rules, self.rows)
        self._memo: dict[tuple[object, ...], Pick] = {}

    def pick(self, values: tuple[Scalar, ...]) -> Pick:
        """Return the pick for a call's axis values, given in the order of the rules."""
        # The types are part of the entry because True == 1.
        entry = (values, *map(type, values))
        found = self._memo.get(entry)
        if found is None:
            self._check(values)
            found = _walk(self._root, values)
            if len(self._memo) >= MEMO_LIMIT:
                self._memo.clear()
            self._memo[entry] = found
        return found

    def explain(self, values: tuple[Scalar, ...]) -> tuple[Step, ...]:
        """Return what each rule does with a call, in words; slow."""
        self._check(values)
        node: _Level | _Leaf | None = self._root
        worst = EXACT
        steps = []
        for rule, value in zip(self.rules, values, strict=True):
            if isinstance(node, _Level):
                found = node.matchers[worst != EXACT]
                place, rank = found.find(value)
                steps.append(
                    _step(found, value, place, rank, changed=found is not node.matchers[0])
                )
                worst = max(worst, rank)
                node = node.below[place] if place >= 0 else None
            else:
                steps.append(Step(axis=rule.axis, match=rule.match, value=value))
        return tuple(steps)

    def relax(self, values: tuple[Scalar, ...]) -> tuple[int | None, tuple[str, ...]]:
        """Return the position of the key that a call which misses may use, and what axes differ.

        A variant is the keys with the same values of the `exact` axes. The first variant in which
        the other rules find a key is taken: fewest axes that differ first, then those of later
        rules. A call whose own variant was tuned gets none: its rules have the last word.
        """
        exact = [place for place, rule in enumerate(self.rules) if rule.match == "exact"]
        choices = []
        for tuned, root in self._variants:
            moved = list(values)
            differing = []
            for place in exact:
                if identity(tuned[place]) != identity(values[place]):
                    differing.append(place)
                    moved[place] = tuned[place]
            if not differing:
                return None, ()  # this variant was tuned, and its rules say that the call misses
            cost = len(differing), [-place for place in differing], [order(moved[p]) for p in exact]
            choices.append((cost, root, moved, differing))
        for _, root, moved, differing in sorted(choices, key=lambda choice: choice[0]):
            found = _walk(root, tuple(moved), BUCKETED)
            if found.index is not None:
                return found.index, tuple(self.rules[place].axis for place in differing)
        return None, ()

    @cached_property
    def _variants(self) -> tuple[tuple[tuple[Scalar, ...], _Level | _Leaf], ...]:
        """The variants, compiled once: the values of a key of each, and the tree of its keys."""
        exact = [place for place, rule in enumerate(self.rules) if rule.match == "exact"]
        variants: dict[tuple[object, ...], list[_Row]] = {}
        for index, row in self.rows:
            variant = tuple(identity(row[place]) for place in exact)
            variants.setdefault(variant, []).append((index, row))
        return tuple((rows[0][1], _build(self.rules, rows)) for rows in variants.values())

    def turns(self, place: int) -> frozenset[int]:
        """Return the whole numbers of a rule's axis at which `pick` or `relax` may change.

        Between one and the next, calls that differ in this axis alone get the same.
        """
        found: set[int] = set()
        nodes: list[_Level | _Leaf] = [self._root, *(root for _, root in self._variants)]
        for _ in range(place):
            nodes = [below for node in nodes if isinstance(node, _Level) for below in node.below]
        for node in nodes:
            if isinstance(node, _Level):
                found.update(turn for item in node.matchers for turn in item.turns())
        return frozenset(found)

    def unreachable(self) -> tuple[int, ...]:
        """Return the positions of the keys that not even a call equal to them gets."""
        return tuple(index for index, row in self.rows if _walk(self._root, row).index != index)

    def _check(self, values: tuple[Scalar, ...]) -> None:
        if len(values) != len(self.rules):
            message = f"axis values: {len(values)} given, and {len(self.rules)} wanted"
            raise ValueError(message)


def compile_picker(
    rules: Sequence[Rule], keys: Sequence[CaseKey], defaults: Mapping[str, Scalar]
) -> Picker:
    """Compile rules against tuned keys, whose missing axes are filled from the defaults.

    Raises ValueError for a key that names an axis without a rule, that lacks one without a
    default, or that equals another key.
    """
    axes = [rule.axis for rule in rules]
    first: dict[tuple[object, ...], int] = {}
    rows: list[_Row] = []
    for index, key in enumerate(keys):
        row = _filled(key, axes, defaults, f"key {index}") if key else ()
        same = first.setdefault((bool(key), *map(identity, row)), index)
        if same != index:
            message = f"keys {same} and {index} are the same: {dict(key)}"
            raise ValueError(message)
        if key:
            rows.append((index, row))
    return Picker(rules, rows, default_index=first.get((False,)))


def _filled(
    key: CaseKey, axes: Sequence[str], defaults: Mapping[str, Scalar], name: str
) -> tuple[Scalar, ...]:
    """Return a key's values in the order of the rules."""
    for axis in key:
        if axis not in axes:
            message = f"{name} names axis '{axis}', which has no rule{suggestion(axis, axes)}"
            raise ValueError(message)
    for axis in axes:
        if axis not in key and axis not in defaults:
            message = f"{name} has no value for axis '{axis}', which has no default either"
            raise ValueError(message)
    return tuple(key[axis] if axis in key else defaults[axis] for axis in axes)


def _build(
    rules: Sequence[Rule],
    rows: Sequence[_Row],
    depth: int = 0,
) -> _Level | _Leaf:
    """Return the level of a rule over the keys that are left, with all below it."""
    if depth == len(rules):
        places = range(len(rules))
        return _Leaf(rows, [n for n in places if rules[n].match == "ignore"])
    groups: dict[object, list[_Row]] = {}
    for row in rows:
        groups.setdefault(identity(row[1][depth]), []).append(row)
    found = matcher(rules[depth], [group[0][1][depth] for group in groups.values()])
    if rules[depth].match == "ignore":
        return _Level(found, [_build(rules, rows, depth + 1)])
    branches = [groups[identity(value)] for value in found.tuned]
    return _Level(found, [_build(rules, branch, depth + 1) for branch in branches])


def _walk(node: _Level | _Leaf, values: tuple[Scalar, ...], worst: int = EXACT) -> Pick:
    """Follow a call's values down; there is no way back from a level that misses."""
    for value in values:
        assert isinstance(node, _Level)
        place, rank = node.find(value) if worst == EXACT else node.find_inexact(value)
        if place < 0:
            return _MISSED
        worst = max(worst, rank)
        node = node.below[place]
    assert isinstance(node, _Leaf)
    return node.picks[worst]


def _step(found: Matcher, value: Scalar, place: int, rank: int, *, changed: bool) -> Step:
    """Return what a level did, in words; it was changed where an earlier axis was not equal."""
    rule = found.rule
    why = ", for a rule before it found no equal value" if changed else ""
    return Step(
        axis=rule.axis,
        match=rule.match,
        value=value,
        candidates=found.tuned,
        chosen=None if place < 0 or rule.match == "ignore" else found.tuned[place],
        outcome=_OUTCOMES[rank],
        text=found.reason(value, rank) + why,
    )
