"""The host code of a Helion function: what is left of it without its tile loops.

It allocates and reshapes, and launches nothing; run on fake tensors, it is a fake implementation
that agrees with the real op, keeps symbolic sizes, and needs no compilation. `infer_fake` makes one
of a function that was imported; `host_lines` writes down that of one that was read.
"""

from __future__ import annotations

import ast
import copy
import inspect
import re
import textwrap
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from kernelpkg.errors import RegistrationError

_PURE: Final = ("cdiv", "next_power_of_2")
"""Functions of Helion that are arithmetic, and run anywhere."""

_ATOMS: Final = (
    ast.Name, ast.Attribute, ast.Subscript, ast.Call, ast.Constant, ast.Tuple, ast.List,
)  # fmt: skip
"""What needs no parentheses, wherever it stands."""

_STEP: Final = 4
"""The columns of one indentation."""


class NotInferred(ValueError):
    """Host code that cannot be told from the rest of its function, with the reason."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        self.reason = f"{reason}, so its fake implementation cannot be inferred; give one"
        place = "" if line is None else f" (line {line})"
        super().__init__(f"{reason}{place}{self.reason.removeprefix(reason)} in [op] fake_impl")


def infer_fake(function: Callable[..., Any], tree: ast.Module | None = None) -> Callable[..., Any]:
    """Return a function of the same arguments that runs only the host code of a Helion function.

    `tree` is that of its file, for whoever has it, and is taken apart. Raises RegistrationError
    where the host code asks Helion for more than `hl.specialize`, `helion.cdiv` and
    `helion.next_power_of_2`, or where there is no source to read.
    """
    closed = dict(inspect.getclosurevars(function).nonlocals)
    scope = {**function.__globals__, **closed}
    helion = _Helion(lambda node: _is_helion(node, scope))
    try:
        found = _definition(function, tree)
        found.body = _host_body(found, helion)
    except NotInferred as error:
        raise RegistrationError(f"kernel '{function.__name__}': {error.reason}") from None
    found.decorator_list = []
    found.returns = None
    for arg in (*found.args.posonlyargs, *found.args.args, *found.args.kwonlyargs):
        arg.annotation = None
    found.args.defaults = []
    found.args.kw_defaults = [None] * len(found.args.kwonlyargs)
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


def _host_body(function: ast.FunctionDef, helion: _Helion) -> list[ast.stmt]:
    """Take the tile loops out of a function; return the rest, or of it what results need.

    Raises NotInferred where results depend on more of Helion than its arithmetic.
    """
    module = ast.Module(body=function.body, type_ignores=[])
    body: list[ast.stmt] = _HostCode(helion).visit(module).body
    if [*helion.refused(body)]:
        body = _Needs(helion).block(body)
    helion.check(body)
    return body


def why_not_inferred(function: ast.FunctionDef, names: Collection[str]) -> str | None:
    """Say why `infer_fake` refuses a function that was read, or return None.

    `names` are those of Helion in its file.
    """
    try:
        _host_body(copy.deepcopy(function), _helion_named(names))
    except NotInferred as error:
        return error.reason
    return None


def infer_fake_impl(
    kernel_func: Callable[..., Any], helion_settings: Any = None
) -> Callable[..., Any]:
    """Return a fake implementation of a Helion function, which runs its host code alone.

    Args:
        kernel_func: The Helion function, without a decorator.
        helion_settings: As vLLM's function of this name takes them; no result depends on them.

    Returns:
        A function of the same arguments; its results have shapes, strides and dtypes.

    Raises:
        RegistrationError: The host code asks Helion for more than arithmetic, or has no source.
    """
    return infer_fake(kernel_func)


def infer_fake_of(tree: ast.Module, name: str, path: str) -> Callable[..., Any]:
    """Return the fake implementation of a function of a file, without importing Helion.

    The file is run with something in Helion's place that does nothing but its arithmetic. `tree` is
    that of the file, and is taken apart. Raises RegistrationError where the host code asks for
    more, and whatever running the file raises.
    """
    scope: dict[str, Any] = {"__name__": f"<host part of {name}>", "__file__": path}
    body = []
    for node in tree.body:
        match node:
            case ast.Import(names=[ast.alias(name=module, asname=None)]) if _of_helion(module):
                scope["helion"] = _Absent()
            case ast.Import(names=[ast.alias(name=module, asname=str(bound))]) if _of_helion(
                module
            ):
                scope[bound] = _Absent()
            case ast.ImportFrom(module=str(module), names=names) if _of_helion(module):
                scope |= {
                    alias.asname or alias.name: getattr(_Absent(), alias.name) for alias in names
                }
            case _:
                body.append(node)
    exec(compile(ast.Module(body=body, type_ignores=[]), path, "exec"), scope)
    return infer_fake(scope[name], tree)


def unread_arguments(tree: ast.Module, name: str, arguments: Sequence[str]) -> list[int]:
    """Return the places of the arguments that a function of a file never reads."""
    function = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)
    read = {n.id for body in function.body for n in ast.walk(body) if isinstance(n, ast.Name)}
    if not read.isdisjoint({"locals", "eval", "exec", "vars"}):
        return []
    return [place for place, argument in enumerate(arguments) if argument not in read]


def _of_helion(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] == "helion"


class _Absent:
    """Stands for Helion, and for whatever is reached from it."""

    __module__ = "helion"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _ARITHMETIC.get(name) or _Absent()

    def __call__(self, *args: Any, **_: Any) -> Any:
        """Return what is decorated, and for anything else something to go on with."""
        return args[0] if args and callable(args[0]) else _Absent()


def _cdiv(a: int, b: int) -> int:
    return -(a // -b)


def _next_power_of_2(n: int) -> int:
    return 1 if n < 1 else 1 << (n - 1).bit_length()


_cdiv.__module__ = _next_power_of_2.__module__ = "helion"
_ARITHMETIC: Final = {"cdiv": _cdiv, "next_power_of_2": _next_power_of_2}


def _definition(function: Callable[..., Any], tree: ast.Module | None) -> ast.FunctionDef:
    """Return the statement that defined a function: that of its tree, or one read anew."""
    code = getattr(function, "__code__", None)
    wanted = (function.__name__, getattr(code, "co_firstlineno", None))
    for node in () if tree is None else tree.body:
        if isinstance(node, ast.FunctionDef) and (node.name, node.lineno) == wanted:
            return node
    try:
        read = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    except (OSError, TypeError, SyntaxError):
        read = []
    if not read or not isinstance(read[0], ast.FunctionDef):
        raise NotInferred("its source cannot be read")
    return read[0]


def _is_helion(node: ast.expr, scope: Mapping[str, Any]) -> bool:
    """Whether a name, or what is reached from one, is of Helion."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    value: Any = scope.get(node.id) if isinstance(node, ast.Name) else None
    for name in reversed(names):
        value = getattr(value, name, None)
    module = value.__name__ if isinstance(value, types.ModuleType) else None
    return (module or getattr(value, "__module__", None) or "").split(".")[0] == "helion"


class _Helion:
    """What code calls of Helion, by a function that tells its names."""

    def __init__(self, is_helion: Callable[[ast.expr], bool]) -> None:
        self.is_helion = is_helion

    def called(self, node: ast.AST) -> str | None:
        """Return which function of Helion a node calls, as the source has it."""
        if isinstance(node, ast.Call) and self.is_helion(node.func):
            return ast.unparse(node.func)
        return None

    def specialised(self, node: ast.AST) -> ast.expr | None:
        """Return the x of `hl.specialize(x)`."""
        name = (self.called(node) or "").rpartition(".")[2]
        if name != "specialize" or not isinstance(node, ast.Call) or len(node.args) != 1:
            return None
        return node.args[0]

    def dropped(self, node: ast.stmt) -> bool:
        """Whether a statement is a tile loop, or does nothing where nothing is compiled."""
        match node:
            case ast.For(iter=ast.Call() as loop):
                return self.called(loop) is not None
            case ast.Expr(value=value):
                return self.specialised(value) is not None
        return isinstance(node, ast.Assert)

    def refused(self, body: Iterable[ast.stmt]) -> Iterator[tuple[str, int]]:
        """Yield what statements ask Helion for that host code may not, with lines."""
        for node in (part for statement in body for part in ast.walk(statement)):
            name = self.called(node)
            pure = name is None or name.rpartition(".")[2] in _PURE
            if name is not None and not pure and self.specialised(node) is None:
                assert isinstance(node, ast.expr)  # what calls something
                yield name, node.lineno

    def check(self, body: Iterable[ast.stmt]) -> None:
        """Raise NotInferred for statements that ask Helion for more than host code may."""
        for name, line in self.refused(body):
            raise NotInferred(f"its host part calls {name}", line)


class _HostCode(ast.NodeTransformer):
    """Drops tile loops and assertions, and lets `hl.specialize(x)` be x."""

    def __init__(self, helion: _Helion) -> None:
        self.helion = helion

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.stmt) and self.helion.dropped(node):
            return None
        self.generic_visit(node)
        if getattr(node, "body", None) == []:
            node.body = [ast.Pass()]  # type: ignore[attr-defined]  # asked for above
        return self.helion.specialised(node) or node


class _Needs:
    """The names that a function needs from some statement on, back from what it returns."""

    def __init__(self, helion: _Helion) -> None:
        self.helion = helion
        self.names: set[str] = set()

    def block(self, body: Iterable[ast.stmt]) -> list[ast.stmt]:
        """Return the statements that the result needs; what these read is needed from then on."""
        return [node for node in reversed([*body]) if self.keeps(node)][::-1]

    def keeps(self, node: ast.stmt) -> bool:
        """Whether a statement is kept; an `if` keeps what is needed of its branches."""
        match node:
            case ast.If():
                node.body, node.orelse = self.block(node.body), self.block(node.orelse)
                kept = bool(node.body or node.orelse)
                self.names |= _names(node.test) if kept else set()
                return kept
            case ast.FunctionDef(name=name):
                kept = name in self.names
            case _:
                ends = any(isinstance(part, ast.Return | ast.Raise) for part in ast.walk(node))
                kept = ends or not self.names.isdisjoint(self.changed(node))
                kept = kept and not self.helion.dropped(node)
        self.names |= _names(node) if kept else set()
        return kept

    def changed(self, node: ast.stmt) -> Iterator[str]:
        """Yield the names that a statement binds, whose items it sets, or that it may change.

        What stands alone is done for its effect, as in `sizes.append(n)`.
        """
        for part in ast.walk(node):
            if isinstance(part, ast.Expr) and not self.helion.dropped(part):
                yield from _names(part)
            elif isinstance(part, ast.Name | ast.Subscript | ast.Attribute):
                inner: ast.expr = part
                while isinstance(inner, ast.Subscript | ast.Attribute):
                    inner = inner.value
                if isinstance(part.ctx, ast.Store) and isinstance(inner, ast.Name):
                    yield inner.id


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _helion_named(names: Collection[str]) -> _Helion:
    """Return what tells by names of a file what is Helion's."""

    def is_helion(node: ast.expr) -> bool:
        while isinstance(node, ast.Attribute):
            node = node.value
        return isinstance(node, ast.Name) and node.id in names

    return _Helion(is_helion)


def host_lines(function: ast.FunctionDef, source: str, names: Collection[str]) -> list[str]:
    """Return the lines of the host code that the result of a function needs, as it is written.

    `source` is the text of its file, where `names` are those of Helion. Raises NotInferred where
    the host code asks Helion for more than `infer_fake` takes, or has a tile loop within another
    statement.
    """

    helion = _helion_named(names)
    body = _Needs(helion).block(copy.deepcopy(function).body)
    for node in (part for statement in body for part in ast.walk(statement)):
        if isinstance(node, ast.For) and helion.dropped(node):
            raise NotInferred("a tile loop stands inside another statement", node.lineno)
    helion.check(body)
    return [*_Text(helion, source).lines(body, _STEP)]


class _Text:
    """The text of statements as it stands in a file, but for `hl.specialize(x)`, which is x.

    It is cut out and not made by `ast.unparse`, whose spacing, quotes and parentheses are those of
    a Python release: a pack has to give vLLM the same bytes on each.
    """

    def __init__(self, helion: _Helion, source: str) -> None:
        self.helion = helion
        self.source = source

    def of(self, node: ast.AST) -> str:
        text = ast.get_source_segment(self.source, node) or ""
        for part in ast.walk(node):  # outer calls come before those within them
            inner = self.helion.specialised(part)
            if inner is not None:
                new = ast.get_source_segment(self.source, inner) or ""
                new = new if isinstance(inner, _ATOMS) else f"({new})"
                call = re.escape(ast.get_source_segment(self.source, part) or "")
                text = new.join(re.split(rf"(?<![\w.]){call}", text))
        return text

    def lines(self, body: list[ast.stmt], indent: int) -> Iterator[str]:
        """Yield the lines of statements at an indentation."""
        for node in body:
            if isinstance(node, ast.If):
                yield from self.branches(node, indent, "if")
            else:
                yield from f"{' ' * indent}{self.of(node)}".split("\n")
        if not body:
            yield f"{' ' * indent}pass"

    def branches(self, node: ast.If, indent: int, word: str) -> Iterator[str]:
        margin = " " * indent
        yield from f"{margin}{word} {self.of(node.test)}:".split("\n")
        yield from self.lines(node.body, indent + _STEP)
        match node.orelse:
            case []:
                return
            case [ast.If(col_offset=column) as inner] if column == node.col_offset:
                yield from self.branches(inner, indent, "elif")
            case _:
                yield f"{margin}else:"
                yield from self.lines(node.orelse, indent + _STEP)
