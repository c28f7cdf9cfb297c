"""Sizes that are 1 in some calls and larger in others, and the cases that both would reach.

Code that Helion 1.4 compiles for a size of 1 is wrong for larger ones: on an H200, for 15 of 16
rows. vLLM keeps compiled code by case key alone, so no case may serve both. Sizes that the kernel
fixes with `hl.specialize` have code of their own. Sizes of 0 go with larger ones: code for those
launches nothing for them, code for 1 would.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from attrs import frozen

from kernelpkg.configs.match import identity, matcher
from kernelpkg.expr.language import Expr
from kernelpkg.expr.types import infer
from kernelpkg.manifest.cases import Evaluator, expand
from kernelpkg.manifest.opschema import scope_of
from kernelpkg.manifest.spec import ArgVariant, CaseKey, KernelSpec, Scalar
from kernelpkg.vllm.vendor.fixedsizes import FixedSizes, Number, Sizes, fixed_sizes, selected

MOST: Final = 2
"""How many axes may be free: each doubles the default entries of a config file."""

_SMALL: Final = (*range(1, 34), 64, 127, 128, 4096, 8191)
"""Values of an axis at which expressions and guards are looked at."""


class Unclassed(ValueError):
    """Sizes that no case key can keep apart."""


@frozen(kw_only=True)
class FreeSizes:
    """What may be 1 in one call and larger in another.

    `axes` are those that tell, in the order of the manifest. `spread` are tensor arguments of any
    rank whose leading sizes only their product tells apart.
    """

    axes: tuple[str, ...]
    spread: tuple[str, ...]


def free_sizes(spec: KernelSpec, function: ast.FunctionDef, helion: Collection[str]) -> FreeSizes:
    """Return the free sizes of a kernel; `helion` are names by which its file knows Helion.

    Raises Unclassed for a size that is free without an axis to tell, and for more free axes than
    default entries are made for.
    """
    schema = spec.schema
    tensors = [arg.name for arg in schema.args if arg.is_tensor]
    numbers = [arg.name for arg in schema.args if arg.type == "int"]
    source = fixed_sizes(function, tensors, numbers, helion)
    known = _fixed_axes(spec, source)
    guard = _Guard(spec)
    found: set[str] = set()
    for what, expr in _open_sizes(spec, source):
        names = [name for name in expr.names() if name not in known]
        if names:
            found |= _telling(spec, what, expr, names, guard)
    for name in numbers:
        if name in source.read and Number(arg=name) not in source.fixed:
            axis = next((a.name for a in spec.axes if a.expr.name == name), None)
            if axis is None:
                raise Unclassed(
                    f"argument '{name}' may be 1 or larger, and no axis is '{name}'; fix it with "
                    f"hl.specialize({name}) in the kernel, or give it an axis and a rule"
                )
            found |= {axis} if guard.both(axis) else set()
    free = tuple(axis.name for axis in spec.axes if axis.name in found)
    if len(free) > MOST:
        raise Unclassed(
            f"{', '.join(free)} may each be 1 or larger, and default configs are kept apart for "
            f"{MOST} axes at most; fix some of them with hl.specialize in the kernel"
        )
    return FreeSizes(axes=free, spread=tuple(_spread(spec, source)))


def _variants(spec: KernelSpec, source: FixedSizes) -> Iterator[tuple[str, ArgVariant, set[int]]]:
    """Yield the variants of each tensor that the kernel reads, with the sizes that it fixes."""
    for arg in spec.args:
        for variant in arg.variants:
            if arg.name in source.read and variant.shape is not None:
                spread = next((i for i, dim in enumerate(variant.shape) if dim.spread), None)
                count = len(variant.shape)
                chosen = [s for s in source.fixed if isinstance(s, Sizes) and s.arg == arg.name]
                places = {place for s in chosen for place in selected(s, count, spread)}
                yield arg.name, variant, places


def _open_sizes(spec: KernelSpec, source: FixedSizes) -> Iterator[tuple[str, Expr]]:
    for name, variant, fixed in _variants(spec, source):
        for place, dim in enumerate(variant.shape or ()):
            if place not in fixed:
                yield f"size {place} of '{name}', {dim.expr.text},", dim.expr


def _spread(spec: KernelSpec, source: FixedSizes) -> Iterator[str]:
    found = dict.fromkeys(
        name
        for name, variant, fixed in _variants(spec, source)
        for place, dim in enumerate(variant.shape or ())
        if dim.spread and place not in fixed and dim.expr.text != "1"
    )
    yield from found


def _fixed_axes(spec: KernelSpec, source: FixedSizes) -> set[str]:
    """Return the axes that have one value in all calls that share compiled code.

    They are no sizes, are fixed by the kernel themselves, or follow from sizes that are.
    """
    scope = scope_of(spec.schema, {})
    known = {axis.name for axis in spec.axes if infer(axis.expr, scope)[0] != "whole"}
    numbers = {item.arg for item in source.fixed if isinstance(item, Number)}
    known |= {axis.name for axis in spec.axes if axis.expr.name in numbers}
    shapes: dict[str, list[set[str]]] = {}
    for name, variant, fixed in _variants(spec, source):
        exprs = variant.shape or ()
        shapes.setdefault(name, []).append({exprs[place].expr.text for place in fixed})
    by_text = {expr.text: expr for expr in _shape_exprs(spec)}
    sure = {text for found in shapes.values() for text in set.intersection(*found)}
    while True:
        more = {n for text in sure for n in _solved(by_text[text].tree, known)} - known
        if not more:
            return known
        known |= more


def _shape_exprs(spec: KernelSpec) -> Iterator[Expr]:
    for arg in spec.args:
        for variant in arg.variants:
            yield from (dim.expr for dim in variant.shape or ())


def _solved(tree: ast.expr, known: Collection[str]) -> set[str]:
    """Return the name whose value follows from that of an expression, all others being known."""

    def is_known(node: ast.expr) -> bool:
        return all(part.id in known for part in ast.walk(node) if isinstance(part, ast.Name))

    match tree:
        case ast.Name(id=name):
            return {name}
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult(), right=right):
            if is_known(left):
                return _solved(right, known)
            return _solved(left, known) if is_known(right) else set()
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _solved(operand, known)
    return set()


class _Guard:
    """The guards that one axis alone decides: which of its values a call can have."""

    def __init__(self, spec: KernelSpec) -> None:
        self.evaluate = Evaluator()
        self.guards = spec.guards

    def admits(self, axis: str, value: int) -> bool:
        try:
            return all(
                self.evaluate(guard, {axis: value})
                for guard in self.guards
                if guard.names() == (axis,)
            )
        except ZeroDivisionError:
            return False

    def values(self, axis: str) -> list[int]:
        """Return values that calls can have, the small ones and those that guards name."""
        named = {
            part.value + step
            for guard in self.guards
            if guard.names() == (axis,)
            for part in ast.walk(guard.tree)
            if isinstance(part, ast.Constant) and type(part.value) is int
            for step in (-1, 0, 1)
        }
        return [
            value for value in sorted({*_SMALL, *named}) if value > 0 and self.admits(axis, value)
        ]

    def both(self, axis: str) -> bool:
        """Whether an axis is 1 in some calls and larger in others."""
        values = self.values(axis)
        return values[:1] == [1] and len(values) > 1


def _telling(
    spec: KernelSpec, what: str, expr: Expr, names: Sequence[str], guard: _Guard
) -> set[str]:
    """Return the axes that tell whether a size is 1; raises Unclassed where they do not."""
    if expr.name is not None:
        return {*names} if guard.both(expr.name) else set()
    if len(names) > MOST:
        raise Unclassed(f"{what} is made from {len(names)} free sizes; fix some with hl.specialize")
    ranges = [guard.values(name)[:40] for name in names]
    outcomes: dict[tuple[bool, ...], bool] = {}
    for base in _bases(spec, expr, names):
        for values in itertools.product(*ranges):
            try:
                size = guard.evaluate(expr, {**base, **dict(zip(names, values, strict=True))})
            except ZeroDivisionError:
                continue
            ones = tuple(value == 1 for value in values)
            if size > 0 and outcomes.setdefault(ones, size == 1) != (size == 1):
                given = ", ".join(f"{n}={v}" for n, v in zip(names, values, strict=True))
                raise Unclassed(
                    f"{what} may be 1 or larger, and whether it is does not follow from "
                    f"{' and '.join(names)} being 1 (for instance with {given}); fix it with "
                    "hl.specialize in the kernel"
                )
    if len(set(outcomes.values())) < 2:
        return set()
    return {*names}


def _bases(spec: KernelSpec, expr: Expr, names: Sequence[str]) -> list[Mapping[str, Scalar]]:
    """Return the values that an expression's other axes have in the cases."""
    others = [name for name in expr.names() if name not in names]
    found = {
        repr(base): base
        for grid in range(len(spec.grids))
        for case in expand(spec, grid)
        for base in [{name: case.values[name] for name in others}]
    }
    return list(found.values()) or [{}]


def shared_case(spec: KernelSpec, keys: Sequence[CaseKey], axis: str) -> tuple[CaseKey, int] | None:
    """Return a case that calls with an axis of 1 reach, and a larger value that reaches it too.

    `keys` name all axes of the rules. Every rule takes neighbouring values to one tuned value, so
    a case that is shared at all is shared by a value near 1, or near a bound.
    """
    if axis not in spec.key_axes:
        return (keys[0], 2) if keys else None
    place, guard = spec.key_axes.index(axis), _Guard(spec)

    def search(rows: Sequence[CaseKey], depth: int) -> tuple[CaseKey, int] | None:
        rule = spec.rules[depth]
        groups: dict[object, list[CaseKey]] = {}
        for row in rows:
            mark = None if rule.match == "ignore" else identity(row[rule.axis])
            groups.setdefault(mark, []).append(row)
        if depth < place:
            found = (search(group, depth + 1) for group in groups.values())
            return next((hit for hit in found if hit is not None), None)
        tuned = [group[0][axis] for group in groups.values()]
        find = matcher(rule, tuned).find
        if not guard.admits(axis, 1) or find(1)[0] < 0:
            return None
        ends = [value for value in (*tuned, *rule.bounds) if type(value) is int]
        near = {end + step for end in (*ends, *(2 * end for end in ends)) for step in (-1, 0, 1)}
        for value in sorted({*_SMALL, *near}):
            if value > 1 and guard.admits(axis, value) and find(value)[0] == find(1)[0]:
                chosen = matcher(rule, tuned).tuned[find(1)[0]]
                same = [row for row in rows if rule.match == "ignore" or row[axis] == chosen]
                return same[0], value
        return None

    return search(keys, 0) if keys else None
