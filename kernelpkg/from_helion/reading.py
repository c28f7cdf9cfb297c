"""What a Helion function does with its arguments, as far as its text says: read, never run.

Each statement is looked at once, in order. A value is what is known of it: a size, a tile, a tensor
with its sizes and with the arguments that it is a view of or was loaded from; None is unknown.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import define, evolve

from kernelpkg.expr.language import DTYPES, SIGNS
from kernelpkg.from_helion.arrays import Arrays
from kernelpkg.from_helion.calls import KnownCalls
from kernelpkg.from_helion.source import SourceModule
from kernelpkg.from_helion.values import (
    Array,
    DType,
    Edge,
    Reading,
    Shape,
    Size,
    Tile,
    Value,
    integer,
    symbol_of,
)

_DEEP: Final = 4
_MOST: Final = 100
"""How many helper functions are followed inside one another, and in all."""

_ROUNDS: Final = 4
"""How often a function is read: numbers of dimensions that are told late serve the next time, and
those that are guessed the last."""

_HARMLESS: Final = (
    "math", "len", "int", "float", "range", "min", "max", "str", "isinstance", "tuple", "list",
)  # fmt: skip
"""What writes no argument that it is given, but for functions of Helion, PyTorch and the file."""

_BITS: Final = (ast.BitAnd, ast.BitOr, ast.BitXor, ast.LShift, ast.RShift)


def read_function(
    module: SourceModule, function: ast.FunctionDef, tensors: Sequence[str], numbers: Sequence[str]
) -> Reading:
    """Read a function whose arguments are tensors and whole numbers of these names."""
    found = Reading()
    for last in (False,) * (_ROUNDS - 1) + (True,):
        if last:
            found.guess()
        found = found.restart()
        arrays = Arrays(found)
        reader = _Reader(module, found, arrays, KnownCalls(found, arrays))
        values: dict[str, Value] = {name: arrays.argument(name) for name in tensors}
        values |= {name: Size(name) for name in numbers}
        for name in numbers:
            found.sizes.call(name, name)
        reader.block(function.body, values)
    return found


@define
class _Reader:
    """Reads statements; `values` of their names are handed along."""

    module: SourceModule
    found: Reading
    arrays: Arrays
    calls: KnownCalls
    depth: int = 0
    followed: int = 0

    def block(self, body: Sequence[ast.stmt], values: dict[str, Value]) -> Value:
        """Read statements in order; return what they return."""
        returned: Value = None
        for node in body:
            result = self.statement(node, values)
            returned = result if result is not None else returned
        return returned

    def statement(self, node: ast.stmt, values: dict[str, Value]) -> Value:
        """Read a statement; return what it returns."""
        match node:
            case ast.Assign(targets=targets, value=value):
                given = self.of(value, values)
                for target in targets:
                    self.assign(target, given, values)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self.assign(target, self.of(value, values), values)
            case ast.AugAssign(target=target, op=op, value=value):
                self.augment(node, target, op, value, values)
            case ast.For(target=target, iter=loop, body=body, orelse=orelse):
                self.bind(target, self.tiles(loop, values), values)
                self.arrays.loops += 1
                self.block(body, values)
                self.arrays.loops -= 1
                return self.block(orelse, values)
            case ast.While(body=body) | ast.With(body=body):
                return self.block(body, values)
            case ast.If(test=test, body=body, orelse=orelse):
                self.of(test, values)
                if orelse == [] and isinstance(body[-1], ast.Raise):
                    self.denied(test, values)
                    return None
                one, other = self.block(body, values), self.block(orelse, values)
                return one if one is not None else other
            case ast.Assert(test=test):
                self.claim(test, values)
            case ast.Return(value=ast.expr() as value):
                return self.result(value, values)
            case ast.Expr(value=value):
                self.of(value, values)
        return None

    def result(self, node: ast.expr, values: dict[str, Value]) -> Value:
        """Return what is returned; of the function itself it is noted."""
        given = self.of(node, values)
        if self.depth == 0:
            parts = given if isinstance(given, tuple) else (given,)
            self.found.results = len(parts)
            for part in parts:
                for name in part.views if isinstance(part, Array) else ():
                    self.found.returned.setdefault(name, node)
        return given if given is not None else Array()

    def assign(self, target: ast.expr, given: Value, values: dict[str, Value]) -> None:
        """Bind names, or store into a tensor."""
        match target:
            case ast.Name(id=name):
                values[name] = given
                if isinstance(given, Size) and self.depth == 0:
                    self.found.sizes.call(given.symbol, name)
            case ast.Tuple(elts=elts) | ast.List(elts=elts):
                self.bind(target, self.spread(given, len(elts)), values)
            case ast.Subscript(value=value):
                stored = self.of(value, values)
                self.arrays.repeated([self.item(target, stored, values), given])
                self.arrays.writes(target, stored)

    def bind(self, target: ast.expr, given: Value, values: dict[str, Value]) -> None:
        """Bind a target, or each of several to its part."""
        if isinstance(target, ast.Tuple | ast.List):
            parts = given if isinstance(given, tuple) else ()
            for place, inner in enumerate(target.elts):
                self.assign(inner, parts[place] if place < len(parts) else None, values)
        else:
            self.assign(target, given, values)

    def spread(self, given: Value, count: int) -> Value:
        """Return the parts of what is unpacked; a shape says how many dimensions there are."""
        if isinstance(given, Shape):
            array = self.arrays.rank(given.array, count)
            sizes = array.sizes or ()
            return tuple(None if size is None else Size(size) for size in sizes)
        return given

    def augment(
        self,
        node: ast.AugAssign,
        target: ast.expr,
        op: ast.operator,
        value: ast.expr,
        values: dict[str, Value],
    ) -> None:
        """Read `x += y`, which writes a tensor."""
        before = self.of(target, values)
        after = self.binary(op, before, self.of(value, values))
        if isinstance(target, ast.Subscript):
            array = self.of(target.value, values)
            self.arrays.writes(node, array)
            self.found.read.update(dict.fromkeys(array.views if isinstance(array, Array) else ()))
        elif isinstance(before, Array):
            self.arrays.writes(node, before)
        else:
            self.assign(target, after, values)

    def tiles(self, loop: ast.expr, values: dict[str, Value]) -> Value:
        """Return what a loop binds in each round."""
        given = self.of(loop, values)
        if not isinstance(loop, ast.Call):
            return None
        name = self.module.dotted(loop.func)
        if not name.startswith("helion.") or not loop.args:
            return None
        args = [self.of(arg, values) for arg in loop.args]
        if len(args) > 1 and isinstance(args[0], Edge) and args[0] == args[1]:
            return Tile(args[0].symbol)
        for arg in args:
            for loaded in arg.loaded if isinstance(arg, Array) else ():
                self.found.bounds[loaded] = None
        if len(args) > 1 and self.found.sizes.value(symbol_of(args[0])) != 0:
            return Tile(None)
        over = args[-1] if len(args) > 1 else args[0]
        single = name.endswith("grid")
        if isinstance(over, Shape):
            return self.whole(over.array, single=single)
        if isinstance(over, tuple):
            return tuple(self.tile(part, single=single) for part in over)
        return self.tile(over, single=single) if given is None else given

    def whole(self, array: Array, *, single: bool) -> Value:
        """Return the tiles of `hl.tile(x.shape)`."""
        if array.sizes is None:
            self.found.tiles += [f"{array.like}.numel"] if array.like else []
            return Tile(None, single=single, whole=array)
        return tuple(self.tile(Size(size) if size else None, single=single) for size in array.sizes)

    def tile(self, over: Value, *, single: bool) -> Value:
        """Return a tile over a size, which is noted."""
        symbol = symbol_of(over)
        if symbol is not None:
            self.found.tiles.append(symbol)
        return Tile(symbol, single=single)

    def claim(self, test: ast.expr, values: dict[str, Value]) -> None:
        """Take what is asserted as true."""
        match test:
            case ast.BoolOp(op=ast.And(), values=parts):
                for part in parts:
                    self.claim(part, values)
            case ast.Compare(left=left, ops=ops, comparators=rights):
                for op, right in zip(ops, rights, strict=True):
                    self.compared(test, left, op, right, values)
                    left = right
            case _:
                self.of(test, values)

    def denied(self, test: ast.expr, values: dict[str, Value]) -> None:
        """Take what is refused as false."""
        match test:
            case ast.BoolOp(op=ast.Or(), values=parts):
                for part in parts:
                    self.denied(part, values)
            case ast.Compare(left=left, ops=[ast.NotEq()], comparators=[right]):
                self.compared(test, left, ast.Eq(), right, values)
            case ast.UnaryOp(op=ast.Not(), operand=inner):
                self.claim(inner, values)

    def compared(
        self,
        node: ast.AST,
        left: ast.expr,
        op: ast.cmpop,
        right: ast.expr,
        values: dict[str, Value],
    ) -> None:
        """Take a comparison as true: of dtypes, numbers of dimensions, shapes or sizes."""
        one, other = self.of(left, values), self.of(right, values)
        equal = isinstance(op, ast.Eq)
        for side, node_of_other in ((one, right), (other, left)):
            name = self.module.dotted(node_of_other).removeprefix("torch.")
            if equal and isinstance(side, DType) and name in DTYPES:
                self.found.dtypes.setdefault(side.name, name)
        if equal and self.dimensions(left, other, values):
            return
        if equal and isinstance(one, Shape) and isinstance(other, Shape):
            self.arrays.join(one.array, other.array)
        left_symbol, right_symbol = symbol_of(one), symbol_of(other)
        if left_symbol is None or right_symbol is None:
            return
        computed = {left_symbol, right_symbol} & self.found.sizes.made.keys()
        if equal and not any("%" in symbol for symbol in computed):
            self.found.sizes.join(left_symbol, right_symbol)
        elif type(op) in SIGNS:
            self.found.guards.append((node, SIGNS[type(op)], left_symbol, right_symbol))

    def dimensions(self, node: ast.expr, other: Value, values: dict[str, Value]) -> bool:
        """Take `x.ndim == 2` as said."""
        match node:
            case ast.Attribute(value=value, attr="ndim"):
                pass
            case ast.Call(func=ast.Attribute(value=value, attr="dim"), args=[]):
                pass
            case _:
                return False
        array, count = self.of(value, values), self.found.sizes.value(symbol_of(other))
        if isinstance(array, Array) and count is not None:
            self.arrays.rank(array, count)
        return True

    def of(self, node: ast.expr, values: dict[str, Value]) -> Value:
        """Return what is known of an expression."""
        match node:
            case ast.Constant(value=int(value)) if type(value) is int and value >= 0:
                return Size(self.found.sizes.number(value))
            case ast.Name(id=name):
                if name not in values and type(self.module.constants.get(name)) is int:
                    return Size(self.found.sizes.number(self.module.constants[name]))
                return values.get(name)
            case ast.Tuple(elts=elts) | ast.List(elts=elts):
                items = tuple(self.of(item, values) for item in elts)
                return None if any(isinstance(item, ast.Starred) for item in elts) else items
            case ast.BinOp(left=left, op=op, right=right):
                return self.binary(op, self.of(left, values), self.of(right, values))
            case ast.UnaryOp(operand=operand):
                given = self.of(operand, values)
                return evolve(given, plain=False) if isinstance(given, Array) else None
            case ast.Compare(left=left, comparators=rights):
                given = [self.of(side, values) for side in (left, *rights)]
                return self.arrays.repeated(given)
            case ast.IfExp(body=body, orelse=orelse):
                one, other = self.of(body, values), self.of(orelse, values)
                return one if one is not None else other
            case ast.Subscript(value=value):
                return self.item(node, self.of(value, values), values)
            case ast.Attribute(value=value, attr=attr):
                return self.attribute(self.of(value, values), attr)
            case ast.Call():
                return self.call(node, values)
        return None

    def attribute(self, given: Value, attr: str) -> Value:
        """Return an attribute of a tile or a tensor."""
        if isinstance(given, Tile):
            if attr in ("begin", "end"):
                return Edge(given.symbol)
            return Array(sizes=(given.symbol,)) if attr == "index" else None
        if not isinstance(given, Array):
            return None
        if attr == "shape":
            return Shape(given)
        if attr == "dtype" and given.argument:
            return DType(given.argument)
        if attr in ("T", "mT"):
            return self.arrays.moved(given, -1, -2)
        return None

    def binary(self, op: ast.operator, one: Value, other: Value) -> Value:
        """Return what an operator makes of two values."""
        left, right = symbol_of(one), symbol_of(other)
        if left is not None and right is not None:
            sign = SIGNS.get(type(op))
            return None if sign is None else Size(self.found.sizes.combine(sign, left, right))
        if isinstance(op, _BITS):
            for side in (one, other):
                for name in side.loaded if isinstance(side, Array) and side.plain else ():
                    self.found.bits[name] = None
        if isinstance(op, ast.MatMult):
            return self.arrays.product(one, other)
        if isinstance(one, tuple) and isinstance(other, tuple):
            return (*one, *other)
        return self.arrays.repeated([one, other])

    def item(self, node: ast.Subscript, given: Value, values: dict[str, Value]) -> Value:
        """Return what an index takes out of a shape, a tuple or a tensor."""
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if isinstance(given, Shape):
            return self.arrays.size(given.array, integer(parts[0]))
        if isinstance(given, tuple):
            place = integer(parts[0])
            return given[place] if place is not None and -len(given) <= place < len(given) else None
        if not isinstance(given, Array):
            for part in parts:
                self.of(part, values)
            return None
        indices = [self.index(part, values) for part in parts]
        return self.arrays.load(given, indices, stored=isinstance(node.ctx, ast.Store))

    def index(self, node: ast.expr, values: dict[str, Value]) -> Value:
        """Return what stands at one place of an index; a slice as text, as `None` and `...`."""
        match node:
            case ast.Slice(lower=None, upper=None, step=None):
                return ":"
            case ast.Slice(lower=lower, upper=upper):
                for bound in (lower, upper):
                    if bound is not None:
                        self.of(bound, values)
                return "part"
            case ast.Constant(value=None):
                return "new"
            case ast.Constant(value=value) if value is Ellipsis:
                return "..."
        return self.of(node, values)

    def call(self, node: ast.Call, values: dict[str, Value]) -> Value:
        args = [self.of(arg, values) for arg in node.args]
        named = {word.arg: self.of(word.value, values) for word in node.keywords}
        if isinstance(node.func, ast.Attribute):
            owner = self.of(node.func.value, values)
            if isinstance(owner, Array):
                return self.calls.method(node, owner, node.func.attr, args, node.args)
        name = self.module.dotted(node.func)
        short = name.rpartition(".")[2]
        self.arrays.writes(node, named.get("out"))
        if name in self.module.functions:
            return self.helper(self.module.functions[name], args, named)
        if name.startswith("helion."):
            return self.calls.of_helion(node, short, args, named)
        if name.split(".")[0] == "torch":
            return self.calls.of_torch(node, short, args)
        for array in () if name.split(".")[0] in _HARMLESS else (*args, *named.values()):
            for view in array.views if isinstance(array, Array) else ():
                self.found.asked.setdefault(view, node)
        return None

    def helper(
        self, function: ast.FunctionDef, args: Sequence[Value], named: Mapping[Any, Value]
    ) -> Value:
        """Read a function of the same file with what it is given."""
        if self.depth >= _DEEP or self.followed >= _MOST:
            return None
        self.followed += 1
        names = [arg.arg for arg in (*function.args.posonlyargs, *function.args.args)]
        values = {**dict(zip(names, args, strict=False)), **{str(k): v for k, v in named.items()}}
        self.depth += 1
        result = self.block(function.body, values)
        self.depth -= 1
        return result
