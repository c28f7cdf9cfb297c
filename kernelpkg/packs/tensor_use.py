"""What a function of a kernel does with tensors that PyTorch, or a GPU, does not take."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from kernelpkg.manifest.opschema import OpSchema

_VIEWS: Final = frozenset(
    {"narrow", "permute", "select", "squeeze", "transpose", "unsqueeze", "view", "view_as"}
)
"""Methods whose result has the memory of the tensor, in every call."""

_ALLOCATE: Final = frozenset(
    {"arange", "empty", "empty_strided", "full", "ones", "rand", "randn", "zeros"}
)
"""Functions of torch that allocate on the CPU where no device is given."""

_TILES: Final = frozenset({"grid", "jagged_tile", "static_range", "tile"})
"""Loops of Helion whose bodies run on the GPU."""

Misuse = tuple[int, str, str]
"""A line, a code, and what is wrong."""


def misuses(function: ast.FunctionDef, schema: OpSchema) -> Iterator[Misuse]:
    """Yield what a Helion function, which is the schema's, does wrong with tensors."""
    nodes = [*ast.walk(function)]  # every load does this, so it is done once
    bound = Counter(
        node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    )
    args = {arg.name for arg in schema.args if arg.is_tensor and arg.name not in bound}
    for node in statements(function.body):
        value = node.value if isinstance(node, ast.Return) else None
        for item in value.elts if isinstance(value, ast.Tuple) else [value]:
            if isinstance(item, ast.Name) and item.id in args:
                message = (
                    f"returns its argument '{item.id}'; PyTorch expects each result to have "
                    "its own memory, so allocate it"
                )
                yield node.lineno, "KP115", message
    told = {arg.name for arg in schema.args if arg.mutated}
    visible = told or schema.returns  # else KP102 says it
    writes = _writes(function, nodes, args, bound) if visible else ()
    for line, name in sorted(writes):
        if name not in told:
            told.add(name)
            message = (
                f"writes its argument '{name}', which the schema does not mark as written; write "
                f"'Tensor(a!) {name}' there, or allocate a result"
            )
            yield line, "KP116", message
    yield from unplaced(function)


def statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield statements and those inside them; expressions, which hold none, are not walked."""
    for node in body:
        yield node
        for inner in ("body", "orelse", "finalbody"):
            yield from statements(getattr(node, inner, ()))
        for part in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            yield from statements(part.body)


def _writes(
    function: ast.FunctionDef, nodes: Iterable[ast.AST], args: set[str], bound: Counter[str]
) -> Iterator[tuple[int, str]]:
    """Yield the arguments that are written, themselves or by views with one name, and where."""
    owner = {name: name for name in args}
    for node in statements(function.body):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if bound[name] == 1:
                root = _root(value)
                if root in owner and not isinstance(value, ast.Name):
                    owner[name] = owner[root]
    for inner in nodes:
        match inner:
            case ast.Subscript(ctx=ast.Store()):
                root = _root(inner)
            case ast.Call(func=ast.Attribute(value=ast.Name(), attr=called), args=[first, *_]) if (
                called == "store" or called.startswith("atomic_")
            ):
                root = _root(first)
            case _:
                continue
        if root in owner:
            yield inner.lineno, owner[root]


def _root(node: ast.expr) -> str | None:
    """Return the name of the tensor that an expression is a view of; None for anything else."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Subscript(value=value) | ast.Attribute(value=value, attr="T" | "mT"):
            return _root(value)
        case ast.Call(func=ast.Attribute(value=value, attr=called)) if called in _VIEWS:
            return _root(value)
    return None


def unplaced(function: ast.FunctionDef) -> Iterator[Misuse]:
    """Yield tensors on the CPU that a function returns, or that its code for the GPU uses.

    Those inside a `with`, which may say the device, are left alone.
    """
    found: dict[str, tuple[int, str]] = {}
    used: set[str] = set()
    for node in _host_statements(function.body):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call() as call):
                what = _allocates(call)
                if what is not None:
                    found.setdefault(name, (node.lineno, what))
            case ast.Return(value=ast.expr() as value):
                used |= _names(value)
                for item in value.elts if isinstance(value, ast.Tuple) else [value]:
                    what = _allocates(item)
                    if what is not None:
                        yield _unplaced(item.lineno, what)
            case ast.For() if _is_tiled(node):
                used |= {name for part in node.body for name in _names(part)}
    for name, place in found.items():
        if name in used:
            yield _unplaced(*place)


def _unplaced(line: int, what: str) -> Misuse:
    message = (
        f"'torch.{what}' allocates on the CPU, wherever the call's tensors are; give it "
        "device=, such as that of an argument"
    )
    return line, "KP117", message


def _host_statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that the host runs, and the loops for the GPU as one statement each."""
    for node in body:
        yield node
        if isinstance(node, ast.If) or (isinstance(node, ast.For) and not _is_tiled(node)):
            yield from _host_statements([*node.body, *node.orelse])


def _is_tiled(loop: ast.For) -> bool:
    called = loop.iter.func if isinstance(loop.iter, ast.Call) else None
    return isinstance(called, ast.Attribute) and called.attr in _TILES


def _allocates(node: ast.expr) -> str | None:
    """Return the function of torch that an expression allocates with, if it names no device."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr=called), keywords=given):
            given_names = {keyword.arg for keyword in given}
            if called in _ALLOCATE and given_names.isdisjoint({"device", "out", None}):
                return called
    return None


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
