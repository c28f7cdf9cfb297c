"""The annotations and defaults of a function, as the arguments and results of an op."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any, Final

from attrs import frozen

from kernelpkg.from_helion.source import SourceModule, literal
from kernelpkg.manifest.opschema import NO_DEFAULT, SchemaError, parse_schema

_TYPES: Final = {
    **dict.fromkeys(("torch.Tensor", "Tensor"), "Tensor"),
    **{name: name for name in ("int", "float", "bool", "str")},
}
"""What annotations are called in a schema; `parse_schema` says which of them kernels take."""


@frozen(kw_only=True)
class Parameter:
    """One parameter of a function; `type` is "" where no argument of an op is like it."""

    node: ast.arg
    type: str
    optional: bool
    default: Any
    default_node: ast.expr | None

    @property
    def name(self) -> str:
        return self.node.arg

    @property
    def is_tensor(self) -> bool:
        return self.type == "Tensor"

    @property
    def hint(self) -> str:
        """The annotation that its schema wants."""
        return f"{'torch.Tensor' if self.is_tensor else self.type}{' | None' * self.optional}"

    def schema(self, alias: str = "") -> str:
        """Return the argument as a schema has it; one with an `alias` is written."""
        marked = f"{self.type}({alias}!)" if alias else self.type
        given = "" if self.default is NO_DEFAULT else f"={self.default}"
        return f"{marked}{'?' * self.optional} {self.name}{given}"


def read_parameters(module: SourceModule, function: ast.FunctionDef) -> list[Parameter]:
    """Return the parameters of a function in order; `*args` and `**kwargs` are none."""
    args = function.args
    nodes = [*args.posonlyargs, *args.args]
    none: list[ast.expr | None] = [None] * (len(nodes) - len(args.defaults))
    defaults = [*none, *args.defaults, *args.kw_defaults]
    return [
        _parameter(module, node, default)
        for node, default in zip([*nodes, *args.kwonlyargs], defaults, strict=True)
    ]


def _parameter(module: SourceModule, node: ast.arg, default: ast.expr | None) -> Parameter:
    kind, optional = read_type(module, node.annotation)
    value = NO_DEFAULT if default is None else literal(default, module.constants)
    if kind == "float" and type(value) is int:
        value = float(value)
    if value is None:
        optional = True
    found = Parameter(node=node, type=kind, optional=optional, default=value, default_node=default)
    return found if _fits(found) else Parameter(
        node=node, type="", optional=optional, default=value, default_node=default
    )  # fmt: skip


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
            return "", False
        case None:
            return "", False
    return _TYPES.get(module.dotted(node), ""), False


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


def header(name: str, parameters: Sequence[Parameter], results: int) -> str:
    """Return the `def` of a function that takes the arguments of an op."""
    lines = []
    for parameter in parameters:
        given = "" if parameter.default is NO_DEFAULT else f" = {parameter.default!r}"
        lines.append(f"{parameter.name}: {parameter.hint}{given}")
    whole = f"def {name}({', '.join(lines)}) -> {result_hint(results)}:"
    if len(whole) <= 100:
        return whole
    inner = "".join(f"    {line},\n" for line in lines)
    return f"def {name}(\n{inner}) -> {result_hint(results)}:"
