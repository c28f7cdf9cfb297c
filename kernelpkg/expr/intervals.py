"""What values an expression may have, where what it reads is known to lie in a range.

It is worked out on the ranges alone and errs to the wide side: a range holds every value that the
expression can have, and maybe more; what is said to hold, or not to, does so for every value.
"""

from __future__ import annotations

import ast
import math
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Final

from attrs import frozen

from kernelpkg.expr.language import DTYPES, Expr, tests_none

Bound = int | float


@frozen
class Range:
    """All numbers from `low` to `high`, both included; either may be infinite."""

    low: Bound
    high: Bound


FLAGS: Final = frozenset({False, True})
"""A condition that may hold or not."""

ANY: Final = None
"""A value of which nothing is known."""

Value = Range | frozenset[bool] | str | None
"""A range of numbers, the flags that are possible, the name of a dtype, or ANY."""

WHOLE: Final = Range(-math.inf, math.inf)
SIZE: Final = Range(0, math.inf)
"""What a size, a number of elements or a stride may be."""

LARGEST: Final = 2**63 - 1
"""The largest size that a tensor can have."""

_PIECES: Final = 400
"""How many parts of a range are looked at before a condition is left open."""


def value_of(value: object) -> Value:
    """Return what is known of an axis with one value."""
    if isinstance(value, bool):
        return frozenset({value})
    if isinstance(value, int | float):
        return Range(value, value)
    return value if isinstance(value, str) else ANY


def extent(expr: Expr, known: Mapping[str, Value]) -> Value:
    """Return what an expression may be, where it has a value; sizes are not below zero."""
    return _visit(expr.tree, known)


def pieces(
    expr: Expr, known: Mapping[str, Value], axis: str, first: int
) -> Iterator[tuple[int, bool | None]]:
    """Yield from where on a condition over an axis holds, does not, or (None) may do either.

    The axis runs over the whole numbers from `first` to the largest size. Conditions that bound
    it are told exactly; those that repeat, as a remainder does, are left open.
    """
    whole = {**known, axis: Range(first, LARGEST)}
    if _may_fail(expr, whole):
        yield first, None
        return
    found: list[tuple[int, bool]] = []
    waiting = deque([(first, LARGEST)])
    for _ in range(_PIECES):
        if not waiting:
            break
        low, high = waiting.popleft()
        truth = _truth(extent(expr, {**known, axis: Range(low, high)}))
        if len(truth) == 1:
            found.append((low, next(iter(truth))))
        elif low == high:
            waiting.append((low, high))
            break
        else:
            middle = max(2 * low, 1) if high == LARGEST else (low + high) // 2
            waiting += [(low, min(middle, high - 1)), (min(middle, high - 1) + 1, high)]
    if waiting:
        yield first, None
        return
    last: bool | None = None
    for start, holds in sorted(found):
        if holds is not last:
            yield start, holds
        last = holds


def _may_fail(expr: Expr, known: Mapping[str, Value]) -> bool:
    """Whether an expression may read what is absent, or divide by zero."""
    if any(known.get(name) is ANY for name in expr.names()):
        return True
    return any(
        (divisor := _number(_visit(node.right, known))) is None or divisor.low <= 0
        for node in ast.walk(expr.tree)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.FloorDiv | ast.Mod)
    )


def _truth(value: Value) -> frozenset[bool]:
    if isinstance(value, frozenset):
        return value
    if isinstance(value, Range):
        if value.low == value.high:
            return frozenset({bool(value.low)})
        return FLAGS if value.low <= 0 <= value.high else frozenset({True})
    return FLAGS


def _visit(node: ast.expr, known: Mapping[str, Value]) -> Value:
    match node:
        case ast.Constant(value=value):
            return value_of(value)
        case ast.Name(id=name):
            return known.get(name, name if name in DTYPES else ANY)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return frozenset(not flag for flag in _truth(_visit(operand, known)))
        case ast.UnaryOp(operand=operand):
            found = _number(_visit(operand, known))
            return found and Range(-found.high, -found.low)
        case ast.BoolOp(op=op, values=values):
            return _joined(values, known, stop=isinstance(op, ast.Or))
        case ast.BinOp(left=left, op=op, right=right):
            one, other = _number(_visit(left, known)), _number(_visit(right, known))
            return ANY if one is None or other is None else _arithmetic(op, one, other)
        case ast.Compare(left=ast.Name(id=name)) if tests_none(node):
            given = known.get(name) is not ANY
            return frozenset({isinstance(node.ops[0], ast.IsNot)}) if given else FLAGS
        case ast.Compare(left=left, ops=ops, comparators=sides):
            return _compared(left, ops, sides, known)
        case ast.Call(func=ast.Attribute(attr="is_contiguous")):
            return FLAGS
        case ast.Attribute(attr="dtype"):
            return ANY
        case ast.Subscript() | ast.Attribute() | ast.Call():
            return SIZE
    raise AssertionError(f"a node that was not checked: {ast.dump(node)}")


def _number(value: Value) -> Range | None:
    """Return a value as a number; flags count as 0 and 1, as they do in calls."""
    if isinstance(value, frozenset):
        return Range(int(min(value)), int(max(value)))
    return value if isinstance(value, Range) else None


def _joined(values: list[ast.expr], known: Mapping[str, Value], *, stop: bool) -> Value:
    """Return what `and` and `or` may be: flags; where they join numbers, nothing is said."""
    found: set[bool] = set()
    for part in values:
        truth = _visit(part, known)
        if not isinstance(truth, frozenset):
            return ANY
        if stop in truth:
            found.add(stop)
        if truth == {stop}:
            return frozenset(found)
    return frozenset(found | {not stop})


def _arithmetic(op: ast.operator, left: Range, right: Range) -> Range | None:
    match op:
        case ast.Add():
            return Range(left.low + right.low, left.high + right.high)
        case ast.Sub():
            return Range(left.low - right.high, left.high - right.low)
        case ast.Mult():
            ends = [_times(a, b) for a in (left.low, left.high) for b in (right.low, right.high)]
            return Range(min(ends), max(ends))
    if right.low < 0 or right.high <= 0:
        return ANY
    right = Range(right.low or 1, right.high)  # where it is 0, there is no value
    if isinstance(op, ast.FloorDiv):
        ends = [_divided(a, b) for a in (left.low, left.high) for b in (right.low, right.high)]
        return Range(min(ends), max(ends))
    if left.low == left.high and right.low == right.high:
        return Range(left.low % right.low, left.low % right.low)
    return Range(0, right.high)


def _times(left: Bound, right: Bound) -> Bound:
    return 0 if 0 in (left, right) else left * right


def _divided(left: Bound, right: Bound) -> Bound:
    if math.isinf(right):
        return 0 if left >= 0 else -1
    return left if math.isinf(left) else left // right


def _compared(
    left: ast.expr, ops: list[ast.cmpop], sides: list[ast.expr], known: Mapping[str, Value]
) -> frozenset[bool]:
    """Return whether a chain of comparisons may hold, and whether it may not."""
    found = {True}
    value = _visit(left, known)
    for op, side in zip(ops, sides, strict=True):
        if isinstance(op, ast.In | ast.NotIn):
            assert isinstance(side, ast.List)
            equal = [_equal(value, _visit(item, known)) for item in side.elts]
            truth = _any(equal)
            truth = frozenset(not flag for flag in truth) if isinstance(op, ast.NotIn) else truth
        else:
            other = _visit(side, known)
            truth = _compare(op, value, other)
            value = other
        if True not in truth:
            return frozenset({False})
        found |= truth
    return frozenset(found)


def _any(truths: list[frozenset[bool]]) -> frozenset[bool]:
    if frozenset({True}) in truths:
        return frozenset({True})
    return FLAGS if any(True in truth for truth in truths) else frozenset({False})


def _equal(left: Value, right: Value) -> frozenset[bool]:
    if left is ANY or right is ANY:
        return FLAGS
    if isinstance(left, str) or isinstance(right, str):
        return frozenset({left == right})
    one, other = _number(left), _number(right)
    assert one is not None and other is not None
    if one.low == one.high == other.low == other.high:
        return frozenset({True})
    apart = one.high < other.low or other.high < one.low
    return frozenset({False}) if apart else FLAGS


def _compare(op: ast.cmpop, left: Value, right: Value) -> frozenset[bool]:
    match op:
        case ast.Eq():
            return _equal(left, right)
        case ast.NotEq():
            return frozenset(not flag for flag in _equal(left, right))
    one, other = _number(left), _number(right)
    if one is None or other is None:
        return FLAGS
    match op:
        case ast.Lt():
            return _below(one, other, strict=True)
        case ast.LtE():
            return _below(one, other, strict=False)
        case ast.Gt():
            return _below(other, one, strict=True)
        case _:
            return _below(other, one, strict=False)


def _below(left: Range, right: Range, *, strict: bool) -> frozenset[bool]:
    """Return whether each number of one range may be below one of another, or equal to it."""
    always = left.high < right.low if strict else left.high <= right.low
    never = left.low >= right.high if strict else left.low > right.high
    return frozenset({True}) if always else frozenset({False}) if never else FLAGS
