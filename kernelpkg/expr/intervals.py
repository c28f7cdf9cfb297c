"""What values an expression may have, where what it reads is known to lie in a range.

It is worked out on the ranges alone and errs to the wide side: a range holds every value that the
expression can have, and maybe more; what is said to hold, or not to, does so for every value.
"""

from __future__ import annotations

import ast
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from attrs import frozen

from kernelpkg.expr.language import DTYPES, Expr, tests_none

Bound = int | float


@frozen
class Range:
    """All numbers from `low` to `high`, both included; either may be infinite.

    False and True are the ends of what a condition may be: it holds, it does not, or may do either.
    """

    low: Bound
    high: Bound


FLAGS: Final = Range(False, True)
"""A condition that may hold or not."""

ANY: Final = None
"""A value of which nothing is known."""

Value = Range | str | None
"""A range of numbers or flags, the name of a dtype, or ANY."""

WHOLE: Final = Range(-math.inf, math.inf)
SIZE: Final = Range(0, math.inf)
"""What a size, a number of elements or a stride may be."""

LARGEST: Final = 2**63 - 1
"""The largest size that a tensor can have."""

_PIECES: Final = 400
"""How many parts of a range are looked at before a condition is left open."""


def value_of(value: object) -> Value:
    """Return what is known of an axis with one value."""
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
        if truth != FLAGS:
            found.append((low, bool(truth.low)))
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
        not isinstance(divisor := _visit(node.right, known), Range) or divisor.low <= 0
        for node in ast.walk(expr.tree)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.FloorDiv | ast.Mod)
    )


def _truth(value: Value) -> Range:
    if not isinstance(value, Range):
        return FLAGS
    if value.low == value.high:
        return Range(bool(value.low), bool(value.low))
    return FLAGS if value.low <= 0 <= value.high else Range(True, True)


def _not(truth: Range) -> Range:
    return Range(not truth.high, not truth.low)


def _visit(node: ast.expr, known: Mapping[str, Value]) -> Value:
    match node:
        case ast.Constant(value=value):
            return value_of(value)
        case ast.Name(id=name):
            return known.get(name, name if name in DTYPES else ANY)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _not(_truth(_visit(operand, known)))
        case ast.UnaryOp(operand=operand):
            found = _visit(operand, known)
            return Range(-found.high, -found.low) if isinstance(found, Range) else ANY
        case ast.BoolOp(op=op, values=values):
            return _joined(op, [_visit(value, known) for value in values])
        case ast.BinOp(left=left, op=op, right=right):
            one, other = _visit(left, known), _visit(right, known)
            if isinstance(one, Range) and isinstance(other, Range):
                return _arithmetic(op, one, other)
            return ANY
        case ast.Compare(left=ast.Name(id=name)) if tests_none(node):
            given = known.get(name) is not ANY
            return value_of(isinstance(node.ops[0], ast.IsNot)) if given else FLAGS
        case ast.Compare(left=left, ops=ops, comparators=sides):
            return _compared(left, ops, sides, known)
        case ast.Call(func=ast.Attribute(attr="is_contiguous")):
            return FLAGS
        case ast.Attribute(attr="dtype"):
            return ANY
        case ast.Subscript(value=ast.Name()):  # an element of a list
            return WHOLE
        case ast.Subscript() | ast.Attribute() | ast.Call():
            return SIZE
    raise AssertionError(f"a node that was not checked: {ast.dump(node)}")


def _joined(op: ast.boolop, values: list[Value]) -> Value:
    """Return what `and` and `or` may be: flags; where they join numbers, nothing is said."""
    flags = [value for value in values if isinstance(value, Range) and type(value.low) is bool]
    if len(flags) < len(values):
        return ANY
    return _any(flags) if isinstance(op, ast.Or) else _not(_any(map(_not, flags)))


def _any(flags: Iterable[Range]) -> Range:
    """Return whether one of some conditions must hold, and whether one may."""
    lows, highs = zip((False, False), *((flag.low, flag.high) for flag in flags), strict=True)
    return Range(max(lows), max(highs))


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
    # 0 * inf is NaN in Python, and infinity stands for a number here.
    return 0 if 0 in (left, right) else left * right


def _divided(left: Bound, right: Bound) -> Bound:
    if math.isinf(right):  # as below, // would make NaN
        return 0 if left >= 0 else -1
    return left if math.isinf(left) else left // right


def _compared(
    left: ast.expr, ops: list[ast.cmpop], sides: list[ast.expr], known: Mapping[str, Value]
) -> Range:
    """Return whether a chain of comparisons may fail, and whether it may hold."""
    truths = []
    value = _visit(left, known)
    for op, side in zip(ops, sides, strict=True):
        if isinstance(side, ast.List):
            found = _any(_equal(value, _visit(item, known)) for item in side.elts)
            truths.append(_not(found) if isinstance(op, ast.NotIn) else found)
        else:
            other = _visit(side, known)
            truths.append(_compare(op, value, other))
            value = other
    return _not(_any(map(_not, truths)))


def _equal(left: Value, right: Value) -> Range:
    if left is ANY or right is ANY:
        return FLAGS
    if isinstance(left, str) or isinstance(right, str):
        return Range(left == right, left == right)
    always = left.low == left.high == right.low == right.high
    return Range(always, not (left.high < right.low or right.high < left.low))


def _compare(op: ast.cmpop, left: Value, right: Value) -> Range:
    if isinstance(op, ast.Eq):
        return _equal(left, right)
    if isinstance(op, ast.NotEq):
        return _not(_equal(left, right))
    if not isinstance(left, Range) or not isinstance(right, Range):
        return FLAGS
    if isinstance(op, ast.Gt | ast.GtE):
        left, right = right, left
    if isinstance(op, ast.Lt | ast.Gt):
        return Range(left.high < right.low, left.low < right.high)
    return Range(left.high <= right.low, left.low <= right.high)
