"""Which sizes the source of a Helion function fixes with `hl.specialize`, read and not run."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from attrs import frozen


@frozen(kw_only=True)
class Sizes:
    """Dimensions of a tensor argument: one, or those between two; both count as Python does."""

    arg: str
    start: int | None = None
    stop: int | None = None
    one: bool = False


@frozen(kw_only=True)
class Number:
    """An argument that is a whole number."""

    arg: str


Meaning = Sizes | Number | tuple["Meaning | None", ...]


@frozen(kw_only=True)
class FixedSizes:
    """What a function fixes whatever the call, and the arguments that it reads at all."""

    fixed: frozenset[Sizes | Number]
    read: frozenset[str]


_BLOCKS: Final = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.FunctionDef, ast.Match)


def fixed_sizes(
    function: ast.FunctionDef,
    tensors: Collection[str],
    numbers: Collection[str],
    helion: Collection[str],
) -> FixedSizes:
    """Read a function; `helion` are the names by which its file knows Helion.

    What is fixed under a condition, or in a loop, is not fixed for every call and does not count.
    """
    reader = _Reader(tensors, numbers, helion)
    for node in function.body:
        reader.statement(node)
    names = (part.id for part in ast.walk(function) if isinstance(part, ast.Name))
    read = {*names} & {*tensors, *numbers}
    return FixedSizes(fixed=frozenset(reader.fixed), read=frozenset(read))


class _Reader:
    """Follows the names of sizes through the statements of a host part, in their order."""

    def __init__(
        self, tensors: Collection[str], numbers: Collection[str], helion: Collection[str]
    ) -> None:
        self.tensors = {*tensors}
        self.names: dict[str, Meaning | None] = {name: Number(arg=name) for name in numbers}
        self.helion = helion
        self.fixed: set[Sizes | Number] = set()

    def statement(self, node: ast.stmt) -> None:
        if isinstance(node, _BLOCKS):
            for name in _stored(node):
                self.forget(name)
            return
        for part in ast.walk(node):
            if isinstance(part, ast.Call) and self.specializes(part):
                for argument in part.args:
                    self.fix(self.meaning(argument))
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self.bind(target, self.meaning(value))
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self.bind(target, self.meaning(value))
            case _:
                for name in _stored(node):
                    self.forget(name)

    def forget(self, name: str) -> None:
        """A name that is bound anew no longer stands for an argument."""
        self.tensors.discard(name)
        self.names.pop(name, None)

    def bind(self, target: ast.expr, meaning: Meaning | None) -> None:
        if isinstance(target, ast.Name):
            self.forget(target.id)
            self.names[target.id] = meaning
        elif isinstance(target, ast.Tuple | ast.List):
            for place, part in enumerate(target.elts):
                self.bind(part, _part(meaning, place))

    def specializes(self, node: ast.Call) -> bool:
        function: ast.expr = node.func
        if not (isinstance(function, ast.Attribute) and function.attr == "specialize"):
            return isinstance(function, ast.Name) and function.id in self.helion
        while isinstance(function, ast.Attribute):
            function = function.value
        return isinstance(function, ast.Name) and function.id in self.helion

    def fix(self, meaning: Meaning | None) -> None:
        if isinstance(meaning, tuple):
            for part in meaning:
                self.fix(part)
        elif meaning is not None:
            self.fixed.add(meaning)

    def meaning(self, node: ast.expr) -> Meaning | None:
        """Return what an expression stands for, or None for anything else."""
        match node:
            case ast.Name(id=name):
                return self.names.get(name)
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                return tuple(self.meaning(part) for part in parts)
            case ast.Call() if self.specializes(node) and len(node.args) == 1:
                return self.meaning(node.args[0])
            case ast.Attribute(value=ast.Name(id=name), attr="shape") if name in self.tensors:
                return Sizes(arg=name)
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=name), attr="size"), args=args, keywords=[]
            ) if name in self.tensors:
                return _taken(Sizes(arg=name), args[0]) if args else Sizes(arg=name)
            case ast.Subscript(value=value, slice=index):
                return _taken(self.meaning(value), index)
        return None


def _taken(meaning: Meaning | None, index: ast.expr) -> Meaning | None:
    """Return what an index or a slice takes out of a shape."""
    if isinstance(index, ast.Slice):
        start, stop = _whole(index.lower), _whole(index.upper)
        known = (start is not None or index.lower is None) and (
            stop is not None or index.upper is None
        )
        whole = isinstance(meaning, Sizes) and (meaning.start, meaning.stop) == (None, None)
        if not known or index.step is not None or not whole or meaning.one:  # type: ignore[union-attr]
            return None
        return Sizes(arg=meaning.arg, start=start, stop=stop)  # type: ignore[union-attr]
    place = _whole(index)
    return None if place is None else _part(meaning, place)


def _whole(node: ast.expr | None) -> int | None:
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(number))):
            return -number
    return None


def _part(meaning: Meaning | None, place: int) -> Meaning | None:
    if isinstance(meaning, tuple):
        return meaning[place] if -len(meaning) <= place < len(meaning) else None
    if isinstance(meaning, Sizes) and not meaning.one and meaning.start is meaning.stop is None:
        return Sizes(arg=meaning.arg, start=place, one=True)
    return None


def _stored(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            yield part.id


def selected(sizes: Sizes, count: int, spread: int | None) -> Iterable[int]:
    """Return which of the `count` sizes that [args] gives of a tensor are meant.

    Where the one at `spread` stands for any number of sizes, only what counts from its own side
    of it is sure.
    """
    after = 0 if spread is None else count - spread - 1
    if sizes.one:
        assert sizes.start is not None
        place = sizes.start
        sure = spread is None or 0 <= place < spread or -after <= place < 0
        return [place % count] if sure and -count <= place < count else []
    if spread is not None:
        start, stop = sizes.start, sizes.stop
        if not (start is None or 0 <= start <= spread) or not (stop is None or -after <= stop < 0):
            return []
    return range(count)[sizes.start : sizes.stop]
