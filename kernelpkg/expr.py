"""The expression language of manifests: parse, check the names, compile.

One language serves axes, guards, shapes, dtypes and conditions. It is a closed subset of Python
expressions: text becomes a Python tree, every node of the tree must be on the list, and code is
made from the checked tree, never from the text. Reading an absent argument makes the whole
expression absent.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import field, frozen

DTYPES: Final = (
    "float64", "float32", "float16", "bfloat16",
    "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool",
)  # fmt: skip
"""The dtypes that an expression may name, as `torch` spells them."""

_ATTRIBUTES = ("shape", "ndim", "dtype")
_METHODS = {"numel": 0, "stride": 1, "is_contiguous": 0}
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod)
_COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn)
_TENSOR_USES = "shape[i], ndim, dtype, numel(), stride(i) and is_contiguous()"


class ExprError(ValueError):
    """Text that is not an expression of the language."""


class Absent(Exception):
    """An optional argument that was not given has been read."""


@frozen(kw_only=True)
class Expr:
    """A checked expression: its text, and its tree, of nodes on the closed list alone."""

    text: str
    tree: ast.expr = field(eq=False, repr=False)

    def names(self) -> tuple[str, ...]:
        """The names that it reads, in order of first use, without dtype names."""
        found = (node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name))
        return tuple(dict.fromkeys(name for name in found if name not in DTYPES))


@frozen(kw_only=True)
class Scope:
    """What the names of an expression may stand for; an axis hides an argument of its name."""

    tensors: frozenset[str] = frozenset()
    scalars: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    axes: frozenset[str] = frozenset()

    def known(self) -> list[str]:
        return sorted(self.tensors | self.scalars | self.axes)


def parse_expr(text: str) -> Expr:
    """Read an expression; raise ExprError, which names the part that is not in the language."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ExprError(f"does not parse: {reason}") from None
    except (RecursionError, MemoryError):
        raise ExprError("is nested too deeply") from None
    _check_node(tree)
    return Expr(text=text.strip(), tree=tree)


def _check_node(node: ast.expr) -> None:
    match node:
        case ast.Constant(value=bool() | int() | float() | None):
            return
        case ast.Name():
            return
        case ast.List(elts=items):
            for item in items:
                _check_node(item)
        case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=operand):
            _check_node(operand)
        case ast.BoolOp(values=values):
            for value in values:
                _check_node(value)
        case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _OPERATORS):
            _check_node(left)
            _check_node(right)
            divides = isinstance(op, ast.FloorDiv | ast.Mod)
            if divides and isinstance(right, ast.Constant) and not right.value:
                raise ExprError(f"divides by zero in '{ast.unparse(node)}'")
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            _check_node(left)
            for sign, right in zip(ops, comparators, strict=True):
                is_none = isinstance(right, ast.Constant) and right.value is None
                if isinstance(sign, ast.Is | ast.IsNot) != is_none:
                    raise ExprError(
                        "compares to None with other than 'is' and 'is not'"
                        if is_none
                        else "uses 'is' with other than None"
                    )
                if is_none and (len(ops) > 1 or not isinstance(left, ast.Name)):
                    raise ExprError("tests something other than one name for None")
                if not is_none and not isinstance(sign, _COMPARISONS):
                    raise ExprError(f"uses '{ast.unparse(node)}', which is not in the language")
                if isinstance(sign, ast.In | ast.NotIn) and not isinstance(right, ast.List):
                    raise ExprError("needs a list in brackets after 'in'")
                _check_node(right)
        case ast.Subscript(value=ast.Attribute(value=ast.Name(), attr="shape"), slice=index):
            _check_index(index)
        case ast.Attribute(value=ast.Name(), attr="ndim" | "dtype"):
            return
        case ast.Attribute(attr="shape"):
            raise ExprError("reads a whole shape; read one size, as in 'x.shape[0]'")
        case ast.Call(func=ast.Attribute(value=ast.Name(), attr=attr), args=args, keywords=[]) if (
            _METHODS.get(attr) == len(args)
        ):
            for arg in args:
                _check_index(arg)
        case ast.Attribute(attr=attr) | ast.Call(func=ast.Attribute(attr=attr)):
            raise ExprError(f"uses '.{attr}'; of a tensor, {_TENSOR_USES} can be read")
        case ast.Constant(value=str(word)):
            raise ExprError(f"has a text '{word}'; names of dtypes are written without quotes")
        case _:
            raise ExprError(f"uses '{ast.unparse(node)}', which is not in the language")


def _check_index(node: ast.expr) -> None:
    value = node.operand if isinstance(node, ast.UnaryOp) else node
    if not (isinstance(value, ast.Constant) and type(value.value) is int) or (
        isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.USub)
    ):
        raise ExprError(f"has index '{ast.unparse(node)}'; an index is a whole number")


def scope_problems(expr: Expr, scope: Scope) -> Iterator[tuple[str, str]]:
    """Yield (name, what is wrong with it) for every name that does not fit the scope."""
    read: set[str] = set()
    tested: set[str] = set()
    for node in ast.walk(expr.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            read.add(node.value.id)
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Is | ast.IsNot):
            tested.add(ast.unparse(node.left))
    for name in expr.names():
        if name in scope.axes:
            if name in read:
                yield name, f"axis '{name}' is a value and has no attributes"
        elif name in scope.tensors:
            if name in tested and name not in scope.optional:
                yield name, f"argument '{name}' is always given, so 'is None' says nothing"
            if name not in read and name not in tested:
                yield name, f"tensor '{name}' is no value; read its {_TENSOR_USES}"
        elif name in scope.scalars:
            if name in read:
                yield name, f"argument '{name}' is a number and has no attributes"
            if name in tested and name not in scope.optional:
                yield name, f"argument '{name}' is always given, so 'is None' says nothing"
        else:
            yield name, ""


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
    lines = [f"def compiled({', '.join(f'_{name}' for name in params)}):"]
    for place, expr in enumerate(exprs):
        code = ast.unparse(_Coder(frozenset(params), nullable).visit(_copy(expr.tree)))
        if nullable.isdisjoint(expr.names()):
            lines.append(f"    v{place} = {code}")
        else:
            lines += [
                f"    try: v{place} = {code}",
                f"    except Absent: v{place} = {absent!r}",
            ]
    lines.append(f"    return ({''.join(f'v{place}, ' for place in range(len(exprs)))})")
    space: dict[str, Any] = {"Absent": Absent, "given": given, "dtype_name": dtype_name}
    exec(compile("\n".join(lines), "<manifest expressions>", "exec"), space)
    function: Callable[..., tuple[Any, ...]] = space["compiled"]
    return function


def evaluate(expr: Expr, values: Mapping[str, Any]) -> Any:
    """Return the value of one expression over named values; None where it reads an absent one."""
    names = tuple(values)
    nullable = frozenset(name for name in names if values[name] is None)
    return compile_exprs([expr], names, nullable=nullable)(*values.values())[0]


def _copy(tree: ast.expr) -> ast.expr:
    return ast.parse(ast.unparse(tree), mode="eval").body


class _Coder(ast.NodeTransformer):
    """Turns a checked tree into the code that runs: parameters renamed, reads guarded."""

    def __init__(self, params: frozenset[str], nullable: frozenset[str]) -> None:
        self.params = params
        self.nullable = nullable

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in self.params:
            return ast.Constant(node.id)
        name = ast.Name(f"_{node.id}")
        return _call("given", name) if node.id in self.nullable else name

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        if isinstance(node.left, ast.Name) and isinstance(node.ops[0], ast.Is | ast.IsNot):
            node.left = ast.Name(f"_{node.left.id}")
            return node
        return self.generic_visit(node)  # type: ignore[return-value]  # an expr stays an expr

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        self.generic_visit(node)
        return _call("dtype_name", node) if node.attr == "dtype" else node


def _call(function: str, argument: ast.expr) -> ast.Call:
    return ast.Call(func=ast.Name(function), args=[argument], keywords=[])
