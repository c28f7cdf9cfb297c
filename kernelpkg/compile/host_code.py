"""The host code of a Helion function: what its result needs of what stands around its tile loops.

It allocates and reshapes, and launches nothing; run on fake tensors, it is a fake implementation
that agrees with the real op, keeps symbolic sizes, and needs no compilation. `infer_fake` makes one
of a function that was imported; `host_lines` writes down that of one that was read. What is needed
is told by `needed`.
"""

from __future__ import annotations

import ast
import copy
import inspect
import re
import textwrap
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from kernelpkg.compile.needed import HelionCalls, NotInferred, needed, read
from kernelpkg.errors import RegistrationError

_ATOMS: Final = (
    ast.Name, ast.Attribute, ast.Subscript, ast.Call, ast.Constant, ast.Tuple, ast.List,
)  # fmt: skip
"""What needs no parentheses, wherever it stands."""

_STEP: Final = 4
"""The columns of one indentation."""


def infer_fake(function: Callable[..., Any], tree: ast.Module | None = None) -> Callable[..., Any]:
    """Return a function of the same arguments that runs of a Helion function what results need.

    `tree` is that of its file, for whoever has it, and is taken apart. Raises RegistrationError
    where results depend on more of Helion than `hl.specialize`, arithmetic, and numbers of a config
    or a GPU, which are read as 1, or where there is no source to read.
    """
    closed = dict(inspect.getclosurevars(function).nonlocals)
    scope = {**function.__globals__, **closed}
    helion = HelionCalls(lambda node: _is_helion(node, scope))
    try:
        found = _definition(function, tree)
        found.body = read(needed(found, helion), helion)
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


def why_not_inferred(function: ast.FunctionDef, names: Collection[str]) -> str | None:
    """Say why `infer_fake` refuses a function that was read, or return None.

    `names` are those of Helion in its file.
    """
    helion = _helion_named(names)
    try:
        read(needed(copy.deepcopy(function), helion), helion)
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
    if isinstance(value, types.ModuleType):
        return _of_helion(value.__name__)
    # A kernel has the module of its function, and its class is of Helion.
    modules = (getattr(value, "__module__", None), type(value).__module__)
    return any(map(_of_helion, filter(None, modules)))


def _helion_named(names: Collection[str]) -> HelionCalls:
    """Return what tells by names of a file what is Helion's."""

    def is_helion(node: ast.expr) -> bool:
        while isinstance(node, ast.Attribute):
            node = node.value
        return isinstance(node, ast.Name) and node.id in names

    return HelionCalls(is_helion)


def host_lines(function: ast.FunctionDef, source: str, names: Collection[str]) -> list[str]:
    """Return the lines of the host code that the result of a function needs, as it is written.

    `source` is the text of its file, where `names` are those of Helion. Raises NotInferred where
    the host code asks Helion for more than `infer_fake` takes, or has a tile loop within another
    statement.
    """
    helion = _helion_named(names)
    body = needed(copy.deepcopy(function), helion)
    for node in (part for statement in body for part in ast.walk(statement)):
        if isinstance(node, ast.For) and helion.dropped(node):
            raise NotInferred("a tile loop stands inside another statement", node.lineno)
    read(copy.deepcopy(body), helion)
    return [*_Text(helion, source).lines(body, _STEP)]


class _Text:
    """The text of statements as it stands in a file, but for `hl.specialize(x)`, which is x.

    It is cut out and not made by `ast.unparse`, whose spacing, quotes and parentheses are those of
    a Python release: a pack has to give vLLM the same bytes on each.
    """

    def __init__(self, helion: HelionCalls, source: str) -> None:
        self.helion = helion
        self.source = source

    def of(self, node: ast.AST) -> str:
        text = self.cut(node)
        for part in ast.walk(node):  # outer calls come before those within them
            inner = self.helion.read_as(part)
            if inner is not None:
                new = self.cut(inner)
                new = new if isinstance(inner, _ATOMS) else f"({new})"
                call = re.escape(self.cut(part))
                text = new.join(re.split(rf"(?<![\w.]){call}", text))
        return text

    def cut(self, node: ast.AST) -> str:
        """Return the text of a node; what was put in, a number or `pass`, is written as it is."""
        return ast.get_source_segment(self.source, node) or ast.unparse(node)

    def value(self, node: ast.expr) -> str:
        """Return the text of what stands in the first line of a block."""
        text = self.of(node)
        return text if isinstance(node, _ATOMS) or "\n" not in text else f"({text})"

    def lines(self, body: list[ast.stmt], indent: int) -> Iterator[str]:
        """Yield the lines of statements at an indentation."""
        for node in body:
            match node:
                case ast.If():
                    yield from self.branches(node, indent, "if")
                case ast.For(target=target, iter=values, orelse=[]):
                    yield from self.block(
                        f"for {self.of(target)} in {self.value(values)}", node.body, indent
                    )
                case ast.While(test=test, orelse=[]):
                    yield from self.block(f"while {self.value(test)}", node.body, indent)
                case ast.With(items=items):
                    yield from self.block(
                        f"with {', '.join(map(self.item, items))}", node.body, indent
                    )
                case _:
                    yield from f"{' ' * indent}{self.of(node)}".split("\n")

    def item(self, node: ast.withitem) -> str:
        name = "" if node.optional_vars is None else f" as {self.of(node.optional_vars)}"
        return f"{self.value(node.context_expr)}{name}"

    def block(self, head: str, body: list[ast.stmt], indent: int) -> Iterator[str]:
        yield from f"{' ' * indent}{head}:".split("\n")
        yield from self.lines(body, indent + _STEP)

    def branches(self, node: ast.If, indent: int, word: str) -> Iterator[str]:
        yield from self.block(f"{word} {self.value(node.test)}", node.body, indent)
        match node.orelse:
            case []:
                return
            case [ast.If(col_offset=column) as inner] if column == node.col_offset:
                yield from self.branches(inner, indent, "elif")
            case _:
                yield from self.block("else", node.orelse, indent)
