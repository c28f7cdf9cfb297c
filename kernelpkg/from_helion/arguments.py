"""The annotations and defaults of a function, as the arguments and results of an op."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from typing import Any, Final

from attrs import evolve, frozen

from kernelpkg.from_helion.source import SourceModule, literal
from kernelpkg.manifest.opschema import NO_DEFAULT, SchemaError, parse_schema
from kernelpkg.packs.signature import CONSTANTS

_TYPES: Final = {
    **dict.fromkeys(("torch.Tensor", "Tensor"), "Tensor"),
    **{name: name for name in ("int", "float", "bool", "str")},
}
"""What annotations are called in a schema; `parse_schema` says which of them kernels take."""

_CONSTANT: Final = "constexpr"
"""Stands for the type of `hl.constexpr`, which says none."""


@frozen(kw_only=True)
class Parameter:
    """One parameter of a function; `type` is "" where no argument of an op is like it.

    `constant` is its annotation as it is written where that is `hl.constexpr`, and else "".
    """

    node: ast.arg
    type: str
    optional: bool
    default: Any
    default_node: ast.expr | None
    constant: str = ""

    @property
    def name(self) -> str:
        return self.node.arg

    @property
    def is_tensor(self) -> bool:
        return self.type == "Tensor"

    @property
    def hint(self) -> str:
        """The annotation that its schema wants."""
        base = {"Tensor": "torch.Tensor", "int[]": "list[int]"}.get(self.type, self.type)
        return f"{base}{' | None' * self.optional}"

    def schema(self, alias: str = "") -> str:
        """Return the argument as a schema has it; one with an `alias` is written."""
        marked = f"{self.type}({alias}!)" if alias else self.type
        shown = repr(self.default) if isinstance(self.default, str) else self.default
        given = "" if self.default is NO_DEFAULT else f"={shown}"
        return f"{marked}{'?' * self.optional} {self.name}{given}"


def length_of(function: ast.FunctionDef, name: str) -> int:
    """Return how many elements a function reads of a list, or unpacks it to; 1 at least."""
    found = 1
    for node in ast.walk(function):
        match node:
            case ast.Subscript(value=ast.Name(id=read), slice=ast.Constant(value=int(place))):
                found = max(found, place + 1) if read == name else found
            case ast.Assign(targets=[ast.Tuple(elts=parts)], value=ast.Name(id=read)):
                found = max(found, len(parts)) if read == name else found
    return found


def read_parameters(module: SourceModule, function: ast.FunctionDef) -> list[Parameter]:
    """Return the parameters of a function in order; `*args` and `**kwargs` are none."""
    args = function.args
    nodes = [*args.posonlyargs, *args.args]
    none: list[ast.expr | None] = [None] * (len(nodes) - len(args.defaults))
    defaults = [*none, *args.defaults, *args.kw_defaults]
    return [
        _parameter(module, function, node, default)
        for node, default in zip([*nodes, *args.kwonlyargs], defaults, strict=True)
    ]


def _parameter(
    module: SourceModule, function: ast.FunctionDef, node: ast.arg, default: ast.expr | None
) -> Parameter:
    kind, optional = read_type(module, node.annotation)
    value = NO_DEFAULT if default is None else literal(default, module.constants)
    constant = module.segment(node.annotation) if node.annotation and kind == _CONSTANT else ""
    if constant:
        known = type(value).__name__
        kind = known if known in CONSTANTS else _used_as(function, node.arg)
    if kind == "float" and type(value) is int:
        value = float(value)
    if value is None:
        optional = True
    found = Parameter(
        node=node,
        type=kind,
        optional=optional,
        default=value,
        default_node=default,
        constant=constant,
    )
    return found if _fits(found) else evolve(found, type="")


def _used_as(function: ast.FunctionDef, name: str) -> str:
    """Return the type of a constant that nothing tells but its use; a number unless it does."""
    if texts_of(function, name):
        return "str"
    tested: list[ast.expr] = []
    for node in ast.walk(function):
        match node:
            case ast.If(test=test) | ast.IfExp(test=test):
                tested.append(test)
            case ast.BoolOp(values=values):
                tested += values
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                tested.append(operand)
    return "bool" if any(isinstance(n, ast.Name) and n.id == name for n in tested) else "int"


def texts_of(function: ast.FunctionDef, name: str) -> list[str]:
    """Return the texts that a function compares an argument with, in their order."""
    found: dict[str, None] = {}
    for node in ast.walk(function):
        sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
        if any(isinstance(side, ast.Name) and side.id == name for side in sides):
            parts = [part for side in sides for part in ast.walk(side)]
            texts = (part.value for part in parts if isinstance(part, ast.Constant))
            found |= {text: None for text in texts if isinstance(text, str)}
    return [*found]


def _fits(parameter: Parameter) -> bool:
    """Whether an op can have such an argument."""
    try:
        parse_schema(f"({parameter.schema()}) -> Tensor")
    except SchemaError:
        return False
    return bool(parameter.type)


def read_type(module: SourceModule, node: ast.expr | None) -> tuple[str, bool]:
    """Return the type of an annotation in a schema, or "", and whether it may be None."""
    match node:
        case ast.Constant(value=str(text)):
            return read_type(module, _parsed(text))
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _either(module, [left, right])
        case ast.Subscript(value=value, slice=inner):
            name = module.dotted(value)
            if name in ("typing.Optional", "Optional"):
                return read_type(module, inner)[0], True
            if name in ("typing.Union", "Union") and isinstance(inner, ast.Tuple):
                return _either(module, inner.elts)
            if name in ("list", "typing.List", "List") and read_type(module, inner)[0] == "int":
                return "int[]", False
            return "", False
        case None:
            return "", False
    name = module.dotted(node)
    constant = name.startswith("helion.") and name.endswith((".constexpr", ".ConstExpr"))
    return _CONSTANT if constant else _TYPES.get(name, ""), False


def _parsed(text: str) -> ast.expr | None:
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError:
        return None


def _either(module: SourceModule, nodes: Sequence[ast.expr]) -> tuple[str, bool]:
    given = [node for node in nodes if not _is_none(node)]
    return (read_type(module, given[0])[0] if len(given) == 1 else ""), len(given) < len(nodes)


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def read_results(module: SourceModule, node: ast.expr | None) -> int | None:
    """Return how many tensors an annotation says are returned; None for what is no result."""
    match node:
        case ast.Constant(value=None):
            return 0
        case ast.Constant(value=str(text)):
            return read_results(module, _parsed(text))
        case ast.Subscript(value=value, slice=inner) if module.dotted(value).rpartition(".")[2] in (
            "tuple",
            "Tuple",
        ):
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            fine = all(read_type(module, part) == ("Tensor", False) for part in parts)
            return len(parts) if fine else None
    return 1 if read_type(module, node) == ("Tensor", False) else None


def result_hint(count: int) -> str:
    """Return the annotation of a function that returns so many tensors."""
    if count < 2:
        return "torch.Tensor" if count else "None"
    return f"tuple[{', '.join(['torch.Tensor'] * count)}]"


def header(
    name: str, parameters: Sequence[Parameter], results: int, *, helion: bool = False
) -> str:
    """Return the `def` of a function that takes the arguments of an op.

    That of a function of Helion says which of them are constants of its code.
    """
    lines = []
    for parameter in parameters:
        value = parameter.default
        shown = json.dumps(value) if isinstance(value, str) else repr(value)
        given = "" if value is NO_DEFAULT else f" = {shown}"
        hint = (helion and parameter.constant) or parameter.hint
        lines.append(f"{parameter.name}: {hint}{given}")
    whole = f"def {name}({', '.join(lines)}) -> {result_hint(results)}:"
    if len(whole) <= 100:
        return whole
    inner = "".join(f"    {line},\n" for line in lines)
    return f"def {name}(\n{inner}) -> {result_hint(results)}:"
