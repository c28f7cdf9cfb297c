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
from typing import Any, Final

from kernelpkg.errors import RegistrationError

_PURE: Final = ("cdiv", "next_power_of_2")
"""Functions of Helion that are arithmetic, and run anywhere."""


def infer_fake(function: Callable[..., Any], tree: ast.Module | None = None) -> Callable[..., Any]:
    """Return a function of the same arguments that runs only the host part of a Helion function.

    `tree` is that of its file, for whoever has it, and is taken apart. Raises RegistrationError
    where the host part asks Helion for more than `hl.specialize`, `helion.cdiv` and
    `helion.next_power_of_2`, or where there is no source to read.
    """
    found = _definition(function, tree)
    if not isinstance(found, ast.FunctionDef):
        raise RegistrationError(
            f"kernel '{function.__name__}': its source cannot be read, so its fake implementation "
            "cannot be inferred; give one"
        )
    closed = dict(inspect.getclosurevars(function).nonlocals)
    found.decorator_list = []
    found.returns = None
    for arg in (*found.args.posonlyargs, *found.args.args, *found.args.kwonlyargs):
        arg.annotation = None
    found.args.defaults = []
    found.args.kw_defaults = [None] * len(found.args.kwonlyargs)
    found.body = _HostPart(function.__name__, {**function.__globals__, **closed}).body(found.body)
    # Made inside a function of what it closes over, so that it reads the module's own globals.
    outer = ast.parse(f"def make({', '.join(closed)}):\n    return {found.name}").body[0]
    assert isinstance(outer, ast.FunctionDef)
    outer.body.insert(0, found)
    module = ast.fix_missing_locations(ast.Module(body=[outer], type_ignores=[]))
    made: dict[str, Any] = {}
    exec(compile(module, f"<host part of {found.name}>", "exec"), function.__globals__, made)
    fake: types.FunctionType = made["make"](**closed)
    fake.__defaults__ = function.__defaults__
    fake.__kwdefaults__ = function.__kwdefaults__
    return fake


def _definition(function: Callable[..., Any], tree: ast.Module | None) -> ast.stmt | None:
    """Return the statement that defined a function: that of its tree, or one read anew."""
    line = getattr(getattr(function, "__code__", None), "co_firstlineno", None)
    for node in [] if tree is None else tree.body:
        if isinstance(node, ast.FunctionDef) and (node.name, node.lineno) == (
            function.__name__,
            line,
        ):
            return node
    try:
        read = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return None
    return read.body[0] if read.body else None


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

    def visit_While(self, node: ast.While) -> Any:
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
        last = name.rpartition(".")[2]
        if last == "specialize" and len(node.args) == 1:
            return node.args[0]
        if last in _PURE:
            return node
        raise RegistrationError(
            f"kernel '{self.name}': its host part calls {name}, so its fake implementation cannot "
            "be inferred; give one"
        )

    def _block(self, node: Any) -> Any:
        for field in ("body", "orelse"):
            if getattr(node, field, None):
                setattr(node, field, self.body(getattr(node, field)))
        for field in ("iter", "test"):
            if hasattr(node, field):
                setattr(node, field, self.visit(getattr(node, field)))
        for item in getattr(node, "items", ()):
            self.visit(item)
        return node

    def _of_helion(self, function: ast.expr) -> bool:
        names = []
        while isinstance(function, ast.Attribute):
            names.append(function.attr)
            function = function.value
        value: Any = self.scope.get(function.id) if isinstance(function, ast.Name) else None
        for name in reversed(names):
            value = getattr(value, name, None)
        module = value.__name__ if isinstance(value, types.ModuleType) else None
        module = module or getattr(value, "__module__", None) or ""
        return module == "helion" or module.startswith("helion.")
