"""The cases of a kernel: its grids, multiplied out into axis values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from attrs import frozen

from kernelpkg.expr import Expr, compile_exprs
from kernelpkg.spec import ArgVariant, KernelSpec, Reference, Scalar


class CaseProblem(ValueError):
    """A grid that does not make cases; carries the code of its problem."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@frozen(kw_only=True)
class Case:
    """Axis values to make inputs for, what they are for, and the grid that they come from."""

    values: Mapping[str, Scalar]
    use: tuple[str, ...]
    grid: int

    def __str__(self) -> str:
        return ", ".join(f"{name}={show(value)}" for name, value in self.values.items())

    def key(self, spec: KernelSpec) -> tuple[Scalar, ...]:
        """The values of the axes that a case key names, in the order of the rules."""
        return tuple(self.values[axis] for axis in spec.key_axes)

    def size(self) -> float:
        """A measure of how large the inputs are: the product of the whole numbers."""
        return math.prod(value for value in self.values.values() if type(value) is int)


def show(value: Scalar) -> str:
    """Return an axis value as TOML spells it, without quotes; an absent one is `none`."""
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def expand(spec: KernelSpec, grid: int) -> list[Case]:
    """Multiply out one grid of a kernel; raises CaseProblem where a case lacks an axis."""
    table = spec.grids[grid]
    needed = needed_axes(spec)
    cases = []
    for row in table.rows:
        both = sorted(row.keys() & table.axes.keys())
        if both:
            raise CaseProblem("KP140", f"axis '{both[0]}' stands in the grid and in a row of it")
        lacking = [axis for axis in needed if axis not in {**spec.defaults, **table.axes, **row}]
        if lacking:
            raise CaseProblem(
                "KP141",
                f"cases have no value for axis '{lacking[0]}'; give it in the grid or in "
                "[inputs] default",
            )
        for product in itertools.product(*table.axes.values()):
            values = {**spec.defaults, **row, **dict(zip(table.axes, product, strict=True))}
            ordered = {axis.name: values[axis.name] for axis in spec.axes if axis.name in values}
            cases.append(Case(values=ordered, use=table.use, grid=grid))
    return cases


def cases_of(spec: KernelSpec, use: str) -> tuple[Case, ...]:
    """The distinct cases of a kernel for one use ("tune", "test" or "bench"), in grid order."""
    found: dict[tuple[Any, ...], Case] = {}
    for grid, table in enumerate(spec.grids):
        if use in table.use:
            for case in expand(spec, grid):
                found.setdefault(tuple(map(repr, case.values.values())), case)
    return tuple(found.values())


def smallest_case(spec: KernelSpec) -> Case:
    """The case with the smallest inputs that are not empty, of those for tests if there are any."""
    cases = cases_of(spec, "test") or tuple(
        case for grid in range(len(spec.grids)) for case in expand(spec, grid)
    )
    return min(cases, key=lambda case: (0 in case.values.values(), case.size()))


@lru_cache(maxsize=4096)
def needed_axes(spec: KernelSpec) -> tuple[str, ...]:
    """The axes that inputs and case keys are made from."""
    names = {name for expr in input_exprs(spec) for name in expr.names()} | set(spec.key_axes)
    return tuple(axis.name for axis in spec.axes if axis.name in names)


def input_exprs(spec: KernelSpec) -> Iterator[Expr]:
    """Every expression that the arguments of a kernel are made from."""
    for arg in spec.args:
        for variant in arg.variants:
            yield from variant_exprs(variant)


def variant_exprs(variant: ArgVariant) -> Iterator[Expr]:
    """Every expression of one variant of an argument, in a fixed order."""
    yield from (dim.expr for dim in variant.shape or ())
    yield from (stride for stride in variant.strides or () if stride is not None)
    for expr in (variant.when, variant.dtype, variant.value, variant.high):
        if expr is not None:
            yield expr


def uses_function(spec: KernelSpec) -> bool:
    """Whether some argument is filled by a function, which gets all axes."""
    return any(isinstance(variant.init, Reference) for arg in spec.args for variant in arg.variants)


def guard_problem(spec: KernelSpec, case: Case) -> str | None:
    """Say which guard refuses a case, or return None; guards over tensors are for calls."""
    axes = frozenset(case.values)
    for guard in spec.guards:
        if not axes.issuperset(guard.names()):
            continue
        try:
            holds = _compiled(guard, tuple(case.values))(*case.values.values())[0]
        except ZeroDivisionError:
            return f"guard '{guard.text}' divides by zero"
        if not holds:
            return f"guard '{guard.text}' refuses it"
    return None


@lru_cache(maxsize=1024)
def _compiled(guard: Expr, names: tuple[str, ...]) -> Any:
    return compile_exprs([guard], names, nullable=frozenset(names), absent=False)
