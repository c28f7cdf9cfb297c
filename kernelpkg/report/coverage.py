"""Which calls of an op are exact, bucketed, extrapolated, default, missing or refused.

What is said of a call is what `ConfigPlan.options` and the guards say of it. A line is worked out
from the turns of the rules and the bounds of the guards, not by trying every size.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Final, Literal

from attrs import evolve, field, frozen

from kernelpkg.configs.match import identity, order
from kernelpkg.configs.selection import Chosen, ConfigPlan
from kernelpkg.expr.intervals import pieces, value_of
from kernelpkg.expr.language import Expr
from kernelpkg.manifest.cases import (
    Case,
    Evaluator,
    cases_of,
    guard_problems,
    needed_axes,
    show,
)
from kernelpkg.manifest.spec import AxisType, KernelSpec, Rule, Scalar

ORDERED: Final = ("nearest", "ceil", "floor", "pow2", "ranges")
"""Match kinds by which a call's number may get another tuned number."""

_USES: Final = ("tune", "bench")


def cover(plan: ConfigPlan, models: Mapping[str, Mapping[str, Scalar]]) -> Coverage:
    """Map the calls of one op on one platform; `models` are axis values by model."""
    spec = plan.spec
    types = spec.axis_types
    ordered = [r.axis for r in spec.rules if r.match in ORDERED and types[r.axis].kind == "whole"]
    axis = ordered[-1] if ordered else None
    if spec.picker is not None:
        why = f"picks with '{spec.picker}', which needs the arguments of a call"
        return Coverage(plan=plan, axis=axis, unverified=why)
    lowest = {name: _lowest(plan, types[name], name) for name in ordered}
    surveyor = _Surveyor(plan=plan, axis=axis, low=lowest[axis] if axis else 0)
    return Coverage(
        plan=plan,
        axis=axis,
        rows=tuple(surveyor.rows(surveyor.grid)),
        sizes=tuple(
            line
            for place, rule in enumerate(spec.rules)
            if rule.axis in ordered[:-1]
            for line in surveyor.size_lines(place, rule, lowest[rule.axis])
        ),
        models=tuple(
            surveyor.model(name, values, {axis for v in models.values() for axis in v})
            for name, values in models.items()
        ),
    )


def _lowest(plan: ConfigPlan, known: AxisType, axis: str) -> int:
    """Return where the line of an axis begins; sizes of 0 launch nothing, so it is 1 for most."""
    if known.low is not None and known.low >= 0:
        return max(known.low, 1)
    return min([1, *(turn - 1 for turn in plan.turns(axis))])


_Shape = Mapping[str, Scalar]
"""The axis values that calls of one row have in common."""


@frozen(kw_only=True)
class _Surveyor:
    """Asks the plan of one op what calls get."""

    plan: ConfigPlan
    axis: str | None
    low: int
    evaluate: Evaluator = field(factory=Evaluator)

    @property
    def spec(self) -> KernelSpec:
        return self.plan.spec

    @cached_property
    def told(self) -> tuple[str, ...]:
        """The axes that what a call gets depends on: those of the key, and of the guards."""
        names = {name for guard in self.spec.guards for name in guard.names()}
        names |= set(self.spec.key_axes)
        needed = needed_axes(self.spec)
        return tuple(axis.name for axis in self.spec.axes if axis.name in names & {*needed})

    @cached_property
    def grid(self) -> dict[tuple[object, ...], tuple[_Shape, dict[object, Scalar]]]:
        """The shapes of the cases to tune and to measure, each with its values of the axis."""
        found: dict[tuple[object, ...], tuple[_Shape, dict[object, Scalar]]] = {}
        for use in _USES:
            for case in cases_of(self.spec, use):
                self._put(found, case.values, [case.values[self.axis] if self.axis else None])
        return found

    def _put(
        self,
        shapes: dict[tuple[object, ...], tuple[_Shape, dict[object, Scalar]]],
        values: Mapping[str, Scalar],
        along: Iterable[Scalar],
    ) -> None:
        shape = {name: values[name] for name in self.told if name != self.axis}
        mark = tuple(map(identity, shape.values()))
        found = shapes.setdefault(mark, (shape, {}))[1]
        for value in along:
            found.setdefault(identity(value), value)

    def rows(
        self, shapes: Mapping[tuple[object, ...], tuple[_Shape, dict[object, Scalar]]]
    ) -> Iterator[Row]:
        """Yield a row for each shape, in the order of their axes."""
        for shape, along in sorted(
            shapes.values(), key=lambda found: [order(value) for value in found[0].values()]
        ):
            yield Row(
                axes=shape,
                cells=tuple(
                    Cell(value=value, answer=self.answer(self._call(shape, value)))
                    for value in sorted(along.values(), key=order)
                ),
                line=tuple(self.line(shape)) if self.axis else (),
            )

    def _call(self, shape: _Shape, value: Scalar) -> dict[str, Scalar]:
        return {**shape, self.axis: value} if self.axis else dict(shape)

    def answer(self, values: Mapping[str, Scalar], *, guarded: bool = True) -> Answer:
        """Say what one call gets."""
        if guarded:
            case = Case(values=values, use=(), grid=0)
            for _, _, wrong in guard_problems(self.spec, [case], self.evaluate):
                return Answer(outcome="refused", guard=wrong)
        axes = [values.get(axis.name) for axis in self.spec.axes]
        chosen = next(iter(self.plan.options(axes)), None)
        if chosen is None:
            return Answer(outcome="missing")
        outcome: Outcome = "missing" if chosen.outcome == "miss" else chosen.outcome
        return Answer(outcome=outcome, chosen=chosen, moves=tuple(self._moves(values, chosen)))

    def _moves(self, values: Mapping[str, Scalar], chosen: Chosen) -> Iterator[Move]:
        """Yield the axes in which a call differs from its case."""
        if not chosen.key:
            return
        far: set[str] = set()
        if chosen.outcome == "extrapolated":
            steps = self.plan.trace([values.get(axis.name) for axis in self.spec.axes])
            far = {step.axis for step in steps if step.outcome == "extrapolated"}
        for rule in self.spec.rules:
            to = chosen.key.get(rule.axis, self.spec.defaults.get(rule.axis))
            if rule.match != "ignore" and identity(to) != identity(values[rule.axis]):
                yield Move(
                    axis=rule.axis,
                    value=values[rule.axis],
                    to=to,
                    extrapolated=rule.axis in far,
                )

    def line(self, shape: _Shape) -> Iterator[Stretch]:
        """Yield what all calls of one shape get, by their value of the axis."""
        assert self.axis is not None
        bounds = {guard: tuple(found) for guard, found in self._bounds(shape)}
        starts = {self.low, *self.plan.turns(self.axis)}
        starts |= {start for found in bounds.values() for start, _ in found}
        last: tuple[object, ...] | None = None
        waiting: Stretch | None = None
        for start in sorted(start for start in starts if start >= self.low):
            states = {guard: _state(found, start) for guard, found in bounds.items()}
            refusing = next((guard for guard, state in states.items() if state is False), None)
            open_ones = tuple(guard.text for guard, state in states.items() if state is None)
            if refusing is not None:
                answer = Answer(outcome="refused", guard=f"guard '{refusing.text}' refuses it")
                open_ones = ()
            else:
                answer = self.answer(self._call(shape, start), guarded=False)
            kind = (*answer.kind(self.axis), open_ones)
            if kind == last:
                continue
            if waiting is not None:
                yield evolve(waiting, last=start - 1)
            waiting = Stretch(first=start, last=None, answer=answer, unless=open_ones)
            last = kind
        if waiting is not None:
            yield waiting

    def _bounds(self, shape: _Shape) -> Iterator[tuple[Expr, Iterator[tuple[int, bool | None]]]]:
        """Yield the guards that can be told from axes, with where on the line they hold."""
        assert self.axis is not None
        known = {name: value_of(value) for name, value in shape.items()}
        for guard in self.spec.guards:
            names = set(guard.names())
            if self.axis not in names and names <= shape.keys():
                yield guard, iter([(self.low, self._holds(guard, shape))])
            elif names <= {*shape, self.axis}:
                yield guard, pieces(guard, known, self.axis, self.low)

    def _holds(self, guard: Expr, shape: _Shape) -> bool:
        try:
            return bool(self.evaluate(guard, shape))
        except ZeroDivisionError:
            return False

    def size_lines(self, place: int, rule: Rule, low: int) -> Iterator[SizeLine]:
        """Yield where a rule takes the values of its axis, by what the rules before it left."""
        before = self.spec.key_axes[:place]
        names = [axis.name for axis in self.spec.axes]
        turns = [turn for turn in (low, *self.plan.turns(rule.axis)) if turn >= low]
        calls: dict[tuple[object, ...], dict[str, Scalar]] = {}
        for shape, along in self.grid.values():
            call = self._call(shape, next(iter(along.values())))
            calls.setdefault(tuple(identity(call[name]) for name in before), call)
        lines: dict[tuple[SizeStretch, ...], list[_Shape]] = {}
        for call in calls.values():
            found: list[SizeStretch] = []
            for turn in sorted(set(turns)):
                moved = {**call, rule.axis: turn}
                step = self.plan.trace([moved.get(name) for name in names])[place : place + 1]
                if not step or step[0].text == "not reached":
                    break
                new = SizeStretch(first=turn, last=None, to=step[0].chosen, outcome=step[0].outcome)
                if found and evolve(new, first=found[-1].first) == found[-1]:
                    continue
                if found:
                    found[-1] = evolve(found[-1], last=turn - 1)
                found.append(new)
            if found:
                given = {name: call[name] for name in before}
                lines.setdefault(tuple(found), []).append(given)
        for line, alike in lines.items():
            yield SizeLine(axis=rule.axis, match=rule.match, given=tuple(alike), line=line)

    def model(self, name: str, values: Mapping[str, Scalar], sizes: set[str]) -> ModelShape:
        """Map the calls of a model; `sizes` are the axes that any model gives."""
        given = {axis.name: values[axis.name] for axis in self.spec.axes if axis.name in values}
        needed = [axis for axis in needed_axes(self.spec) if axis in sizes and axis != self.axis]
        filled = {n: self.spec.defaults[n] for n in needed if n in self.spec.defaults}
        lacking = tuple(axis for axis in needed if axis not in given and axis not in filled)
        impossible = tuple(
            f"axis '{axis}' is {show(value)}; it must be {self.spec.axis_types[axis]}"
            for axis, value in given.items()
            if not self.spec.axis_types[axis].has(value)
        )
        if not given or lacking or impossible:
            lacking = lacking if given else ()
            return ModelShape(name=name, given=given, lacking=lacking, impossible=impossible)
        shapes: dict[tuple[object, ...], tuple[_Shape, dict[object, Scalar]]] = {}
        for shape, along in self.grid.values():
            fixed = {**shape, **filled, **given}
            values_along = [given[self.axis]] if self.axis in given else along.values()
            self._put(shapes, fixed, values_along)
        return ModelShape(name=name, given=given, rows=tuple(self.rows(shapes)))


def _state(found: Sequence[tuple[int, bool | None]], start: int) -> bool | None:
    """Return whether a condition holds from a value on; None where it may do either."""
    state: bool | None = None
    for first, holds in found:
        if first <= start:
            state = holds
    return state


Outcome = Literal["exact", "bucketed", "extrapolated", "default", "missing", "refused"]

OUTCOMES: Final[tuple[Outcome, ...]] = (
    *("exact", "bucketed", "extrapolated", "default", "missing", "refused"),
)
"""What may become of a call, the best first."""


@frozen(kw_only=True)
class Move:
    """An axis whose value in a call is not that of the case it gets.

    `ratio` is the larger of the two over the smaller, and infinite where that is not positive.
    """

    axis: str
    value: Scalar
    to: Scalar
    extrapolated: bool

    @property
    def ratio(self) -> float:
        if isinstance(self.value, bool | str | None) or isinstance(self.to, bool | str | None):
            return 1.0
        low, high = sorted((self.value, self.to))
        return high / low if low > 0 else math.inf

    @property
    def sized(self) -> bool:
        """Whether both are numbers, so that one is how many times the other."""
        return self.ratio != 1.0


@frozen(kw_only=True)
class Answer:
    """What a call gets: the outcome, the config, and how far it is from what was tuned.

    `chosen` is None where nothing runs. `guard` says which guard refuses the call.
    """

    outcome: Outcome
    chosen: Chosen | None = None
    moves: tuple[Move, ...] = ()
    guard: str | None = None

    @property
    def origin(self) -> str:
        """Where the config comes from, in a word or two."""
        chosen = self.chosen
        if chosen is None:
            return "none"
        if chosen.platform is None:
            return "helion" if chosen.config is None else "manifest"
        if chosen.mode == "default":
            return "borrowed"
        if chosen.outcome != "default":
            return "tuned"
        return "variant" if chosen.key else "empty"

    def kind(self, axis: str | None) -> tuple[object, ...]:
        """Return what two calls of one stretch have in common; they differ in one axis alone."""
        far = any(move.axis == axis and move.extrapolated for move in self.moves)
        chosen = self.chosen
        if chosen is None:
            return self.outcome, self.guard
        key = None if chosen.key is None else tuple(chosen.key.items())
        return self.outcome, far, chosen.config_id, chosen.platform, key, chosen.reason


@frozen(kw_only=True)
class Stretch:
    """Calls from one value of an axis to another that get the same; without `last`, all above.

    `unless` are guards of which some of these calls are refused, and the others get the answer.
    """

    first: int
    last: int | None
    answer: Answer
    unless: tuple[str, ...] = ()


@frozen(kw_only=True)
class Cell:
    """One call of a row: its value of the row's axis, None where there is no such axis."""

    value: Scalar
    answer: Answer


@frozen(kw_only=True)
class Row:
    """Calls that differ in one axis: those asked about, and the whole line they are on."""

    axes: Mapping[str, Scalar]
    cells: tuple[Cell, ...]
    line: tuple[Stretch, ...]


@frozen(kw_only=True)
class SizeStretch:
    """Values of an axis that one rule takes to one tuned value; None: it takes them to none."""

    first: int
    last: int | None
    to: Scalar
    outcome: Literal["exact", "bucketed", "extrapolated", "miss"]


@frozen(kw_only=True)
class SizeLine:
    """Where one rule takes the values of its axis, for calls that the rules before it tell apart.

    `given` are the values of the axes of those rules; calls with any of them are taken alike.
    """

    axis: str
    match: str
    given: tuple[Mapping[str, Scalar], ...]
    line: tuple[SizeStretch, ...]


@frozen(kw_only=True)
class ModelShape:
    """The calls of one named model: `lacking` are axes that it does not give, nor any default.

    `given` are the axes of the op that it gives; without any, the op is not for it. `impossible`
    says which of them no call can have.
    """

    name: str
    given: Mapping[str, Scalar]
    lacking: tuple[str, ...] = ()
    impossible: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()


@frozen(kw_only=True)
class Coverage:
    """What becomes of the calls of one op on one platform.

    `axis` is the last key axis whose numbers are ordered; rows run along it. `unverified` says
    why the calls cannot be mapped.
    """

    plan: ConfigPlan
    axis: str | None
    unverified: str | None = None
    rows: tuple[Row, ...] = ()
    sizes: tuple[SizeLine, ...] = ()
    models: tuple[ModelShape, ...] = ()

    @property
    def spec(self) -> KernelSpec:
        return self.plan.spec


def tally(rows: Iterable[Row]) -> dict[Outcome, int]:
    """Count the calls of rows by their outcome."""
    found = Counter(cell.answer.outcome for row in rows for cell in row.cells)
    return {outcome: found[outcome] for outcome in OUTCOMES}


def farthest(rows: Iterable[Row]) -> Move | None:
    """Return the extrapolation of a call that goes farthest, the first of equal ones."""
    moves = [m for row in rows for cell in row.cells for m in cell.answer.moves if m.extrapolated]
    return max(moves, key=lambda move: move.ratio, default=None)
