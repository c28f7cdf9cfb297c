"""The fake implementation of a vendored op: the host part of its Helion function, as text.

`hostpart` makes the same of a function that was imported; here it is read, and what the result
does not need is left out.
"""

from __future__ import annotations

import ast
import builtins
import copy
from collections.abc import Iterator, Sequence
from typing import Final

from kernelpkg.vllm.vendor.op_code import STEP, call, lay
from kernelpkg.vllm.vendor.pyfile import PyFile, reads

_PURE: Final = ("cdiv", "next_power_of_2")
"""Functions of Helion that are arithmetic, and run anywhere."""

_ATOMS: Final = (
    ast.Name,
    ast.Attribute,
    ast.Subscript,
    ast.Call,
    ast.Constant,
    ast.Tuple,
    ast.List,
)


class NotInferred(ValueError):
    """A host part that cannot be told from the rest of its function."""


def host_part(file: PyFile, function: ast.FunctionDef) -> list[str]:
    """Return the lines of `fake_impl`, which is the function without its tile loops.

    Raises NotInferred where the host part asks Helion for more than `hl.specialize` and
    arithmetic, or needs what a tile loop has made.
    """
    writer = _Writer(file)
    body = writer.slice(copy.deepcopy(function).body)
    lines = [*_head(file, function), *writer.lines(body, STEP)]
    known = {*file.imports, *dir(builtins)}
    known |= {name for item in file.definitions for name in item.names}
    lacking = sorted(reads("\n".join(lines)) - known)
    if lacking:
        raise NotInferred(
            f"its result needs '{lacking[0]}', which a tile loop makes, so its fake "
            "implementation cannot be inferred; give one in [op] fake_impl"
        )
    return lines


def _head(file: PyFile, function: ast.FunctionDef) -> Iterator[str]:
    args = [*function.args.posonlyargs, *function.args.args]
    texts = [file.segment(arg) for arg in args]
    for place, default in enumerate(reversed(function.args.defaults), 1):
        texts[-place] += f" = {file.segment(default)}"
    returns = "" if function.returns is None else f" -> {file.segment(function.returns)}"
    yield from lay(call("def fake_impl", *texts), after=f"{returns}:")
    yield '    """Return what the op does, with nothing in it: its host code without its loops."""'


class _Writer:
    """Slices a function backwards from what it returns, and writes down what is left."""

    def __init__(self, file: PyFile) -> None:
        self.file = file
        self.needed: set[str] = set()
        self.helion = {
            name for name, item in file.imports.items() if item.module.split(".")[0] == "helion"
        }

    def slice(self, body: Sequence[ast.stmt]) -> list[ast.stmt]:
        """Return the statements that the result needs; what these read is needed from then on."""
        return [node for node in reversed(body) if self.keeps(node)][::-1]

    def keeps(self, node: ast.stmt) -> bool:
        """Whether a statement is kept; an `if` keeps what is needed of its branches."""
        match node:
            case ast.Return() | ast.Raise():
                kept = True
            case ast.If():
                node.body, node.orelse = self.slice(node.body), self.slice(node.orelse)
                kept = bool(node.body or node.orelse)
                if kept:
                    self.read(node.test)
                return kept
            case ast.For(iter=ast.Call(func=function)) if self.of_helion(function):
                return False
            case ast.Assert() | ast.Pass():
                return False
            case ast.FunctionDef(name=name):
                kept = name in self.needed
            case _:
                kept = bool(self.touched(node) & self.needed) or self.leaves(node)
        if kept:
            self.read(node)
        return kept

    def read(self, node: ast.AST) -> None:
        self.needed |= self.names(node)

    def names(self, node: ast.AST) -> set[str]:
        return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}

    def touched(self, node: ast.stmt) -> set[str]:
        """Return the names that a statement binds, whose items it sets, or that it may change.

        What stands alone is done for its effect, as in `sizes.append(n)`.
        """
        found: set[str] = set()
        for part in ast.walk(node):
            if isinstance(part, ast.Expr) and not self.specializes(part.value):
                found |= self.names(part)
            elif isinstance(part, ast.Name | ast.Subscript | ast.Attribute):
                inner: ast.expr = part
                while isinstance(inner, ast.Subscript | ast.Attribute):
                    inner = inner.value
                if isinstance(part.ctx, ast.Store) and isinstance(inner, ast.Name):
                    found.add(inner.id)
        return found

    def leaves(self, node: ast.stmt) -> bool:
        return any(isinstance(part, ast.Return | ast.Raise) for part in ast.walk(node))

    def of_helion(self, function: ast.expr) -> bool:
        while isinstance(function, ast.Attribute):
            function = function.value
        return isinstance(function, ast.Name) and function.id in self.helion

    def specializes(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Call) and self.of_helion(node.func)

    # --- writing

    def lines(self, body: Sequence[ast.stmt], indent: int) -> Iterator[str]:
        """Yield the lines of statements at an indentation."""
        for node in body:
            if isinstance(node, ast.If):
                yield from self.branches(node, indent, "if")
            else:
                text = self.text(node)
                first, *rest = text.split("\n")
                yield " " * indent + first
                yield from rest
        if not body:
            yield " " * indent + "pass"

    def branches(self, node: ast.If, indent: int, word: str) -> Iterator[str]:
        margin = " " * indent
        yield f"{margin}{word} {self.text(node.test)}:"
        yield from self.lines(node.body, indent + STEP)
        match node.orelse:
            case []:
                return
            case [ast.If() as inner] if self.file.lines[inner.lineno - 1].lstrip()[:4] == "elif":
                yield from self.branches(inner, indent, "elif")
            case _:
                yield f"{margin}else:"
                yield from self.lines(node.orelse, indent + STEP)

    def text(self, node: ast.stmt | ast.expr) -> str:
        """Return the text of a node, in which `hl.specialize(x)` is x."""
        for part in ast.walk(node):
            if isinstance(part, ast.For) and self.specializes(part.iter):
                raise NotInferred(
                    f"a tile loop stands inside another statement (line {part.lineno}), so its "
                    "fake implementation cannot be inferred; give one in [op] fake_impl"
                )
            if isinstance(part, ast.Call):
                self.check(part)
        data = self.file.segment(node).encode()
        starts = [0]
        for line in data.split(b"\n"):
            starts.append(starts[-1] + len(line) + 1)

        def place(row: int, column: int) -> int:
            return starts[row - node.lineno] + column - node.col_offset * (row == node.lineno)

        for part in reversed(list(self.replaced(node))):
            inner = self.text(part.args[0])
            if not isinstance(part.args[0], _ATOMS):
                inner = f"({inner})"
            assert part.end_lineno is not None and part.end_col_offset is not None
            end = place(part.end_lineno, part.end_col_offset)
            data = data[: place(part.lineno, part.col_offset)] + inner.encode() + data[end:]
        return data.decode()

    def replaced(self, node: ast.AST) -> Iterator[ast.Call]:
        """Yield the outermost calls of `hl.specialize`, in the order of the text."""
        if isinstance(node, ast.Call) and self.called(node) == "specialize":
            yield node
            return
        for child in sorted(ast.iter_child_nodes(node), key=_position):
            yield from self.replaced(child)

    def called(self, node: ast.Call) -> str | None:
        """Return which function of Helion a call is of."""
        function = ast.unparse(node.func) if self.of_helion(node.func) else None
        return None if function is None else function.rpartition(".")[2]

    def check(self, node: ast.Call) -> None:
        name = self.called(node)
        if name not in (None, *_PURE) and not (name == "specialize" and len(node.args) == 1):
            raise NotInferred(
                f"its host part calls {ast.unparse(node.func)} (line {node.lineno}), so its fake "
                "implementation cannot be inferred; give one in [op] fake_impl"
            )


def _position(node: ast.AST) -> tuple[int, int]:
    """Return where a node begins; keywords of a call come behind its arguments in the tree."""
    return getattr(node, "lineno", 0), getattr(node, "col_offset", 0)
