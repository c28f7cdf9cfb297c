"""The expression language of manifests: parse, check against the language, compile.

One language serves axes, guards, shapes, dtypes and conditions. It is a closed subset of Python
expressions: text becomes a Python tree, every node of the tree must be on the list, and code is
written from the checked tree, never taken from the text. Reading an absent argument makes the
whole expression absent.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from attrs import field, frozen

DTYPES: Final = (
    "float64", "float32", "float16", "bfloat16",
    "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool",
)  # fmt: skip
"""The dtypes that an expression may name, as `torch` spells them."""

MAX_LENGTH: Final = 1000
MAX_DEPTH: Final = 40
"""How long and how deeply nested an expression may be; far more than a manifest needs."""

_METHODS: Final[Mapping[str, int]] = {"numel": 0, "stride": 1, "is_contiguous": 0}
SIGNS: Final[Mapping[type[ast.AST], str]] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%",
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
    ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip
"""The operators and comparisons of the language, but for tests of None."""

TENSOR_USES: Final = "shape[i], ndim, dtype, numel(), stride(i) and is_contiguous()"
"""What expressions can read of a tensor, in words."""

LIST_USES: Final = "its elements, as in x[0], and len(x)"
"""What expressions can read of a list of whole numbers, in words."""


def fits(number: int) -> bool:
    """Whether a whole number is one that an op can take: of 64 bits, with a sign."""
    return -(2**63) <= number < 2**63


def without_value(error: ArithmeticError) -> str:
    """Say why an expression has no value for a call."""
    return "divides by zero" if isinstance(error, ZeroDivisionError) else "is beyond all numbers"


class ExprError(ValueError):
    """Text that is not an expression of the language."""


class Absent(Exception):
    """An optional argument that was not given has been read."""


@frozen(kw_only=True)
class Expr:
    """A checked expression: its text, and its tree, of nodes on the closed list alone.

    `can_fail` says that it divides or subtracts: its value may be missing, or below zero. `name` is
    the name that it is, where it is nothing but a name.
    """

    text: str
    tree: ast.expr = field(eq=False, repr=False)
    can_fail: bool = field(eq=False, repr=False)
    _names: tuple[str, ...] = field(eq=False, repr=False)
    name: str | None = field(init=False, eq=False, repr=False)

    @name.default
    def _name_alone(self) -> str | None:
        return self.tree.id if isinstance(self.tree, ast.Name) else None

    def names(self) -> tuple[str, ...]:
        """The names that it reads, in order of first use, without dtype names."""
        return self._names

    @property
    def tested(self) -> str | None:
        """The name whose presence it tells, where it is `x is None` or `x is not None`."""
        tree = self.tree
        return tree.left.id if isinstance(tree, ast.Compare) and tests_none(tree) else None  # type: ignore[attr-defined]  # a checked test has a name on its left


class _Found:
    """What is found on a walk over a tree: the names read, and whether it divides or subtracts."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}
        self.can_fail = False


@lru_cache(maxsize=4096)
def parse_expr(text: str) -> Expr:
    """Read an expression; raise ExprError, which names the part that is not in the language.

    Kernels share most of their expressions, and share what is made from them here.
    """
    text = text.strip()
    # Python takes look-alikes for one name (NFKC): what is shown would not be what is read.
    strange = re.search(r"[^\t -~]", text)
    if strange is not None:
        raise ExprError(f"has {strange[0]!a}; expressions are one line of ASCII")
    if len(text) > MAX_LENGTH:
        raise ExprError(f"is longer than {MAX_LENGTH} characters; name parts of it in [axes]")
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ExprError(f"does not parse: {reason}") from None
    except (RecursionError, MemoryError):
        raise _too_deep() from None
    found = _Found()
    _check_node(tree, found)
    return Expr(text=text, tree=tree, names=tuple(found.names), can_fail=found.can_fail)


def list_of(items: Sequence[Expr]) -> Expr:
    """Return the expression of a list of whole numbers, whose value is a tuple of theirs."""
    return Expr(
        text=f"[{', '.join(item.text for item in items)}]",
        tree=ast.List(elts=[item.tree for item in items], ctx=ast.Load()),
        names=tuple(dict.fromkeys(name for item in items for name in item.names())),
        can_fail=any(item.can_fail for item in items),
    )


def _too_deep() -> ExprError:
    return ExprError("is nested too deeply; name parts of it in [axes]")


def _check_node(node: ast.expr, found: _Found, depth: int = 0) -> None:
    """Refuse a node that is not on the list, and collect the names below it in their order."""
    if depth > MAX_DEPTH:
        raise _too_deep()
    match node:
        case ast.Constant(value=int(number)):  # and bool, which is one
            if not fits(number):
                raise ExprError("has a whole number of more than 64 bits")
        case ast.Constant(value=float(number)):
            if not math.isfinite(number):
                raise ExprError("has a number that is not finite")
        case ast.Constant(value=str(text)):
            if not text.isprintable():
                raise ExprError("has a text with characters that are not shown")
        case ast.Constant(value=None):
            raise ExprError("uses None other than in 'is None' and 'is not None'")
        case ast.Name(id=name):
            if name not in DTYPES:
                found.names[name] = None
        case ast.UnaryOp(op=ast.USub() | ast.Not() as op, operand=operand):
            found.can_fail |= isinstance(op, ast.USub)
            _check_node(operand, found, depth + 1)
        case ast.BoolOp(values=values):
            for value in values:
                _check_node(value, found, depth + 1)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in SIGNS:
            found.can_fail |= isinstance(op, ast.FloorDiv | ast.Mod | ast.Sub)
            _check_node(left, found, depth + 1)
            _check_node(right, found, depth + 1)
            if isinstance(op, ast.FloorDiv | ast.Mod) and _is_zero(right):
                raise ExprError(f"divides by zero in '{ast.unparse(node)}'")
        case ast.Compare():
            _check_compare(node, found, depth)
        case ast.Subscript(
            value=ast.Attribute(value=ast.Name(id=name), attr="shape") | ast.Name(id=name)
        ):
            found.names[name] = None
            _check_index(node.slice)
        case (
            ast.Attribute(value=ast.Name(id=name), attr="ndim" | "dtype")
            | ast.Call(func=ast.Name(id="len"), args=[ast.Name(id=name)], keywords=[])
        ):
            found.names[name] = None
        case ast.Attribute(attr="shape"):
            raise ExprError("reads a whole shape; read one size, as in 'x.shape[0]'")
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id=name), attr=attr), args=args, keywords=[]
        ) if attr in _METHODS and _METHODS[attr] == len(args):
            found.names[name] = None
            for arg in args:
                _check_index(arg)
        case ast.Attribute(attr=attr) | ast.Call(func=ast.Attribute(attr=attr)):
            raise ExprError(f"uses '.{attr}'; of a tensor, {TENSOR_USES} can be read")
        case ast.List():
            raise ExprError("has a list in other places than after 'in'")
        case _:
            raise ExprError(f"uses {shown(node)}, which is not in the language")


def _check_compare(node: ast.Compare, found: _Found, depth: int) -> None:
    none = [_is_none(side) for side in node.comparators]
    tests = [isinstance(sign, ast.Is | ast.IsNot) for sign in node.ops]
    if any(none) and none != tests:
        raise ExprError("compares to None with other than 'is' and 'is not'")
    if any(tests) and none != tests:
        raise ExprError("uses 'is' with other than None")
    if any(none) and not tests_none(node):
        raise ExprError("tests something other than one name for None")
    _check_node(node.left, found, depth + 1)
    for sign, right in zip(node.ops, node.comparators, strict=True):
        if isinstance(sign, ast.In | ast.NotIn):
            if not isinstance(right, ast.List):
                raise ExprError("needs a list in brackets after 'in'")
            if len(node.ops) > 1:
                raise ExprError("has 'in' in a chain of comparisons; join them with 'and'")
            for item in right.elts:
                _check_node(item, found, depth + 1)
        elif not _is_none(right):
            _check_node(right, found, depth + 1)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def tests_none(node: ast.Compare) -> bool:
    """Whether a comparison is `x is None` or `x is not None`."""
    named = isinstance(node.left, ast.Name) and node.left.id not in DTYPES
    return named and len(node.ops) == 1 and _is_none(node.comparators[0])


def _is_zero(node: ast.expr) -> bool:
    """Whether a checked divisor is zero for every call."""
    parts = list(ast.walk(node))
    if any(isinstance(part, ast.Name) or _is_text(part) for part in parts):
        return False
    try:
        return not eval(compile(ast.Expression(node), "<divisor>", "eval"), {"__builtins__": {}})
    except ArithmeticError:
        return False


def _check_index(node: ast.expr) -> None:
    number = node.operand if isinstance(node, ast.UnaryOp) else node
    if not (isinstance(number, ast.Constant) and type(number.value) is int) or (
        isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.USub)
    ):
        raise ExprError(f"has index {shown(node)}; an index is a whole number")
    if number.value > 64:
        raise ExprError(f"has index {shown(node)}; 64 dimensions or elements are the most")


def shown(node: ast.expr) -> str:
    """Return a part of an expression in quotes, shortened."""
    try:
        text = ast.unparse(node)
    except (RecursionError, ValueError):
        return "a part"
    return f"'{text if len(text) <= 60 else text[:57] + '...'}'"


def given(value: Any) -> Any:
    """Return a value that must be there for the expression to have one."""
    if value is None:
        raise Absent
    return value


_DTYPE_NAMES: dict[object, str] = {}


def dtype_name(dtype: object) -> str:
    """Return "bfloat16" for `torch.bfloat16`."""
    name = _DTYPE_NAMES.get(dtype)
    if name is None:
        name = _DTYPE_NAMES[dtype] = str(dtype).removeprefix("torch.")
    return name


def compile_exprs(
    exprs: Sequence[Expr],
    params: Sequence[str],
    *,
    nullable: frozenset[str] = frozenset(),
    absent: bool | None = None,
) -> Callable[..., tuple[Any, ...]]:
    """Compile expressions into one function of the parameters that returns all their values.

    Names of `nullable` may be None: an expression that reads one of them then has the value
    `absent` (None for an axis, False for a guard). Dtypes are read as their names.
    """
    known = frozenset(params)
    lines = [f"def compiled({', '.join(f'_{name}' for name in params)}):"]
    values = []
    for place, expr in enumerate(exprs):
        code = _code(expr.tree, known, nullable)
        if nullable.isdisjoint(expr.names()):
            values.append(code)
            continue
        values.append(f"v{place}")
        lines += [f"    try: v{place} = {code}", f"    except Absent: v{place} = {absent!r}"]
    lines.append(f"    return ({''.join(f'{value}, ' for value in values)})")
    return _compiled("\n".join(lines))


@lru_cache(maxsize=4096)
def _compiled(code: str) -> Callable[..., tuple[Any, ...]]:
    """Make the function of a code; kernels share most of theirs, as they do expressions."""
    space: dict[str, Any] = {"Absent": Absent, "given": given, "dtype_name": dtype_name}
    # The code is ours: it was written from trees of which `_check_node` let each node pass, never
    # from the text of a manifest, and a name in it has a `_` before it or is a text.
    exec(compile(code, "<manifest expressions>", "exec"), space)
    function: Callable[..., tuple[Any, ...]] = space["compiled"]
    return function


def code_of(expr: Expr, params: frozenset[str], nullable: frozenset[str]) -> str:
    """Write the code of an expression over parameters that each have a `_` before their names.

    It is for a function among whose globals are `given` and `dtype_name`, and raises Absent where
    it reads a parameter of `nullable` that is None.
    """
    return _code(expr.tree, params, nullable)


def evaluate(expr: Expr, values: Mapping[str, Any]) -> Any:
    """Return the value of one expression over named values; None where it reads an absent one."""
    names = tuple(values)
    nullable = frozenset(name for name in names if values[name] is None)
    return compile_exprs([expr], names, nullable=nullable)(*values.values())[0]


def _code(node: ast.expr, params: frozenset[str], nullable: frozenset[str]) -> str:
    """Write the code of a checked tree: parameters with a `_` before them, reads guarded."""

    def write(part: ast.expr) -> str:
        return _code(part, params, nullable)

    match node:
        case ast.Constant(value=value):
            return repr(value)
        case ast.Name(id=name):
            if name not in params:
                return repr(name)
            return f"given(_{name})" if name in nullable else f"_{name}"
        case ast.UnaryOp(op=op, operand=operand):
            return f"({'not' if isinstance(op, ast.Not) else '-'} {write(operand)})"
        case ast.BoolOp(op=op, values=values):
            return f"({f' {type(op).__name__.lower()} '.join(map(write, values))})"
        case ast.BinOp(left=left, op=sign, right=right):
            return f"({write(left)} {SIGNS[type(sign)]} {write(right)})"
        case ast.Compare(left=ast.Name(id=name), ops=[test]) if tests_none(node):
            return f"(_{name} is {'not ' if isinstance(test, ast.IsNot) else ''}None)"
        case ast.Compare(left=left, ops=ops, comparators=sides):
            signs = (SIGNS[type(sign)] for sign in ops)
            pairs = zip(signs, map(write, sides), strict=True)
            return f"({write(left)} {' '.join(f'{sign} {side}' for sign, side in pairs)})"
        case ast.List(elts=items):
            return f"({''.join(f'{write(item)}, ' for item in items)})"
        case ast.Subscript(value=ast.Attribute(value=tensor), slice=index):
            return f"{write(tensor)}.shape[{ast.unparse(index)}]"
        case ast.Subscript(value=numbers, slice=index):
            return f"{write(numbers)}[{ast.unparse(index)}]"
        case ast.Call(func=ast.Name(), args=[numbers]):
            return f"len({write(numbers)})"
        case ast.Attribute(value=tensor, attr=attr):
            read = f"{write(tensor)}.{attr}"
            return f"dtype_name({read})" if attr == "dtype" else read
        case ast.Call(func=ast.Attribute(value=tensor, attr=attr), args=args):
            return f"{write(tensor)}.{attr}({', '.join(map(ast.unparse, args))})"
    raise AssertionError(f"a node that was not checked: {ast.dump(node)}")
