"""Python code as text: laid out in vLLM's 88 columns as `ruff format` would, and expressions.

An expression of a manifest has one value, as this text and in `expr.compile_exprs`.
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

from attrs import frozen

from kernelpkg.expr.language import DTYPES, SIGNS, Expr, tests_none
from kernelpkg.expr.types import ValueType
from kernelpkg.manifest.spec import KernelSpec

COPYRIGHT: Final = "Copyright contributors to the vLLM project"
"""What vLLM's own check wants to find in the second line of each of its files."""

WIDTH: Final = 88
"""The columns of a line in vLLM's files."""

STEP: Final = 4
"""The columns of one indentation."""


_SIGN: Final = re.compile(r" (?:not in|is not|\S+) \(*$")
"""An operator right before its operand."""


@frozen
class Group:
    """Items between brackets: on one line where they fit, else on lines of their own.

    The items of a call or a signature may share one line below its bracket; those of a
    collection (`each`) may not.
    """

    start: str
    items: tuple[str | Group, ...]
    end: str
    each: bool = False

    def flat(self) -> str:
        """Return it on one line; a tuple of one keeps its comma."""
        items = ", ".join(flat(item) for item in self.items)
        comma = "," * (self.each and self.end == ")" and len(self.items) == 1)
        return f"{self.start}{items}{comma}{self.end}"


Doc = str | Group


def flat(doc: Doc) -> str:
    """Return a piece of code on one line."""
    return doc if isinstance(doc, str) else doc.flat()


def call(function: str, *arguments: Doc) -> Group:
    return Group(f"{function}(", arguments, ")")


def collection(brackets: str, items: Iterable[Doc], start: str = "") -> Group:
    """Return a list, tuple, set or dictionary; `start` stands before its first bracket."""
    return Group(start + brackets[0], tuple(items), brackets[1], each=True)


def lay(doc: Doc, indent: int = 0, *, before: str = "", after: str = "") -> Iterator[str]:
    """Yield the lines of a piece of code, between texts that belong to its first and last line."""
    margin = " " * indent
    line = f"{margin}{before}{flat(doc)}{after}"
    if isinstance(doc, str) or len(line) <= WIDTH or not doc.items:
        yield line
        return
    yield f"{margin}{before}{doc.start}"
    inner = " " * (indent + STEP) + ", ".join(map(flat, doc.items))
    if len(inner) <= WIDTH and not doc.each:
        yield inner
    elif len(doc.items) == 1 and not doc.each:
        yield from lay(doc.items[0], indent + STEP)
    else:
        for item in doc.items:
            yield from lay(item, indent + STEP, after=",")
    yield f"{margin}{doc.end}{after}"


def assign(name: str, doc: Doc, indent: int = STEP) -> list[str]:
    """Return the lines of an assignment, whose value has parentheses where it needs them."""
    lines = list(lay(doc, indent, before=f"{name} = "))
    if isinstance(doc, Group) or len(lines[0]) <= WIDTH:
        return lines
    margin, inner = " " * indent, " " * (indent + STEP)
    parts = [doc] if len(inner) + len(doc) <= WIDTH else operands(doc)
    return [f"{margin}{name} = (", *(inner + part for part in parts), f"{margin})"]


def operands(text: str) -> list[str]:
    """Split an expression before its outermost operators."""
    tree = ast.parse(text, mode="eval").body
    cuts: list[ast.expr] = []
    match tree:
        case ast.BoolOp(values=values):
            cuts = [part for value in values for part in _conjuncts(value)][1:]
        case ast.Compare(comparators=cuts):
            pass
        case ast.IfExp(test=test, orelse=orelse):
            cuts = [test, orelse]
        case ast.BinOp(op=op):
            sums = isinstance(op, ast.Add | ast.Sub)
            while isinstance(tree, ast.BinOp) and sums is isinstance(tree.op, ast.Add | ast.Sub):
                cuts.insert(0, tree.right)
                tree = tree.left
    found, start = [], 0
    for cut in cuts:  # expressions are ASCII, so columns are places in the text
        sign = _SIGN.search(text[start : cut.col_offset])
        if sign is not None:
            found.append(text[start : start + sign.start()])
            start += sign.start() + 1
    return [*found, text[start:]]


def _conjuncts(tree: ast.expr) -> list[ast.expr]:
    """Return what `and` joins, which has no parentheses within `or`; or else the expression."""
    return tree.values if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And) else [tree]


def comment(text: str, indent: int = 0) -> list[str]:
    """Return a text as the lines of a comment."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=" " * indent + "# ",
        subsequent_indent=" " * indent + "# ",
        break_on_hyphens=False,
    )


def heading(license: str, origin: str, summary: str) -> list[str]:
    """Return how a file begins: its license, where it is from, and its docstring."""
    return [
        f"# SPDX-License-Identifier: {' '.join(license.split())}",
        f"# SPDX-FileCopyrightText: {COPYRIGHT}",
        *comment(origin),
        *_docstring(summary),
    ]


def _docstring(text: str) -> list[str]:
    text = " ".join(text.split()).replace("\\", "\\\\").replace('"""', "'''")
    if len(f'"""{text}"""') <= WIDTH and text[-1] != '"':
        return [f'"""{text}"""']
    return [*textwrap.wrap(f'"""{text}', WIDTH, break_on_hyphens=False), '"""']


def unhidden(names: Iterable[str], taken: Collection[str]) -> dict[str, str]:
    """Return a name for each name that hides none of those taken: its own, or with a `_`."""
    wanted = dict.fromkeys(names)
    found = {}
    for name in wanted:
        new = name
        while new in taken or (new != name and new in wanted):
            new += "_"
        found[name] = new
    return found


@frozen(kw_only=True)
class AxisCode:
    """One axis: its type, whether it may be None, and how its value is read from arguments."""

    type: ValueType
    nullable: bool
    code: str


class Unsayable(ValueError):
    """An expression that plain Python cannot say as briefly as the manifest does."""


def axis_codes(spec: KernelSpec, names: Mapping[str, str]) -> dict[str, AxisCode]:
    """Return how each axis is read; `names` has the local names of arguments, where they differ.

    Raises Unsayable for an axis that reads an optional argument under a condition other than that
    it is given.
    """
    found = {}
    for axis in spec.axes:
        kind = spec.axis_types[axis.name].kind
        assert kind is not None, "axes of a spec were checked"
        absent = _absent(axis.expr.tree, spec.schema.optional, axis.name)
        code = python(axis.expr, names)
        if absent and axis.expr.name is None:
            lacks = " or ".join(f"{names.get(name, name)} is None" for name in absent)
            code = f"None if {lacks} else {code}"
        found[axis.name] = AxisCode(type=kind, nullable=bool(absent), code=code)
    return found


def python(expr: Expr, names: Mapping[str, str] = {}, *, dtypes: bool = False) -> str:
    """Return an expression as Python; its names are arguments, or axes whose dtypes are texts.

    A dtype on its own is a text, as in case keys, or with `dtypes` one of torch's.
    """
    if expr.name in DTYPES:
        return f"torch.{expr.name}" if dtypes else f'"{expr.name}"'
    text = _Writer(names).text(expr.tree)
    if isinstance(expr.tree, ast.Attribute) and expr.tree.attr == "dtype":
        return f'str({text}).removeprefix("torch.")'
    return f"getattr(torch, {text})" if dtypes else text


_OR, _AND, _NOT, _COMPARE, _SUM, _PRODUCT, _MINUS, _ATOM = range(8)
"""How tightly the parts of an expression hold together."""

_SIGNS: Final[Mapping[type[ast.AST], str]] = {**SIGNS, ast.Is: "is", ast.IsNot: "is not"}
_TURNED: Final = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_NEGATED: Final = {
    "==": "!=", "!=": "==", "in": "not in", "not in": "in", "is": "is not", "is not": "is"
}  # fmt: skip
"""Comparisons that linters want to see the other way round: behind a constant, behind `not`."""


class _Writer:
    """Writes a checked tree with as few parentheses as there can be, on any Python alike.

    `ast.unparse` of Python 3.11 writes `a > 1 and (b > 1)`, which nobody would.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names

    def text(self, node: ast.expr, least: int = _OR) -> str:
        """Return the text of a node, in parentheses where it holds together less than `least`."""
        text, level = self.visit(node)
        return text if level >= least else f"({text})"

    def visit(self, node: ast.expr) -> tuple[str, int]:
        match node:
            case ast.Constant(value=value):
                return literal(value), _ATOM
            case ast.Name(id=name):
                return f'"{name}"' if name in DTYPES else self.names.get(name, name), _ATOM
            case ast.BoolOp(op=op, values=values):
                level = _OR if isinstance(op, ast.Or) else _AND
                word = " or " if level == _OR else " and "
                return word.join(self.text(value, level + 1) for value in values), level
            case ast.UnaryOp(op=ast.Not(), operand=ast.Compare(ops=[op]) as inner) if (
                _SIGNS[type(op)] in _NEGATED
            ):
                return self.compare(inner, _NEGATED[_SIGNS[type(op)]]), _COMPARE
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return f"not {self.text(operand, _NOT)}", _NOT
            case ast.UnaryOp(operand=operand):
                return f"-{self.text(operand, _MINUS)}", _MINUS
            case ast.BinOp(left=left, op=sign, right=right):
                level = _SUM if isinstance(sign, ast.Add | ast.Sub) else _PRODUCT
                sides = self.text(left, level), self.text(right, level + 1)
                return f"{sides[0]} {_SIGNS[type(sign)]} {sides[1]}", level
            case ast.Compare():
                return self.compare(node), _COMPARE
            case ast.Subscript() | ast.Attribute() | ast.Call():  # read of a tensor, by its name
                name, _, what = ast.unparse(node).partition(".")
                return f"{self.names.get(name, name)}.{what}", _ATOM
        raise AssertionError(f"a node that was not checked: {ast.dump(node)}")

    def compare(self, node: ast.Compare, sign: str | None = None) -> str:
        """Return a comparison, of one sign with another one where that is given."""
        read = any(isinstance(n, ast.Attribute) and n.attr == "dtype" for n in ast.walk(node))
        sides = [self.side(side, read=read) for side in (node.left, *node.comparators)]
        signs = [_SIGNS[type(op)] for op in node.ops] if sign is None else [sign]
        constants = [isinstance(side, ast.Constant) for side in (node.left, *node.comparators)]
        if constants == [True, False] and signs[0] in _TURNED:
            sides, signs = sides[::-1], [_TURNED[signs[0]]]
        pairs = zip(signs, sides[1:], strict=True)
        return " ".join([sides[0], *(f"{sign} {side}" for sign, side in pairs)])

    def side(self, node: ast.expr, *, read: bool) -> str:
        """Return one side; dtypes beside one that is read of a tensor are torch's own."""
        if isinstance(node, ast.List):
            return f"[{', '.join(self.side(item, read=read) for item in node.elts)}]"
        if read and isinstance(node, ast.Name) and node.id in DTYPES:
            return f"torch.{node.id}"
        return self.text(node, _SUM)


def _absent(tree: ast.expr, optional: frozenset[str], axis: str) -> tuple[str, ...]:
    """Return the optional names whose absence makes an expression absent, in order.

    Those that `and` and `or` have tested before do not count. Raises Unsayable for names that
    count in some calls only.
    """
    found: dict[str, None] = {}

    def visit(node: ast.AST, given: frozenset[str], *, sure: bool) -> None:
        match node:
            case ast.Name(id=name) if name in optional - given - found.keys():
                if not sure:
                    raise Unsayable(
                        f"axis '{axis}' reads '{name}' for some calls only; test "
                        f"'{name} is not None' before it"
                    )
                found[name] = None
            case ast.Compare() if tests_none(node):
                pass
            case ast.BoolOp(op=op, values=values):
                known = given
                for place, value in enumerate(values):
                    visit(value, known, sure=sure and not place)
                    known |= _told(value, isinstance(op, ast.And))
            case ast.Compare(left=left, comparators=sides):
                for place, side in enumerate((left, *sides)):
                    visit(side, given, sure=sure and place < 2)
            case _:
                for child in ast.iter_child_nodes(node):
                    visit(child, given, sure=sure)

    visit(tree, frozenset(), sure=True)
    return tuple(found)


def literal(value: object) -> str:
    """Return a value of a manifest as Python spells it."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _told(node: ast.expr, holds: bool) -> frozenset[str]:
    """Return the names that are given if a condition holds, or if it does not."""
    match node:
        case ast.Compare(left=ast.Name(id=name), ops=[test]) if tests_none(node):
            return frozenset({name} if isinstance(test, ast.IsNot) is holds else ())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _told(operand, not holds)
        case ast.BoolOp(op=op, values=values) if isinstance(op, ast.And) is holds:
            return frozenset().union(*(_told(value, holds) for value in values))
        case _:
            return frozenset()
