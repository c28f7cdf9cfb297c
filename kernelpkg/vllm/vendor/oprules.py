"""Rules to the statements of a picker: which tuned keys each of them leaves, as plain Python.

The statements narrow a list `keys`; each agrees with `matching` on every call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from kernelpkg.manifest.spec import KernelSpec, Rule
from kernelpkg.vllm.vendor.exprcode import AxisCode, Unsayable
from kernelpkg.vllm.vendor.op_code import STEP, WIDTH, assign, call, collection, comment
from kernelpkg.vllm.vendor.op_sources import Import

LOCALS: Final = frozenset({"best", "bounds", "home", "key", "keys", "n", "power", "values"})
"""Names that the statements bind."""

IMPORTS: Final = {
    "Fraction(": Import(module="fractions", member="Fraction", name="Fraction"),
    "bisect_left(": Import(module="bisect", member="bisect_left", name="bisect_left"),
}
"""What the statements import, by the text that tells."""


def words(rule: Rule, code: AxisCode) -> str:
    """Say in words which tuned values a call's value gets."""
    if rule.match == "ignore":
        return "any; of what is left, the smallest"
    if rule.match == "exact" or code.type != "whole":
        return "the same"
    largest, smallest = rule.over == "largest", rule.under == "smallest"
    match rule.match:
        case "nearest":
            how = "by ratio, " if rule.distance == "log" else ""
            bound = "" if rule.max is None else f"within {100 * rule.max:g}% of the call's, "
            return f"the nearest, {how}{bound}of two equally near the smaller"
        case "ceil":
            return "the smallest not below the call's" + ", else the largest" * largest
        case "floor":
            return "the largest not above the call's" + ", else the smallest" * smallest
        case "pow2":
            above = ", but no more than the largest power" * largest
            return f"the call's, rounded up to a power of two{above}"
        case _:
            ends = f" (they end at {', '.join(map(str, rule.bounds))})" if rule.bounds else ""
            return f"of the call's range{ends} the smallest not below it, else the largest"


def narrowing(
    spec: KernelSpec, codes: Mapping[str, AxisCode], names: Mapping[str, str], tuned: Sequence[str]
) -> Iterator[str]:
    """Yield a block for each rule; `exact` ones that follow each other share one.

    `names` are the local names of axes, `tuned` the conditions that tell a tuned key from the key
    of a default entry. Raises Unsayable for a rule that JSON keys and floats would not keep exact.
    """
    source, same = "config_keys", [*tuned]
    for rule in spec.rules:
        code, value = codes[rule.axis], names[rule.axis]
        if rule.match == "ignore":
            continue
        if rule.match == "exact" or code.type in ("flag", "dtype"):
            same.append(f'key["{rule.axis}"] == {value}')
            continue
        if code.type == "number":
            raise Unsayable(
                f"rule '{rule.match}' over axis '{rule.axis}' puts fractional numbers in order, "
                "which plain Python would round; give the axis match 'exact'"
            )
        if same:
            yield from listed("keys", "[]", "key", source, same)
            source, same = "keys", []
        yield from comment(f"{rule.axis}: {words(rule, code)}.", STEP)
        if not code.nullable:
            yield from _taken(rule, value, STEP)
            continue
        tuned_value = f'key["{rule.axis}"]'
        inner = 2 * STEP
        yield f"    if {value} is None:"
        yield from listed("keys", "[]", "key", "keys", [f"{tuned_value} is None"], inner)
        yield "    else:"
        yield from listed("keys", "[]", "key", "keys", [f"{tuned_value} is not None"], inner)
        yield from _taken(rule, value, inner)
    if same:
        yield from listed("keys", "[]", "key", source, same)


def _taken(rule: Rule, x: str, indent: int) -> Iterator[str]:
    """Yield what finds the tuned value that `x` gets, and keeps the keys that have it."""
    tuned, margin = f'key["{rule.axis}"]', " " * indent
    conditions: list[str] = []
    order = f"n < {x}, abs(n - {x})"
    least: list[str] = []
    best = "best"
    match rule.match:
        case "nearest" if rule.distance == "log":
            conditions.append(f"min({tuned}, {x}) > 0")
            order = f"Fraction(max(n, {x}), min(n, {x})), n"
            if rule.max is not None:
                ratio = f"Fraction(max({tuned}, {x}), min({tuned}, {x}))"
                conditions.append(f'{ratio} - 1 <= Fraction("{rule.max}")')
        case "nearest":
            order = f"abs(n - {x}), n"
            if rule.max is not None:
                conditions.append(f'abs({tuned} - {x}) <= Fraction("{rule.max}") * abs({x})')
        case "ceil" if rule.over == "miss":
            conditions.append(f"{tuned} >= {x}")
            least = ["min", "values"]
        case "floor" if rule.under == "miss":
            conditions.append(f"{tuned} <= {x}")
            least = ["max", "values"]
        case "floor":
            order = f"n > {x}, abs(n - {x})"
        case "ranges":
            yield from assign("bounds", collection("()", map(str, rule.bounds)), indent)
            yield f"{margin}home = bisect_left(bounds, {x})"
            conditions.append(f"bisect_left(bounds, {tuned}) == home")
        case "pow2":
            yield f"{margin}power = 1 << max({x} - 1, 0).bit_length()"
            conditions += [f"{tuned} > 0", f"{tuned} & ({tuned} - 1) == 0"]
            best = "best" if rule.over == "largest" else "power"
    if best == "best":
        yield from listed("values", "{}", tuned, "keys", conditions, indent)
        if rule.match == "pow2":
            yield f"{margin}best = min(power, max(values, default=power))"
        else:
            found = least or ["min", "values", f"key=lambda n: ({order})"]
            yield from assign("best", call(*found, "default=None"), indent)
    yield from listed("keys", "[]", "key", "keys", [f"{tuned} == {best}"], indent)


def listed(
    name: str,
    brackets: str,
    element: str,
    source: str,
    conditions: Sequence[str],
    indent: int = STEP,
    variable: str = "key",
) -> Iterator[str]:
    """Yield the lines of `name = [element for variable in source if a and b]`."""
    loop = f"for {variable} in {source}"
    tests = [f"{'and' if place else 'if'} {text}" for place, text in enumerate(conditions)]
    margin, inner = " " * indent, " " * (indent + STEP)
    line = f"{margin}{name} = {brackets[0]}{' '.join([element, loop, *tests])}{brackets[1]}"
    if len(line) <= WIDTH:
        yield line
        return
    yield f"{margin}{name} = {brackets[0]}"
    whole, filtered = " ".join([element, loop, *tests]), " ".join(tests)
    if len(inner + whole) <= WIDTH:
        yield inner + whole
    else:
        parts = [filtered] if len(inner + filtered) <= WIDTH else tests
        yield from (inner + part for part in (element, loop, *parts))
    yield f"{margin}{brackets[1]}"
