"""The names and types of expressions: what each name stands for, and what a value can be used as.

An expression that passes has a value for every call: no text is added to a number, and no dtype
is compared with a size.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from attrs import field, frozen

from kernelpkg.errors import quoted, suggestion
from kernelpkg.expr.language import DTYPES, LIST_USES, TENSOR_USES, Expr, shown, tests_none

ValueType = Literal["flag", "whole", "number", "dtype", "text"]
"""What an expression is worth: true or false, a whole number, any number, the name of a dtype, or a
text of its own."""

WORDS: Final[Mapping[ValueType, str]] = {
    "flag": "true or false",
    "whole": "a whole number",
    "number": "a number",
    "dtype": "a dtype",
    "text": "a text",
}
"""The types in words."""


@frozen(kw_only=True)
class Scope:
    """What the names of an expression may stand for; an axis hides an argument of its name.

    Axes whose type is not known, because they are wrong themselves, have None.
    """

    tensors: frozenset[str] = frozenset()
    scalars: Mapping[str, ValueType] = field(factory=dict)
    lists: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    axes: Mapping[str, ValueType | None] = field(factory=dict)

    def known(self) -> list[str]:
        return sorted({*self.tensors, *self.scalars, *self.lists, *self.axes})


def infer(expr: Expr, scope: Scope) -> tuple[ValueType | None, tuple[tuple[str, str], ...]]:
    """Return the type of an expression in a scope, and (code, message) for what is wrong with it.

    The type is None where a name is wrong.
    """
    typer = _Typer(scope)
    found = typer.visit(expr.tree)
    return found, tuple(dict.fromkeys(typer.problems))


def wants(found: ValueType | None, wanted: ValueType) -> str | None:
    """Say that a value of one type stands where another is wanted, or return None."""
    if found is None or found == wanted or (found == "whole" and wanted == "number"):
        return None
    return f"is {WORDS[found]}, and must be {WORDS[wanted]}"


def value_problem(value: object, wanted: ValueType | None) -> str | None:
    """Say why an axis of a type cannot have a value, or return None."""
    if isinstance(value, str):
        if wanted in ("text", None):
            shown = value.isprintable()
            return None if shown else f"has value {value!r}, with characters that are not shown"
        if value not in DTYPES:
            remedy = suggestion(value, DTYPES) or "; dtypes are spelled as in PyTorch"
            return f"has value {quoted(value)}, which is not a dtype{remedy}"
        found: ValueType = "dtype"
    else:
        found = _constant_type(value)
    wrong = wants(found, wanted) if wanted is not None else None
    return wrong and f"has value {str(value).lower()}, which {wrong}"


class _Typer:
    """Finds the types of a tree's nodes in a scope, and what does not fit."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.problems: list[tuple[str, str]] = []

    def visit(self, node: ast.expr) -> ValueType | None:
        match node:
            case ast.Constant(value=value):
                return _constant_type(value)
            case ast.Name(id=name):
                return self.name(name)
            case ast.UnaryOp(op=op, operand=operand):
                found = self.plain(operand, node)
                return "flag" if isinstance(op, ast.Not) else self.widest([found])
            case ast.BoolOp(values=values):
                kinds = [self.plain(value, node) for value in values]
                return "flag" if set(kinds) == {"flag"} else self.widest(kinds)
            case ast.BinOp(left=left, right=right):
                return self.widest([self.plain(left, node), self.plain(right, node)])
            case ast.Compare():
                return self.compare(node)
            case ast.Subscript(value=ast.Attribute(value=ast.Name(id=name))):
                return self.tensor(name, "whole")
            case ast.Subscript(value=ast.Name(id=name)) | ast.Call(args=[ast.Name(id=name)]):
                return self.numbers(name)
            case ast.Attribute(value=ast.Name(id=name), attr=attr):
                return self.tensor(name, "dtype" if attr == "dtype" else "whole")
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attr)):
                return self.tensor(name, "flag" if attr == "is_contiguous" else "whole")
        raise AssertionError(f"a node that was not checked: {ast.dump(node)}")

    def refuse(self, code: str, message: str) -> None:
        self.problems.append((code, message))

    def widest(self, kinds: Sequence[ValueType | None]) -> ValueType | None:
        if None in kinds:
            return None
        return "number" if "number" in kinds else "whole"

    def plain(self, node: ast.expr, around: ast.expr) -> ValueType | None:
        found = self.visit(node)
        if found not in ("dtype", "text"):
            return found
        self.refuse("KP122", f"{shown(around)} uses {WORDS[found]} as a number")
        return None

    def name(self, name: str) -> ValueType | None:
        scope = self.scope
        if name in DTYPES:
            return "dtype"
        if name in scope.axes:
            return scope.axes[name]
        if name in scope.scalars:
            return scope.scalars[name]
        if name in scope.tensors:
            self.refuse("KP121", f"tensor '{name}' is not a value; read its {TENSOR_USES}")
        elif name in scope.lists:
            self.refuse("KP121", f"list '{name}' is not a value; read {LIST_USES}")
        else:
            self.unknown(name)
        return None

    def numbers(self, name: str) -> ValueType | None:
        """Return the type of an element, or of the length, of a list of whole numbers."""
        scope = self.scope
        if name in scope.lists and name not in scope.axes:
            return "whole"
        if name in scope.axes or name in scope.scalars:
            self.refuse("KP121", f"'{name}' is a value and has no elements")
        elif name in scope.tensors:
            self.refuse("KP121", f"tensor '{name}' is not a list; read its {TENSOR_USES}")
        else:
            self.unknown(name)
        return None

    def unknown(self, name: str, *, beside_text: bool = False) -> None:
        known = self.scope.known()
        remedy = suggestion(name, [*known, *DTYPES]) or f"; known are {', '.join(known) or 'none'}"
        if beside_text:
            remedy = f"; write a text in quotes, as in {name!r}"
        self.refuse("KP121", f"name '{name}' is not known here{remedy}")

    def tensor(self, name: str, kind: ValueType) -> ValueType | None:
        if name in self.scope.axes:
            self.refuse("KP121", f"axis '{name}' is a value and has no attributes")
        elif name in self.scope.scalars:
            what = "a text" if self.scope.scalars[name] == "text" else "a number"
            self.refuse("KP121", f"argument '{name}' is {what} and has no attributes")
        elif name in self.scope.lists:
            self.refuse("KP121", f"list '{name}' has no attributes; read {LIST_USES}")
        elif name not in self.scope.tensors:
            self.unknown(name)
        else:
            return kind
        return None

    def compare(self, node: ast.Compare) -> ValueType:
        if tests_none(node):
            assert isinstance(node.left, ast.Name)
            self.presence(node.left.id)
            return "flag"
        sides: list[ast.expr] = [node.left]
        for right in node.comparators:
            sides += right.elts if isinstance(right, ast.List) else [right]
        known = (*self.scope.known(), *DTYPES)
        names = [s.id for s in sides if isinstance(s, ast.Name) and s.id not in known]
        kinds = [
            None if isinstance(side, ast.Name) and side.id in names else self.visit(side)
            for side in sides
        ]
        for name in names:
            self.unknown(name, beside_text="text" in kinds)
        ordered = any(isinstance(sign, ast.Lt | ast.LtE | ast.Gt | ast.GtE) for sign in node.ops)
        mixed = {*kinds} - {None}
        if mixed == {"dtype", "text"}:
            why = "write names of dtypes without quotes"
            self.refuse("KP122", f"{shown(node)} compares a dtype with a text; {why}")
            return "flag"
        for kind in ("dtype", "text"):
            if kind in kinds and (ordered or len(mixed) > 1):
                text = f"{shown(node)} compares a {kind} with a number, or by size"
                self.refuse("KP122", text)
        return "flag"

    def presence(self, name: str) -> None:
        if name in self.scope.axes:
            return  # the axis of an argument that is absent is absent too
        scope = self.scope
        if name not in {*scope.tensors, *scope.scalars, *scope.lists}:
            self.unknown(name)
        elif name not in self.scope.optional:
            self.refuse("KP121", f"argument '{name}' is always given; remove the test for None")


def _constant_type(value: object) -> ValueType:
    if isinstance(value, bool | str):
        return "flag" if isinstance(value, bool) else "text"
    return "whole" if isinstance(value, int) else "number"
