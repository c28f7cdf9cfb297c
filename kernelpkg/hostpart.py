"""The host part of a Helion function: what is left of it without its tile loops.

It allocates and reshapes, and launches nothing; run on fake tensors, it is a fake implementation
that agrees with the real op, keeps symbolic sizes, and needs no compilation.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from collections.abc import Callable, Mapping
from typing import Any

from kernelpkg.errors import RegistrationError


def infer_fake(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of the same arguments that runs only the host part of a Helion function.

    Raises RegistrationError where the host part asks Helion for more than `hl.specialize`, or
    where there is no source to read.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError):
        raise RegistrationError(
            f"kernel '{function.__name__}': its source cannot be read, so its fake implementation "
            "cannot be inferred; give one"
        ) from None
    found = tree.body[0]
    assert isinstance(found, ast.FunctionDef)
    scope = {**function.__globals__, **inspect.getclosurevars(function).nonlocals}
    found.decorator_list = []
    found.returns = None
    for arg in found.args.args:
        arg.annotation = None
    found.body = _HostPart(function.__name__, scope).body(found.body)
    code = compile(ast.fix_missing_locations(tree), f"<host part of {found.name}>", "exec")
    exec(code, scope)
    fake: Callable[..., Any] = scope[found.name]
    return fake


class _HostPart(ast.NodeTransformer):
    """Drops tile loops and assertions, and lets `hl.specialize(x)` be x."""

    def __init__(self, name: str, scope: Mapping[str, Any]) -> None:
        self.name = name
        self.scope = scope

    def body(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        kept = [self.visit(statement) for statement in statements]
        return [statement for statement in kept if statement is not None] or [ast.Pass()]

    def visit_For(self, node: ast.For) -> Any:
        if isinstance(node.iter, ast.Call) and self._of_helion(node.iter.func):
            return None
        return self._block(node)

    def visit_If(self, node: ast.If) -> Any:
        return self._block(node)

    def visit_With(self, node: ast.With) -> Any:
        return self._block(node)

    def visit_Assert(self, node: ast.Assert) -> None:
        return None

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        if not self._of_helion(node.func):
            return node
        name = ast.unparse(node.func)
        if name.rpartition(".")[2] == "specialize" and len(node.args) == 1:
            return node.args[0]
        raise RegistrationError(
            f"kernel '{self.name}': its host part calls {name}, so its fake implementation cannot "
            "be inferred; give one"
        )

    def _block(self, node: Any) -> Any:
        bodies = {
            field: self.body(value)
            for field, value in ast.iter_fields(node)
            if field in ("body", "orelse") and value
        }
        for field, value in ast.iter_fields(node):
            if isinstance(value, ast.expr):
                setattr(node, field, self.visit(value))
        for field, kept in bodies.items():
            setattr(node, field, kept)
        return node

    def _of_helion(self, function: ast.expr) -> bool:
        parts = ast.unparse(function).split(".")
        value: Any = self.scope.get(parts[0])
        for part in parts[1:]:
            value = getattr(value, part, None)
        name = value.__name__ if isinstance(value, types.ModuleType) else None
        module = name or getattr(value, "__module__", None) or ""
        return module == "helion" or module.startswith("helion.")
