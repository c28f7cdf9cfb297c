"""The conditions of a route as functions of a call's arguments, asked once for each signature."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from kernelpkg.expr.language import Absent, Expr, code_of, dtype_name, given
from kernelpkg.packs.routes import Routing

GLOBALS: Final[Mapping[str, object]] = {
    "dtype_name": dtype_name,
    "given": given,
    "Absent": Absent,
    "unreadable": (Absent, IndexError, ArithmeticError),
}
"""What the code of conditions needs among its globals."""

Unmet = Callable[..., Expr | None]
"""Takes the arguments of a call and returns the first condition that does not hold, or None."""


def unmet(routing: Routing, conditions: Sequence[Expr]) -> Unmet:
    """Return what says which of a route's conditions a call does not meet.

    As with guards, a condition that reads what is absent, or divides by zero, does not hold.
    """
    spec = routing.spec
    axes = {axis.name: axis.expr for axis in spec.axes if axis.expr.name != axis.name}
    optional = frozenset(arg.name for arg in spec.schema.args if arg.optional)
    absent = {
        name
        for name, expr in axes.items()
        if expr.tested is None and not optional.isdisjoint(expr.names())
    }
    args = frozenset(spec.schema.arg_names)
    lines, known = [], set[str]()
    for place, expr in enumerate(conditions):
        lines.append("try:")
        for name in expr.names():
            if name not in axes or name in known:
                continue
            known.add(name)
            code = f"_{name} = {code_of(axes[name], args, optional)}"
            if name in absent:
                lines += ["    try:", f"        {code}", "    except Absent:"]
                code = f"    _{name} = None"
            lines.append(f"    {code}")
        held = code_of(expr, args | axes.keys(), optional | absent)
        lines += [f"    held = {held}", "except unreadable:", "    held = False"]
        lines += ["if not held:", f"    return conditions[{place}]"]
    body = "".join(f"    {line}\n" for line in [*lines, "return None"])
    params = ", ".join(f"_{name}" for name in spec.schema.arg_names)
    space: dict[str, Any] = {**GLOBALS, "conditions": tuple(conditions)}
    exec(f"def unmet({params}):\n{body}", space)
    found: Unmet = space["unmet"]
    return found
