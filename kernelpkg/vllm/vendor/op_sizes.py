"""Sizes that are 1 in some calls and larger in others, and the cases that both would reach.

Code that Helion 1.4 compiles for a size of 1 is wrong for larger ones: on an H200, for 15 of 16
rows. vLLM keeps compiled code by case key alone, so no case may serve both. Sizes that the kernel
fixes with `hl.specialize` have code of their own; the manifest names them, and level 1 of a check
holds that against Helion. Sizes of 0 go with larger ones: code for those launches nothing for
them, code for 1 would.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Mapping, Sequence
from typing import Final

from attrs import frozen

from kernelpkg.configs.match import identity, matcher
from kernelpkg.expr.language import Expr
from kernelpkg.manifest.cases import Evaluator, expand
from kernelpkg.manifest.spec import CaseKey, KernelSpec, Scalar
from kernelpkg.packs.signature import constant_axes

MOST: Final = 2
"""How many axes may be free: each doubles the default entries of a config file."""

_SMALL: Final = (*range(1, 34), 64, 127, 128, 4096, 8191)
"""Values of an axis at which expressions and guards are looked at."""

_FIX: Final = "with hl.specialize in the kernel, and name what it fixes in [helion] specialize"


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


def free_sizes(spec: KernelSpec, function: ast.FunctionDef) -> FreeSizes:
    """Return the free sizes of what a kernel reads: all but constants of its code.

    These are what `specialize` names, and arguments that it takes as `hl.constexpr`.

    Raises Unclassed for a size that is free without an axis to tell, and for more free axes than
    default entries are made for.
    """
    read = {part.id for part in ast.walk(function) if isinstance(part, ast.Name)}
    whole = {name for name, values in spec.axis_types.items() if values.kind == "whole"}
    free = whole - {*spec.specialize} - constant_axes(spec, function)
    guard = _Guard(spec)
    found: set[str] = set()
    spread: dict[str, None] = {}
    for arg in spec.args:
        for variant in arg.variants if arg.name in read else ():
            for place, dim in enumerate(variant.shape or ()):
                names = [name for name in dim.expr.names() if name in free]
                what = f"size {place} of '{arg.name}', {dim.expr.text},"
                found |= _telling(spec, what, dim.expr, names, guard) if names else set()
                if dim.spread and dim.expr.text != "1":
                    spread[arg.name] = None
    for name in (arg.name for arg in spec.schema.args if arg.type == "int" and arg.name in read):
        axis = next((axis.name for axis in spec.axes if axis.expr.name == name), None)
        if axis is None:
            raise Unclassed(
                f"argument '{name}' may be 1 or larger, and no axis is '{name}'; give it an axis, "
                f"and a rule, or fix it {_FIX}"
            )
        found |= {axis} if axis in free and guard.both(axis) else set()
    axes = tuple(axis.name for axis in spec.axes if axis.name in found)
    if len(axes) > MOST:
        raise Unclassed(
            f"{', '.join(axes)} may each be 1 or larger, and default configs are kept apart for "
            f"{MOST} axes at most; fix some of them {_FIX}"
        )
    return FreeSizes(axes=axes, spread=tuple(spread))


class _Guard:
    """The guards that one axis alone decides: which of its values a call can have."""

    def __init__(self, spec: KernelSpec) -> None:
        self.evaluate = Evaluator()
        self.guards = spec.guards

    def admits(self, axis: str, value: int) -> bool:
        try:
            return all(self.evaluate.each(self.guards, {axis: value}))
        except ArithmeticError:
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
    """Return the axes that tell whether a size is 1; raises Unclassed where they do not.

    That a size made from others is 1 has to follow from theirs being 1: keys tell nothing else.
    """
    if expr.name is not None:
        return {*names} if guard.both(expr.name) else set()
    if len(names) > MOST:
        raise Unclassed(f"{what} is made from {len(names)} free sizes; fix some {_FIX}")
    ranges = [guard.values(name)[:40] for name in names]
    outcomes: dict[tuple[bool, ...], bool] = {}
    for base in _bases(spec, expr, names):
        for values in itertools.product(*ranges):
            try:
                size = guard.evaluate(expr, {**base, **dict(zip(names, values, strict=True))})
            except ArithmeticError:
                continue
            ones = tuple(value == 1 for value in values)
            if size > 0 and outcomes.setdefault(ones, size == 1) != (size == 1):
                given = ", ".join(f"{n}={v}" for n, v in zip(names, values, strict=True))
                raise Unclassed(
                    f"{what} may be 1 or larger, and whether it is does not follow from "
                    f"{' and '.join(names)} being 1 (for instance with {given}); fix it {_FIX}"
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
    guard, place = _Guard(spec), spec.key_axes.index(axis)
    rule = spec.rules[place]
    before = [earlier.axis for earlier in spec.rules[:place] if earlier.match != "ignore"]
    groups: dict[object, list[CaseKey]] = {}
    for key in keys:
        groups.setdefault(tuple(identity(key[name]) for name in before), []).append(key)
    for group in groups.values() if guard.admits(axis, 1) else ():
        alike = group[:1] if rule.match == "ignore" else group
        tuned = {identity(key[axis]): key[axis] for key in alike}
        found = matcher(rule, list(tuned.values()))
        reached = found.find(1)[0]
        ends = [value for value in (*tuned.values(), *rule.bounds) if type(value) is int]
        near = {end + step for end in (*ends, *(2 * end for end in ends)) for step in (-1, 0, 1)}
        for value in sorted({*_SMALL, *near}) if reached >= 0 else ():
            if value > 1 and guard.admits(axis, value) and found.find(value)[0] == reached:
                return next(key for key in alike if key[axis] == found.tuned[reached]), value
    return None
