"""The code that decides on each call of a native op which is routed: pure, and written once."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from kernelpkg.expr.language import Absent, Expr, code_of, dtype_name, given
from kernelpkg.manifest.opschema import NO_DEFAULT, OpArg
from kernelpkg.packs.routes import Routing
from kernelpkg.runtime.dispatch import grad_code, key_code

GLOBALS: Final[Mapping[str, object]] = {
    "dtype_name": dtype_name,
    "given": given,
    "Absent": Absent,
    "unreadable": (Absent, IndexError, ArithmeticError),
}
"""What the code of conditions needs among its globals."""


@frozen(kw_only=True)
class Condition:
    """One condition of a route: its text, and lines of code that set `held`."""

    text: str
    lines: tuple[str, ...]


def conditions(routing: Routing) -> tuple[tuple[Condition, ...], tuple[Condition, ...]]:
    """Return the conditions of a route, and those on its eager calls; cheap ones first.

    Each axis that they read is a local variable, set by the first that needs it; what conditions
    on eager calls set is not there for others, for a call goes on where they cannot be read. As
    with guards, a condition that reads what is absent, or divides by zero, does not hold.
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

    def written(expr: Expr, known: set[str]) -> Condition:
        lines = ["try:"]
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
        return Condition(text=expr.text, lines=tuple(lines))

    def cost(expr: Expr) -> int:
        """How many facts of tensors a condition reads, and how many parts it has, by weight."""
        trees = [expr.tree, *(axes[name].tree for name in expr.names() if name in axes)]
        nodes = [node for tree in trees for node in ast.walk(tree)]
        return len(nodes) + 10 * sum(isinstance(node, ast.Attribute) for node in nodes)

    known: set[str] = set()
    when = tuple(written(expr, known) for expr in sorted(routing.route.when, key=cost))
    eager = (written(expr, {*known}) for expr in sorted(routing.route.eager, key=cost))
    return when, tuple(eager)


def routed_code(routing: Routing, native: Sequence[OpArg]) -> tuple[str, dict[str, Any]]:
    """Return the code of the function `call` that a native op is overridden with, and its globals.

    PyTorch leaves out trailing arguments that equal their defaults, so those are the native op's.
    Beside what is returned, the globals of `call` hold:

    - `native(keyset, *args)`, the native op, and `keyset`;
    - `find(key)`: None for a signature that is new, else its launcher, or None where the native
      op answers, and what counts the call; and `resolve(key, args)`, which answers a new one;
    - `seen`, the eager calls that were answered or tried once, by what is seen at a glance, and
      `see(glance)`, which adds one; `grad_enabled()` and `capturing()`;
    - what counts a call that is passed on: `by_when0()`, … and `by_eager0()`, … for each of
      `conditions`, `by_grad()`, and `by_capture()`.
    """
    when, eager = conditions(routing)
    names = [f"_{arg.name}" for arg in native]
    space: dict[str, Any] = dict(GLOBALS)
    params = []
    for name, arg in zip(names, native, strict=True):
        if arg.default is not NO_DEFAULT:
            space[f"default{name}"] = arg.default
        params.append(name if arg.default is NO_DEFAULT else f"{name}=default{name}")
    args = ", ".join(names)
    grads = [grad_code(n, arg) for n, arg in zip(names, native, strict=True) if arg.is_tensor]
    key = ", ".join(key_code(n, arg) for n, arg in zip(names, native, strict=True))

    def unless(test: str, count: str) -> list[str]:
        return [f"if {test}:", f"    {count}()", f"    return native(keyset, {args})"]

    lines = []
    for place, condition in enumerate(when):
        lines += [*condition.lines, *unless("not held", f"by_when{place}")]
    lines += unless(f"grad_enabled() and ({' or '.join(grads)})", "by_grad")
    if eager or routing.route.capture_only:
        lines.append(f"by = {'by_capture' if routing.route.capture_only else None}")
        for place, condition in enumerate(eager):
            lines += [*condition.lines, "if not held:", f"    by = by_eager{place}"]
        glance = ", ".join(_glance(native, names))
        lines += ["if by is not None and not capturing():", f"    glance = ({glance},)"]
        lines += [f"    {line}" for line in unless("glance in seen", "by")]
        lines.append("    see(glance)")
    lines += [f"key = ({key},)", "found = find(key)", "if found is None:"]
    lines += [f"    return resolve(key, ({args},))", "launch, count = found", "count()"]
    lines += ["if launch is None:", f"    return native(keyset, {args})"]
    lines.append(f"return launch({args})")
    always = [arg.name for arg in native if arg.is_tensor and not arg.optional]
    body = [f"    {line}" for line in _shapes_once(lines, always)]
    return "\n".join([f"def call({', '.join(params)}):", *body]) + "\n", space


def _glance(native: Sequence[OpArg], names: Sequence[str]) -> list[str]:
    """Write what tells most calls apart: one shape, the scalars, and which tensors are given."""
    tensors = [n for n, arg in zip(names, native, strict=True) if arg.is_tensor]
    always = [n for n, arg in zip(names, native, strict=True) if arg.is_tensor and not arg.optional]
    optional = [f"{name} is None" for name in tensors if name not in always]
    return [f"{always[0]}.shape", *(n for n in names if n not in tensors), *optional]


def _shapes_once(lines: Sequence[str], tensors: Sequence[str]) -> list[str]:
    """Read each shape once, before the statement that needs it first: a read takes 0.1 us."""
    found: list[str] = []
    known, begin = set[str](), 0

    def kept(match: re.Match[str]) -> str:
        name = match[1]
        if name not in tensors:
            return match[0]
        if name not in known:
            known.add(name)
            found.insert(begin, f"shape_{name} = _{name}.shape")
        return f"shape_{name}"

    for line in lines:
        if line[0] != " " and not line.startswith("except"):
            begin = len(found)
        found.append(re.sub(r"\b_(\w+)\.shape\b", kept, line))
    return found
