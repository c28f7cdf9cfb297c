"""What of a Helion function its result needs, told from its tree.

That is no tile loop, no check, and nothing that fills tensors; `host_code` runs it, or writes it
down.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

_PURE: Final = ("cdiv", "next_power_of_2")
"""Functions of Helion that are arithmetic, and run anywhere."""

_NUMBERS: Final = ("register_block_size", "register_tunable", "get_num_sm")
"""Functions of Helion that return what a config or a GPU has; no op's results have such sizes."""

_NUMERIC: Final = ("len", "int", "float", "bool", "min", "max", "sum", "abs", "round")
"""Functions of Python that return numbers."""

_RESIZING: Final = (
    "resize_", "resize_as_", "set_", "as_strided_", "t_", "transpose_", "swapaxes_", "swapdims_",
    "squeeze_", "unsqueeze_",
)  # fmt: skip
"""Methods that make a tensor of other sizes or strides where it stands."""


class NotInferred(ValueError):
    """Host code that cannot be told from the rest of its function, with the reason."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        self.reason = f"{reason}, so its fake implementation cannot be inferred; give one"
        place = "" if line is None else f" (line {line})"
        super().__init__(f"{reason}{place}{self.reason.removeprefix(reason)} in [op] fake_impl")


class HelionCalls:
    """What code calls of Helion, by a function that tells its names."""

    def __init__(self, is_helion: Callable[[ast.expr], bool]) -> None:
        self.is_helion = is_helion

    def called(self, node: ast.AST) -> str | None:
        """Return which function of Helion a node calls, as the source has it."""
        if isinstance(node, ast.Call) and self.is_helion(node.func):
            return ast.unparse(node.func)
        return None

    def read_as(self, node: ast.AST) -> ast.expr | None:
        """Return what a call of Helion is read as: x for `hl.specialize(x)`, 1 for a number."""
        name = (self.called(node) or "").rpartition(".")[2]
        if name in _NUMBERS:
            return ast.Constant(1)
        if name != "specialize" or not isinstance(node, ast.Call) or len(node.args) != 1:
            return None
        return node.args[0]

    def dropped(self, node: ast.stmt) -> bool:
        """Whether a statement is a tile loop, a check, or a call of Helion for its effect."""
        match node:
            case ast.For(iter=ast.Call() as loop):
                return self.called(loop) is not None
            case ast.Expr(value=value):
                return self.called(value) is not None
            case ast.If(body=[*_, ast.Raise()], orelse=rest):
                returns = any(isinstance(p, ast.Return) for n in node.body for p in ast.walk(n))
                return not returns and all(map(self.dropped, rest))
        return isinstance(node, ast.Assert)


class _Reading(ast.NodeTransformer):
    """Puts in place of calls of Helion what they are read as, and drops what does nothing."""

    def __init__(self, helion: HelionCalls) -> None:
        self.helion = helion

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.stmt) and self.helion.dropped(node):
            return None
        self.generic_visit(node)
        return self.helion.read_as(node) or _filled(node)


def read(body: Sequence[ast.stmt], helion: HelionCalls) -> list[ast.stmt]:
    """Return statements as they are read where there is neither config nor GPU.

    Their trees are taken apart. Raises NotInferred where they ask Helion for more than arithmetic.
    """
    found = [_Reading(helion).visit(node) for node in body]
    for node in (part for statement in found for part in ast.walk(statement)):
        name = helion.called(node)
        if name is not None and name.rpartition(".")[2] not in _PURE:
            assert isinstance(node, ast.expr)  # what calls something
            raise NotInferred(f"its results depend on {name}", node.lineno)
    return found


def needed(function: ast.FunctionDef, helion: HelionCalls) -> list[ast.stmt]:
    """Return the statements of a function that its result needs; its tree is taken apart."""
    _Needs(helion, function).generic_visit(function)
    return function.body


def _filled(node: ast.AST) -> ast.AST:
    """Return a node; a block of which nothing is left passes."""
    if getattr(node, "body", None) == []:
        node.body = [ast.Pass()]  # type: ignore[attr-defined]  # asked for above
    return node


class _Needs(ast.NodeTransformer):
    """Keeps of a function the statements that its result needs, back from what it returns.

    Of `if`, `for`, `while` and `with` the statements within are looked at one by one.
    """

    def __init__(self, helion: HelionCalls, function: ast.FunctionDef) -> None:
        self.helion = helion
        self.sharing = _sharing(function, helion)
        self.names: set[str] = set()
        self.kept: set[ast.AST] = set()
        self.block(function.body)

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.stmt) and node not in self.kept:
            return None
        return _filled(self.generic_visit(node))

    def block(self, body: Sequence[ast.stmt]) -> bool:
        """Whether any of these statements is kept; what they read is needed from then on."""
        kept = [self.keeps(node) for node in reversed(body)]
        return any(kept)

    def keeps(self, node: ast.stmt) -> bool:
        """Whether a statement is kept, and with it what it reads."""
        if self.helion.dropped(node):
            return False
        if not isinstance(node, ast.If | ast.For | ast.While | ast.With) or _jumps(node):
            ends = any(isinstance(part, ast.Return | ast.Raise) for part in ast.walk(node))
            if ends or not self.names.isdisjoint(self.changed(node)):
                self.kept |= {*ast.walk(node)}
                self.names |= _names(node)
            return node in self.kept
        header = [part for part in ast.iter_child_nodes(node) if not isinstance(part, ast.stmt)]
        known = -1
        while known != len(self.names):  # a loop's first statements need what its last ones do
            known = len(self.names)
            within = [self.block(node.body), self.block(getattr(node, "orelse", []))]
            binds = not self.names.isdisjoint(n for part in header for n in self.changed(part))
            if any(within) or binds:
                self.kept.add(node)
                self.names |= {name for part in header for name in _names(part)}
            if not isinstance(node, ast.For | ast.While):
                break
        return node in self.kept

    def changed(self, node: ast.AST) -> Iterator[str]:
        """Yield the names that a statement binds, or whose values it may make of other sizes.

        What stands alone is done for its effect, as in `sizes.append(n)`; a tensor that is written
        keeps its sizes.
        """
        for part in ast.walk(node):
            match part:
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                    yield name
                case ast.alias(name=name, asname=other):
                    yield other or name.partition(".")[0]
                case ast.Name(id=name, ctx=ast.Store()):
                    yield name
                case ast.Attribute(ctx=ast.Store()):
                    yield from self.sharing.get(_root(part), {_root(part)})
                case ast.Subscript(ctx=ast.Store()):
                    yield from self.sharing.get(_root(part), ())
                case ast.Expr(value=value):
                    for name in _names(value):
                        yield from self.sharing.get(name, ())
                    match value:
                        case ast.Call(func=ast.Attribute(attr=method) as f) if method in _RESIZING:
                            yield _root(f)


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _jumps(node: ast.stmt) -> bool:
    """Whether a loop may be left from within, so that each of its statements counts."""
    loop = isinstance(node, ast.For | ast.While)
    jumps = (isinstance(part, ast.Break | ast.Continue) for part in ast.walk(node))
    return loop and (bool(getattr(node, "orelse", [])) or any(jumps))


def _root(node: ast.AST) -> str:
    """Return the name from which an item, an attribute or a call is reached, or nothing."""
    while isinstance(node, ast.Subscript | ast.Attribute | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _sharing(function: ast.FunctionDef, helion: HelionCalls) -> Mapping[str, set[str]]:
    """Return the names whose values may be changed in place, as lists are, by name.

    With each are those that may have the same value. Tensors and numbers are not among them.
    """
    bound = [*_bindings(function)]
    names = {name for name, _ in bound}
    while True:
        changing = {name for name, value in bound if not _settled(value, names, helion)}
        if names.isdisjoint(changing):
            break
        names -= changing
    sharing = {name: {name} for name, _ in bound if name not in names}
    for name, value in bound:
        for other in _names(value) & sharing.keys() if name in sharing else ():
            joined = sharing[name] | sharing[other]
            sharing |= dict.fromkeys(joined, joined)
    return sharing


def _bindings(function: ast.FunctionDef) -> Iterator[tuple[str, ast.expr]]:
    """Yield each name that a function binds, with the value of which it gets all or a part."""
    for arg in ast.walk(function.args):
        if isinstance(arg, ast.arg):
            text = "" if arg.annotation is None else ast.unparse(arg.annotation)
            yield arg.arg, ast.List([]) if "list" in text.lower() else ast.Constant(None)
    for node in (part for statement in function.body for part in ast.walk(statement)):
        match node:
            case ast.Assign(targets=targets, value=value):
                yield from ((name, value) for target in targets for name in _stored(target))
            case ast.For(target=target, iter=value) | ast.comprehension(target=target, iter=value):
                yield from ((name, value) for name in _stored(target))
            case (
                ast.AnnAssign(target=target, value=ast.expr() as value)
                | ast.AugAssign(target=target, value=value)
                | ast.NamedExpr(target=target, value=value)
            ):
                yield from ((name, value) for name in _stored(target))
            case ast.withitem(context_expr=value, optional_vars=ast.expr() as target):
                yield from ((name, value) for name in _stored(target))


def _stored(target: ast.expr) -> set[str]:
    parts = ast.walk(target)
    return {p.id for p in parts if isinstance(p, ast.Name) and isinstance(p.ctx, ast.Store)}


def _settled(node: ast.expr, names: Collection[str], helion: HelionCalls) -> bool:
    """Whether a value is a tensor, a number or a tuple of them, by names that are."""
    match node:
        case ast.Constant() | ast.Compare():
            return True
        case ast.Name(id=name):
            return name in names
        case ast.Attribute(value=inner) | ast.Subscript(value=inner) | ast.Starred(value=inner):
            return _root(node) == "torch" or _settled(inner, names, helion)
        case ast.Call(func=ast.Attribute(attr="tolist")):
            return False
        case ast.Call(func=ast.Name(id=name)) if name in _NUMERIC:
            return True
        case ast.Call(func=func):
            return helion.is_helion(func) or _root(func) in {"torch", *names}
        case ast.Tuple() | ast.BinOp() | ast.UnaryOp() | ast.BoolOp() | ast.IfExp():
            parts = [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)]
            return all(_settled(part, names, helion) for part in parts)
    return False
