"""Which calls of an op are exact, bucketed, extrapolated, default, missing or refused.

What is said of a call is what `ConfigSelection.answer` says of it. A line is worked out from the
turns of the rules and the bounds of the guards, not by trying every size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Final

from attrs import evolve, field, frozen

from kernelpkg.configs.directories import ConfigPlace
from kernelpkg.configs.match import identity, order
from kernelpkg.configs.picker import Outcome
from kernelpkg.configs.selection import OUTCOMES, Answer, CallOutcome, ConfigSelection, Move
from kernelpkg.expr.intervals import pieces, value_of
from kernelpkg.expr.language import Expr
from kernelpkg.manifest.cases import Evaluator, cases_of, needed_axes, show
from kernelpkg.manifest.spec import KernelSpec, Rule, Scalar

ORDERED: Final = ("nearest", "ceil", "floor", "pow2", "ranges")
"""Match kinds by which a call's number may get another tuned number."""

_USES: Final = ("tune", "bench")

_Axes = Mapping[str, Scalar]
_Shapes = dict[tuple[object, ...], tuple[_Axes, dict[object, Scalar]]]
"""The axis values that calls of one row have in common, each with its values of the row's axis."""


def cover(
    selection: ConfigSelection,
    models: Mapping[str, Mapping[str, Scalar]],
    place: ConfigPlace | None = None,
) -> Coverage:
    """Map the calls of one op on one platform.

    `models` are axis values by model, `place` is the platform's own file of configs.
    """
    spec = selection.spec
    ordered = [
        (place, rule)
        for place, rule in enumerate(spec.rules)
        if rule.match in ORDERED and spec.axis_types[rule.axis].kind == "whole"
    ]
    axis = ordered[-1][1].axis if ordered else None
    own = selection.own()
    others = (t.platform for t in selection.tables if t.platform != selection.platform)
    found = Coverage(
        spec=spec,
        platform=selection.platform,
        counts=(0, 0) if own is None else own.file.counts(),
        borrows=() if spec.miss == "error" else tuple(others),
        place=place,
        axis=axis,
    )
    if spec.picker is not None:
        why = f"picks with '{spec.picker}', which needs the arguments of a call"
        return evolve(found, unverified=why)
    calls = _Calls(selection=selection, axis=axis, low=_lowest(selection, axis) if axis else 0)
    sizes = {axis for values in models.values() for axis in values}
    return evolve(
        found,
        rows=tuple(calls.rows(calls.grid)),
        sizes=tuple(line for place, rule in ordered[:-1] for line in calls.size_lines(place, rule)),
        models=tuple(calls.model(name, values, sizes) for name, values in models.items()),
    )


def _lowest(selection: ConfigSelection, axis: str) -> int:
    """Return where the line of an axis begins; sizes of 0 launch nothing, so it is 1 for most."""
    low = selection.spec.axis_types[axis].low
    if low is not None and low >= 0:
        return max(low, 1)
    return min([1, *(turn - 1 for turn in selection.turns(axis))])


@frozen(kw_only=True)
class _Calls:
    """The calls of one op: asks its selection what they get."""

    selection: ConfigSelection
    axis: str | None
    low: int
    evaluate: Evaluator = field(factory=Evaluator)

    @property
    def spec(self) -> KernelSpec:
        return self.selection.spec

    @cached_property
    def told(self) -> tuple[str, ...]:
        """The axes that what a call gets depends on: those of the key, and of the guards."""
        names = {name for guard in self.spec.guards for name in guard.names()}
        names |= set(self.spec.key_axes)
        return tuple(axis for axis in needed_axes(self.spec) if axis in names)

    @cached_property
    def grid(self) -> _Shapes:
        """The shapes of the cases to tune and to measure."""
        found: _Shapes = {}
        for use in _USES:
            for case in cases_of(self.spec, use):
                self._put(found, case.values, [case.values[self.axis] if self.axis else None])
        return found

    def _put(self, shapes: _Shapes, values: _Axes, along: Iterable[Scalar]) -> None:
        shape = {name: values[name] for name in self.told if name != self.axis}
        mark = tuple(map(identity, shape.values()))
        found = shapes.setdefault(mark, (shape, {}))[1]
        for value in along:
            found.setdefault(identity(value), value)

    def rows(self, shapes: _Shapes) -> Iterator[Row]:
        """Yield a row for each shape, in the order of their axes."""
        for shape, along in sorted(
            shapes.values(), key=lambda found: [order(value) for value in found[0].values()]
        ):
            numbers = sorted(along.values(), key=order)
            answers = [self.selection.answer(self._call(shape, n), self.evaluate) for n in numbers]
            yield Row(
                axes=shape,
                cells=tuple(Cell(value=n, answer=a) for n, a in zip(numbers, answers, strict=True)),
                line=tuple(self._line(shape)) if self.axis else (),
            )

    def _call(self, shape: _Axes, value: Scalar) -> dict[str, Scalar]:
        return {**shape, self.axis: value} if self.axis else dict(shape)

    def _line(self, shape: _Axes) -> Iterator[Stretch]:
        """Yield what all calls of one shape get, by their value of the axis."""
        assert self.axis is not None
        bounds = {guard: tuple(found) for guard, found in self._bounds(shape)}
        starts = {self.low, *self.selection.turns(self.axis)}
        starts |= {start for found in bounds.values() for start, _ in found}
        last: tuple[object, ...] | None = None
        waiting: Stretch | None = None
        for start in sorted(start for start in starts if start >= self.low):
            states = {
                guard: next((holds for first, holds in reversed(found) if first <= start), None)
                for guard, found in bounds.items()
            }
            refusing = next((guard for guard, state in states.items() if state is False), None)
            open_ones = tuple(guard.text for guard, state in states.items() if state is None)
            if refusing is not None:
                answer = Answer(outcome="refused", guard=f"guard '{refusing.text}' refuses it")
                open_ones = ()
            else:
                answer = self.selection.answer(self._call(shape, start), guarded=False)
            kind = (*answer.kind(self.axis), open_ones)
            if kind == last:
                continue
            if waiting is not None:
                yield evolve(waiting, last=start - 1)
            waiting = Stretch(first=start, last=None, answer=answer, unless=open_ones)
            last = kind
        if waiting is not None:
            yield waiting

    def _bounds(self, shape: _Axes) -> Iterator[tuple[Expr, Iterator[tuple[int, bool | None]]]]:
        """Yield the guards that can be told from axes, with where on the line they hold."""
        assert self.axis is not None
        known = {name: value_of(value) for name, value in shape.items()}
        for guard in self.spec.guards:
            names = set(guard.names())
            if self.axis not in names and names <= shape.keys():
                yield guard, iter([(self.low, self._holds(guard, shape))])
            elif names <= {*shape, self.axis}:
                yield guard, pieces(guard, known, self.axis, self.low)

    def _holds(self, guard: Expr, shape: _Axes) -> bool:
        try:
            return bool(self.evaluate(guard, shape))
        except ArithmeticError:
            return False

    def size_lines(self, place: int, rule: Rule) -> Iterator[SizeLine]:
        """Yield where a rule takes the values of its axis, by what the rules before it left."""
        before = self.spec.key_axes[:place]
        low = _lowest(self.selection, rule.axis)
        turns = sorted({low, *(turn for turn in self.selection.turns(rule.axis) if turn > low)})
        calls: dict[tuple[object, ...], dict[str, Scalar]] = {}
        for shape, along in self.grid.values():
            call = self._call(shape, next(iter(along.values())))
            calls.setdefault(tuple(identity(call[name]) for name in before), call)
        lines: dict[tuple[SizeStretch, ...], list[_Axes]] = {}
        for call in calls.values():
            found: list[SizeStretch] = []
            for turn in turns:
                moved = {**call, rule.axis: turn}
                steps = self.selection.trace([moved.get(axis.name) for axis in self.spec.axes])
                if not steps or steps[place].text == "not reached":
                    break
                step = steps[place]
                new = SizeStretch(first=turn, last=None, to=step.chosen, outcome=step.outcome)
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

    def model(self, name: str, values: _Axes, sizes: set[str]) -> ModelShape:
        """Map the calls of a model; `sizes` are the axes that any model gives."""
        types = self.spec.axis_types
        given = {axis: values[axis] for axis in types if axis in values}
        needed = [axis for axis in needed_axes(self.spec) if axis in sizes and axis != self.axis]
        filled = {n: self.spec.defaults[n] for n in needed if n in self.spec.defaults}
        lacking = tuple(axis for axis in needed if axis not in given and axis not in filled)
        impossible = tuple(
            f"axis '{axis}' is {show(value)}; it must be {types[axis]}"
            for axis, value in given.items()
            if not types[axis].has(value)
        )
        if not given or lacking or impossible:
            lacking = lacking if given else ()
            return ModelShape(name=name, given=given, lacking=lacking, impossible=impossible)
        shapes: _Shapes = {}
        for shape, along in self.grid.values():
            fixed = {**shape, **filled, **given}
            self._put(shapes, fixed, [given[self.axis]] if self.axis in given else along.values())
        return ModelShape(name=name, given=given, rows=tuple(self.rows(shapes)))


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
    outcome: Outcome


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

    `counts` are how many cases are tuned for the platform, and how many distinct configs they have;
    `borrows` the platforms whose configs stand in, the nearest first. `place` is the platform's own
    file of configs. `axis` is the last key axis whose numbers are ordered; rows run along it.
    `unverified` says why the calls cannot be mapped.
    """

    spec: KernelSpec
    platform: str
    counts: tuple[int, int]
    borrows: tuple[str, ...]
    place: ConfigPlace | None
    axis: str | None
    unverified: str | None = None
    rows: tuple[Row, ...] = ()
    sizes: tuple[SizeLine, ...] = ()
    models: tuple[ModelShape, ...] = ()

    @property
    def match(self) -> str | None:
        """How the values of `axis` are matched."""
        return next((r.match for r in self.spec.rules if r.axis == self.axis), None)


def count_outcomes(rows: Iterable[Row]) -> dict[CallOutcome, int]:
    """Count the calls of rows by their outcome."""
    found = Counter(cell.answer.outcome for row in rows for cell in row.cells)
    return {outcome: found[outcome] for outcome in OUTCOMES}


def farthest(rows: Iterable[Row]) -> Move | None:
    """Return the extrapolation of a call that goes farthest, the first of equal ones."""
    moves = [m for row in rows for cell in row.cells for m in cell.answer.moves if m.extrapolated]
    return max(moves, key=lambda move: move.ratio, default=None)
