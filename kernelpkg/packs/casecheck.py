"""The cases of a kernel held against its guards, arguments and rules: each must be a real call."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final

from kernelpkg.configs.picker import compile_picker
from kernelpkg.expr.language import Expr
from kernelpkg.manifest.cases import (
    MAX_CASES,
    Case,
    CaseProblem,
    Evaluator,
    count,
    expand,
    guard_problems,
    needed_axes,
)
from kernelpkg.manifest.decode import MISSING
from kernelpkg.manifest.document import Document
from kernelpkg.manifest.spec import ArgVariant, KernelSpec, Rule

_FIND_THEMSELVES: Final = ("exact", "ceil", "floor", "ranges")
"""Match kinds by which a call equal to a tuned key always gets it; `nearest` by "abs" does too."""


def check_cases(spec: KernelSpec, document: Document) -> None:
    """Report cases that lack an axis, that a guard refuses, that no argument or rule fits.

    Of each grid, the first case that is wrong in one way is told.
    """
    cases = _expanded(spec, document)
    told: set[tuple[int, str]] = set()
    for case, code, what, message in (*_refused(spec, cases), *unfit(spec, cases)):
        if (case.grid, what) not in told:
            told.add((case.grid, what))
            document.report(("inputs", "grid", case.grid), code, f"case {case}: {message}")
    if document.sound and spec.picker is None and not all(map(_finds_itself, spec.rules)):
        _check_reach(spec, cases, document)


def _expanded(spec: KernelSpec, document: Document) -> list[Case]:
    total = sum(map(count, spec.grids))
    if total > MAX_CASES:
        message = f"[inputs] has {total} cases, and may have {MAX_CASES}; make the grids smaller"
        document.report(("inputs",), "KP147", message)
        return []
    cases: list[Case] = []
    needed = needed_axes(spec)
    for grid in range(len(spec.grids)):
        try:
            cases += expand(spec, grid, needed)
        except CaseProblem as problem:
            document.report(("inputs", "grid", grid), problem.code, str(problem))
    if not cases and document.sound:
        document.report(("inputs",), "KP144", "[inputs] has no cases; add an [[inputs.grid]]")
    return cases


def _refused(spec: KernelSpec, cases: Sequence[Case]) -> Iterator[tuple[Case, str, str, str]]:
    names = {name for guard in spec.guards for name in guard.names()}
    for case, guard, message in guard_problems(spec, _distinct(cases, names)):
        yield case, "KP142", guard.text, f"{message}; change the case or the guard"


def unfit(spec: KernelSpec, cases: Sequence[Case]) -> Iterator[tuple[Case, str, str, str]]:
    """Yield the cases for which an argument cannot be made, as (case, code, key, message)."""
    if spec.generator is not None:
        return
    evaluate = Evaluator()
    presence = {axis.expr.tested: axis for axis in spec.axes if axis.expr.tested is not None}
    for arg in spec.args:
        optional = spec.schema.arg(arg.name).optional
        axis = presence.get(arg.name) if optional else None
        risky = {id(variant): tuple(_risky(variant)) for variant in arg.variants}
        always = arg.variants and arg.variants[-1].when is None
        if axis is None and always and not any(risky.values()):
            continue
        read = [expr for variant in arg.variants for expr in risky[id(variant)]]
        read += [variant.when for variant in arg.variants if variant.when is not None]
        names = {name for expr in read for name in expr.names()}
        names |= set() if axis is None else {axis.name}
        for case in _distinct(cases, names):
            variant = evaluate.variant(arg, case)
            if variant is not None:
                for expr in risky[id(variant)]:
                    wrong = _value_problem(expr, variant, case, evaluate)
                    if wrong is not None:
                        message = f"'{expr.text}' of argument '{arg.name}' {wrong}"
                        yield case, "KP133", f"{arg.name} {expr.text}", message
            elif not optional:
                message = f"no variant of argument '{arg.name}' is for it; add one without 'when'"
                yield case, "KP133", arg.name, message
            if axis is not None and axis.name in case.values:
                says = case.values[axis.name] == (" not " in axis.expr.text)
                if says != (variant is not None):
                    message = (
                        f"argument '{arg.name}' is {'not ' if says else ''}given by [args], "
                        f"and {'' if says else 'not '}by axis '{axis.name}'; "
                        f"its 'when' must agree with the axis"
                    )
                    yield case, "KP133", arg.name, message


def _distinct(cases: Iterable[Case], names: Collection[str]) -> Iterator[Case]:
    """Yield the first case of a grid with its values of some axes; the others say nothing new."""
    seen = set()
    for case in cases:
        values = case.values
        mark = (case.grid, *[values.get(name, MISSING) for name in names])
        if mark not in seen:
            seen.add(mark)
            yield case


def _risky(variant: ArgVariant) -> Iterator[Expr]:
    """The expressions of a variant that may have no value, or one below zero."""
    sizes = [dim.expr for dim in variant.shape or ()]
    sizes += [stride for stride in variant.strides or () if stride is not None]
    for expr in (*sizes, variant.high):
        if expr is not None and (expr.can_fail or expr.names()):
            yield expr
    if variant.value is not None and variant.value.can_fail and variant.value.names():
        yield variant.value


def _value_problem(expr: Expr, variant: ArgVariant, case: Case, evaluate: Evaluator) -> str | None:
    try:
        value: Any = evaluate(expr, case.values)
    except ZeroDivisionError:
        return "divides by zero"
    if expr is not variant.value and value < 0:
        return f"is {value}, and cannot be below zero"
    return None


def _finds_itself(rule: Rule) -> bool:
    """Whether a call equal to a tuned key surely gets it by this rule, whatever the others do."""
    nearest = rule.match == "nearest" and rule.distance == "abs"
    return nearest or rule.match in _FIND_THEMSELVES


def _check_reach(spec: KernelSpec, cases: Sequence[Case], document: Document) -> None:
    tuned = {case.key(spec): case for case in cases if "tune" in case.use}
    keys = [dict(zip(spec.key_axes, key, strict=True)) for key in tuned]
    kept = list(tuned.values())
    lost: dict[int, list[Case]] = {}
    for place in compile_picker(spec.rules, keys, {}).unreachable():
        lost.setdefault(kept[place].grid, []).append(kept[place])
    for grid, found in lost.items():
        document.report(
            ("inputs", "grid", grid),
            "KP143",
            f"case {found[0]} would be tuned, and no call could reach it"
            f"{f' (nor {len(found) - 1} others)' if len(found) > 1 else ''}; "
            "change the case or the rules",
        )
