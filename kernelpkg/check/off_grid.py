"""Probes: calls of a kernel that are held against its reference beside the tuned cases.

A tuned case is one point; the rules send all other calls to some of these points. What is chosen
here covers how: each gap between tuned values, their ends, each variant, and each axis that may be
1. It is a choice, not the product: all pairs of regions, and each value once.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Final

from attrs import field, frozen

from kernelpkg.configs.match import identity
from kernelpkg.manifest.cases import Case, CaseProblem, Evaluator, cases_of, expand, is_empty, sizes
from kernelpkg.manifest.keys import INTERPRET
from kernelpkg.manifest.spec import CaseKey, KernelSpec, Scalar

ConfigOf = Callable[[Case], Hashable]
"""Takes a case and returns what is equal for calls with equal configs."""

_ORDERED: Final = ("nearest", "ceil", "floor", "pow2", "ranges")
_FEW_GAPS: Final = 3
"""Up to so many gaps between tuned values, each of them gets three calls instead of one."""

_REACH: Final = 1024
"""How far from a tuned value the next one that the guards accept is looked for."""

_TRIES: Final = 12
"""How many ways of filling up a case are tried before a pair of regions is given up."""


@frozen(kw_only=True)
class Probe:
    """A value of an axis, or values of several, and the region of tuned values that it is in."""

    values: Mapping[str, Scalar]
    region: Hashable


@frozen(kw_only=True)
class Around:
    """A kernel with the keys that are tuned, and the calls around them.

    Without keys, those that its grids have for tuning stand in: then no config is tuned, and the
    calls get a default. Where calls are interpreted, a grid for that stands for both.
    """

    spec: KernelSpec
    keys: tuple[CaseKey, ...]
    interpret: bool = False
    _evaluate: Evaluator = field(factory=Evaluator, repr=False, eq=False)

    @cached_property
    def interpreted(self) -> tuple[Case, ...]:
        """The cases of grids for the interpreter, where it is meant."""
        return cases_of(self.spec, INTERPRET) if self.interpret else ()

    @cached_property
    def _known(self) -> tuple[Case, ...]:
        """Every distinct case of the grids, those for tuning first."""
        grids = range(len(self.spec.grids))
        cases = [*self.interpreted] or [case for at in grids for case in expand(self.spec, at)]
        cases.sort(key=lambda case: "tune" not in case.use)
        return tuple({_mark(case): case for case in reversed(cases)}.values())[::-1]

    @cached_property
    def tuned(self) -> tuple[Case, ...]:
        """The cases of the keys that are tuned."""
        keys = [key for key in self.keys if key]
        if self.interpreted:
            return self.interpreted
        if not keys:
            return cases_of(self.spec, "tune")
        found = [self.case_of(key) for key in keys]
        return tuple(case for case in found if self.can_be_made(case))

    def case_of(self, key: CaseKey) -> Case:
        """Return the case of a tuned key: that of a grid, or else one with the key's values.

        Axes that the key does not name are those of the grid case that has most values in common
        with it, rules of higher precedence first.
        """
        wanted = {**self.spec.defaults, **key}
        row = [(axis, identity(wanted[axis])) for axis in self.spec.key_axes if axis in wanted]

        def alike(case: Case) -> list[bool]:
            return [identity(case.values.get(axis)) == value for axis, value in row]

        best = max(self._known, key=alike, default=None)
        if best is not None and all(alike(best)):
            return best
        return self._changed(best, {axis: wanted[axis] for axis, _ in row})

    def can_be_made(self, case: Case) -> bool:
        """Whether the guards accept a case and all of its arguments have a size."""
        try:
            if not all(self._evaluate.each(self.spec.guards, case.values)):
                return False
            for _ in sizes(self.spec, case, self._evaluate):
                pass
        except (CaseProblem, TypeError, ArithmeticError):
            return False
        return True

    def grid_cases(self) -> tuple[Case, ...]:
        """The cases that the grids have for tests and that are not tuned."""
        if self.interpreted:
            return self.interpreted
        known = set(map(_mark, self.tuned)) if self.keys else set()
        return tuple(case for case in cases_of(self.spec, "test") if _mark(case) not in known)

    def off_grid(self) -> tuple[Case, ...]:
        """Calls between, just beside, below and above tuned values, for every tuned variant."""
        if not self.tuned:
            return ()
        known = {_mark(case) for case in (*self.tuned, *self.grid_cases())}
        chosen = [case for case in self._cover(self._parameters()) if _mark(case) not in known]
        return tuple({_mark(case): case for case in (*chosen, *self._empty(known))}.values())

    def untuned(self) -> tuple[Case, ...]:
        """Calls of variants that were never tuned: each pair of values of their axes once."""
        axes = self._exact_axes()
        seen = {self._variant(case) for case in (*self.tuned, *self.grid_cases())}
        if len(axes) < 2 or not self.tuned:
            return ()
        base = min(self.tuned, key=Case.ones)
        values = {axis: self._values(axis) for axis in axes}
        missing = {pair for case in self._known for pair in _pairs(case, axes)}
        found = []
        for product in itertools.product(*values.values()):
            case = self._changed(base, dict(zip(axes, product, strict=True)))
            new = _pairs(case, axes) - missing
            if new and self._variant(case) not in seen and self.can_be_made(case):
                missing |= new
                found.append(case)
        return tuple(found)

    def guarded(self) -> tuple[Case, ...]:
        """A call with each value that a guard lists for an axis, and that no other call has."""
        axes = {axis.name for axis in self.spec.axes}
        seen = {(n, identity(v)) for case in self._known for n, v in case.values.items()}
        base = next(iter(self.one_of_each()), None)
        found = []
        for guard in self.spec.guards if base is not None else ():
            for axis, value in _listed(guard.tree, axes):
                case = self._changed(base, {axis: value})
                if (axis, identity(value)) not in seen and self.can_be_made(case):
                    seen.add((axis, identity(value)))
                    found.append(case)
        return tuple(found)

    def strided(self) -> tuple[Case, ...]:
        """The smallest case of the first variant in which some stride may be anything."""
        for case in self.one_of_each():
            for arg in self.spec.args if self.spec.generator is None else ():
                variant = self._evaluate.variant(arg, case)
                if variant is not None and None in (variant.strides or ()):
                    return (case,)
        return ()

    def ends(self) -> tuple[Case, ...]:
        """Calls of no, one and several in each count, for the first variant."""
        base = next(iter(self.one_of_each()), None)
        if base is None:
            return ()
        found = []
        for axis in self._sizes():
            sizes = (0, 1, 2, 3, 16) if _size(base.values[axis]) < 2 else (0, 1)
            made = [self._changed(base, {axis: size}) for size in sizes]
            able = [case for case in made if self.can_be_made(case)]
            found += [case for case in able if _size(case.values[axis]) < 2]
            found += [case for case in able if _size(case.values[axis]) > 1][:1]
        return tuple({_mark(case): case for case in found if _mark(case) != _mark(base)}.values())

    def orders(self, config_of: ConfigOf) -> tuple[tuple[str, Case, Case], ...]:
        """Pairs of calls, the first with one axis 1 and the second with more there, with the axis.

        Of the second calls that could be taken, one with the config of the first: these two may
        come to share compiled code.
        """
        found: dict[object, tuple[str, Case, Case]] = {}
        known = {_mark(case): case for case in (*self.tuned, *self._known)}
        for axis in self._sizes():
            ones = [case for case in known.values() if _size(case.values[axis]) == 1]
            ones += [
                case
                for case in (self._changed(other, {axis: 1}) for other in self.tuned)
                if self.can_be_made(case)
            ]
            for one in ones:
                variant = (axis, self._variant(one))
                if variant not in found:
                    many = self._several(one, axis, known.values(), config_of)
                    if many is not None:
                        found[variant] = (axis, one, many)
        return tuple(found.values())

    def one_of_each(self) -> tuple[Case, ...]:
        """The smallest case of each variant, tuned or not, that is neither empty nor of one."""
        cases: dict[object, Case] = {}
        known = (*self.tuned, *self._known)
        least = partial(is_empty, self.spec)
        for case in sorted(known, key=lambda case: (least(case), case.ones(), case.size())):
            cases.setdefault(self._variant(case), case)
        return tuple(cases.values())

    def _changed(self, base: Case | None, values: Mapping[str, Scalar]) -> Case:
        """Return a case with other values, in the order of the manifest's axes."""
        given = {**(self.spec.defaults if base is None else base.values), **values}
        ordered = {axis.name: given[axis.name] for axis in self.spec.axes if axis.name in given}
        return Case(values=ordered, use=("test",), grid=-1)

    def _exact_axes(self) -> tuple[str, ...]:
        return tuple(rule.axis for rule in self.spec.rules if rule.match == "exact")

    def _variant(self, case: Case) -> tuple[object, ...]:
        return tuple(identity(case.values[axis]) for axis in self._exact_axes())

    def _values(self, axis: str) -> tuple[Scalar, ...]:
        """The values that an axis has in tuned keys and in the grids, in their order."""
        found = [case.values[axis] for case in (*self.tuned, *self._known) if axis in case.values]
        return tuple({identity(value): value for value in found}.values())

    def _sizes(self) -> tuple[str, ...]:
        """The axes that tell a size which may be 1: whole numbers with a rule that finds others."""
        return tuple(
            rule.axis
            for rule in self.spec.rules
            if rule.match != "exact"
            and all(type(case.values.get(rule.axis)) is int for case in self.tuned)
        )

    def _several(
        self, one: Case, axis: str, known: Iterable[Case], config_of: ConfigOf
    ) -> Case | None:
        """Return a case that differs from another in one axis alone, where that is 1."""
        rest = [name for name in one.values if name != axis]
        alike = [
            case
            for case in known
            if _size(case.values[axis]) > 1
            and all(identity(case.values.get(n)) == identity(one.values[n]) for n in rest)
        ]
        made = [self._changed(one, {axis: size}) for size in (2, 3, 16)]
        choice = sorted(alike, key=Case.size) + [case for case in made if self.can_be_made(case)]
        config = config_of(one)
        same = (case for case in choice if config_of(case) == config)
        return next(same, choice[0] if choice else None)

    def _empty(self, known: Iterable[object]) -> Iterator[Case]:
        """Yield a case without elements for each tuned variant and count that may be 0."""
        counts = [
            rule.axis
            for rule in self.spec.rules
            if rule.axis in self._sizes()
            and (rule.match != "nearest" or 0 in self._values(rule.axis))
        ]
        variants = {self._variant(case): case for case in reversed(self.tuned)}
        for base, axis in itertools.product(variants.values(), counts):
            case = self._changed(base, {axis: 0})
            if _mark(case) not in known and self.can_be_made(case):
                yield case

    def _parameters(self) -> list[list[Probe]]:
        """What a case off the grid is put together from: a choice of each, tuned values first."""
        exact = self._exact_axes()
        variants = {self._variant(case): case for case in reversed(self.tuned)}
        found = [
            [
                Probe(values={axis: case.values[axis] for axis in exact}, region=variant)
                for variant, case in reversed(variants.items())
            ]
        ]
        found += [
            self._probes(rule.axis)
            for rule in self.spec.rules
            if rule.match in _ORDERED and rule.axis in self._sizes()
        ]
        ruled = set(self.spec.key_axes)
        for axis in self.tuned[0].values:
            values = self._values(axis)
            if axis not in ruled and len(values) > 1 and isinstance(values[0], bool | str):
                found.append([Probe(values={axis: v}, region=identity(v)) for v in values])
        return found

    def _probes(self, axis: str) -> list[Probe]:
        """Values of one axis by region; all tuned values are one region, and so is each end."""
        whole = [case.values[axis] for case in self.tuned]
        values = sorted({value for value in whole if type(value) is int})
        found = [Probe(values={axis: value}, region="tuned") for value in values]
        base = next((case for case in self.tuned if case.values[axis] == values[0]), self.tuned[0])

        def first(candidates: Iterable[int], region: str) -> Iterator[Probe]:
            for value in candidates:
                if value not in values and self.can_be_made(self._changed(base, {axis: value})):
                    yield Probe(values={axis: value}, region=region)
                    return

        low, high = values[0], values[-1]
        found += first(range(low - 1, max(0, low - _REACH), -1), "below")
        found += first(_outwards(low // 2, 1, low), "below")
        found += first(range(high + 1, high + _REACH), "above")
        gaps = [(low, high) for low, high in itertools.pairwise(values) if high - low > 1]
        for place, (low, high) in enumerate(gaps):
            kinds = (
                range(low + 1, min(high, low + _REACH)),
                range(high - 1, max(low, high - _REACH), -1),
                _outwards((low + high) // 2, low + 1, high),
            )
            for kind in kinds if len(gaps) <= _FEW_GAPS else (kinds[place % len(kinds)],):
                found += first(kind, "between")
        for rule in self.spec.rules:
            if rule.axis == axis:
                for bound in rule.bounds:
                    found += first((bound,), "bound")
                    found += first((bound + 1,), "bound")
        return list({identity(probe.values[axis]): probe for probe in found}.values())

    def _cover(self, parameters: Sequence[Sequence[Probe]]) -> Iterator[Case]:
        """Yield cases until each value and each pair of regions of two parameters was there."""
        wanted: dict[Any, None] = dict.fromkeys(
            ((at, left.region), (other, right.region))
            for (at, one), (other, two) in itertools.combinations(enumerate(parameters), 2)
            for left, right in itertools.product(one, two)
        )
        wanted |= dict.fromkeys(
            ((at, _value(probe)), None)
            for at, probes in enumerate(parameters)
            for probe in probes
            if probe.region != "tuned"
        )
        while wanted:
            goal = next(iter(wanted))
            chosen = self._filled(parameters, goal, wanted)
            if chosen is None:
                del wanted[goal]
                continue
            for mark in _marks(chosen):
                wanted.pop(mark, None)
            yield self._of(chosen)

    def _filled(
        self, parameters: Sequence[Sequence[Probe]], goal: Any, left: Mapping[Any, None]
    ) -> list[Probe] | None:
        """Choose a probe of each parameter that meets a goal, and many other goals beside it."""
        fixed = [
            [probe for probe in probes if _meets(at, probe, goal)] or None
            for at, probes in enumerate(parameters)
        ]
        for attempt in range(_TRIES):
            chosen: list[Probe] = []
            for at, probes in enumerate(parameters):
                choice = fixed[at] or probes
                if attempt and fixed[at] is None and attempt % 2:
                    chosen.append(choice[0])  # a tuned value goes with most others
                    continue
                ranked = sorted(
                    choice, key=lambda probe: -len(left.keys() & _marks([*chosen, probe]))
                )
                chosen.append(ranked[attempt // 2 % len(ranked)])
            if self.can_be_made(self._of(chosen)):
                return chosen
        return None

    def _of(self, chosen: Sequence[Probe]) -> Case:
        values = {axis: value for probe in chosen for axis, value in probe.values.items()}
        variant = tuple(identity(values[axis]) for axis in self._exact_axes())
        base = next((case for case in self.tuned if self._variant(case) == variant), self.tuned[0])
        return self._changed(base, values)


def _listed(tree: ast.expr, axes: Collection[str]) -> Iterator[tuple[str, Scalar]]:
    """Yield the values that an expression lists for axes: `a in [1, 2]`, and `a == 1`."""
    for node in ast.walk(tree):
        match node:
            case ast.Compare(
                left=ast.Name(id=axis),
                ops=[ast.In()],
                comparators=[ast.List(elts=values) | ast.Tuple(elts=values)],
            ):
                pass
            case ast.Compare(left=ast.Name(id=axis), ops=[ast.Eq()], comparators=values):
                pass
            case _:
                continue
        for value in values if axis in axes else ():
            if isinstance(value, ast.Constant) and isinstance(
                value.value, bool | int | float | str
            ):
                yield axis, value.value
            elif isinstance(value, ast.Name) and value.id not in axes:
                yield axis, value.id  # the name of a dtype


def _outwards(middle: int, low: int, high: int) -> Iterator[int]:
    """Yield numbers from `low` to below `high`, the nearest to a middle first."""
    for distance in range(min(_REACH, high - low)):
        for value in {middle - distance, middle + distance}:
            if low <= value < high:
                yield value


def _size(value: Scalar) -> int:
    return value if type(value) is int else 0


def _value(probe: Probe) -> tuple[object, ...]:
    return tuple(map(identity, probe.values.values()))


def _meets(at: int, probe: Probe, goal: Any) -> bool:
    first, second = goal
    return (at, probe.region) in goal if second else first == (at, _value(probe))


def _marks(chosen: Sequence[Probe]) -> set[Any]:
    """What a choice, of the first parameters on, meets."""
    regions = [(at, probe.region) for at, probe in enumerate(chosen)]
    found: set[Any] = set(itertools.combinations(regions, 2))
    found |= {((at, _value(probe)), None) for at, probe in enumerate(chosen)}
    return found


def _pairs(case: Case, axes: Sequence[str]) -> set[Any]:
    named = [(axis, identity(case.values[axis])) for axis in axes]
    return set(itertools.combinations(named, 2))


def _mark(case: Case) -> tuple[str, ...]:
    return tuple(map(repr, case.values.values()))
