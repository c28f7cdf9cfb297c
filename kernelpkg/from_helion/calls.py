"""Calls in a function that is read: what functions of Helion and PyTorch give."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import define, evolve

from kernelpkg.from_helion.arrays import Arrays
from kernelpkg.from_helion.values import Array, Reading, Shape, Size, Value, integer, symbol_of

_SAME: Final = frozenset({
    "float", "half", "bfloat16", "double", "int", "long", "bool", "clone", "type", "abs", "exp",
    "exp2", "log", "log2", "log1p", "sqrt", "rsqrt", "sigmoid", "tanh", "relu", "silu", "gelu",
    "erf", "sin", "cos", "neg", "square", "reciprocal", "round", "floor", "ceil", "softmax",
    "log_softmax", "softplus", "cumsum", "cumprod", "clamp", "clamp_min", "clamp_max", "pow",
    "maximum", "minimum", "where", "add", "sub", "mul", "div", "fmod", "masked_fill", "sign",
    "isnan", "nan_to_num", "logaddexp",
})  # fmt: skip
"""Functions and methods whose result has the sizes of their tensors, one repeated along another."""

_REDUCE: Final = frozenset({
    "sum", "mean", "amax", "amin", "max", "min", "prod", "var", "std", "argmax", "argmin", "any",
    "all", "logsumexp", "norm",
})  # fmt: skip

_PRODUCTS: Final = {"addmm": 1, "baddbmm": 1, "mm": 0, "bmm": 0, "matmul": 0, "dot": 0}
"""Products of matrices, and where their first matrix stands."""

_VIEWS: Final = frozenset(
    {"view", "reshape", "flatten", "unsqueeze", "squeeze", "expand", "transpose", "permute", "t"}
)

_LISTS: Final = (ast.List, ast.Tuple)


@define
class KnownCalls:
    """What calls give whose arguments were read; what they say goes to `found`."""

    found: Reading
    arrays: Arrays

    def of_helion(
        self, node: ast.Call, name: str, args: Sequence[Value], named: Mapping[Any, Value]
    ) -> Value:
        """Return what a function of Helion gives; of most nothing is known."""
        first = args[0] if args else None
        second = args[1] if len(args) > 1 else named.get("index")
        if name == "specialize":
            self.arrays.specialize(first)
            return first
        if name in ("load", "store") or name.startswith("atomic_"):
            return self.memory(node, name, first, second, args[2:])
        if name in ("zeros", "full"):
            return self.arrays.new(first)
        if name == "arange" and len(args) == 1:
            return Array(sizes=(symbol_of(first),))
        if name in _PRODUCTS:
            return self.arrays.product(first, second)
        if name in ("associative_scan", *_SAME):
            return next((evolve(a, plain=False) for a in args if isinstance(a, Array)), None)
        return None

    def memory(
        self, node: ast.Call, name: str, array: Value, indices: Value, rest: Sequence[Value]
    ) -> Value:
        """Return what is loaded, stored, or was there before an atomic operation."""
        if name != "load":
            self.arrays.writes(node, array)
        if not isinstance(array, Array):
            return None
        places = indices if isinstance(indices, tuple) else (None,)
        taken = self.arrays.load(array, places, stored=name == "store")
        return self.arrays.repeated([taken, *rest[:1]]) if name == "store" else taken

    def of_torch(self, node: ast.Call, name: str, args: Sequence[Value]) -> Value:
        """Return what a function of PyTorch gives."""
        arrays = [arg for arg in args if isinstance(arg, Array)]
        place = _PRODUCTS.get(name, len(args))
        if place + 1 < len(args):
            made = self.arrays.product(args[place], args[place + 1])
            return self.arrays.repeated([args[0], made]) if place else made
        if name in ("empty", "zeros", "ones", "full"):
            return self.arrays.new(_sizes(args))
        if name == "where" and args and isinstance(args[0], Array) and args[0].plain:
            self.found.flags.update(dict.fromkeys(args[0].loaded))
        if name.endswith("_like") and arrays:
            return Array(sizes=arrays[0].sizes, like=arrays[0].like)
        if name == "broadcast_tensors":
            for one, other in itertools.pairwise(arrays):
                self.arrays.join(one, other)
            return tuple(arrays)
        if name in _SAME and arrays:
            return self.arrays.repeated(arrays)
        if arrays and (name in _REDUCE or name in _VIEWS):
            return self.method(node, arrays[0], name, args[1:], node.args[1:])
        return Array() if arrays else None

    def method(
        self,
        node: ast.Call,
        array: Array,
        name: str,
        args: Sequence[Value],
        nodes: Sequence[ast.expr],
    ) -> Value:
        """Return what a method of a tensor gives, whose arguments are `nodes`."""
        if name == "size":
            return self.arrays.size(array, integer(nodes[0])) if nodes else Shape(array)
        if name == "numel" and array.argument:
            return Size(f"{array.argument}.numel")
        if name.endswith("_") and not name.endswith("__"):
            self.arrays.writes(node, array)
            return array
        if name in _REDUCE:
            return self.arrays.reduced(node, array)
        if name in ("view", "reshape"):
            inner = nodes[0].elts if nodes and isinstance(nodes[0], _LISTS) else nodes
            lead = bool(inner) and integer(inner[0]) == -1
            return self.arrays.reshaped(array, _sizes(args), lead=lead)
        if name in _VIEWS:
            return self.arrays.view(array, name, nodes)
        if name in ("matmul", "mm", "bmm"):
            return self.arrays.product(array, args[0] if args else None)
        if name.startswith("new_"):
            return self.arrays.new(_sizes(args))
        if name in ("to", "contiguous"):
            return Array(sizes=array.sizes, loaded=array.loaded, plain=array.plain)
        if name in _SAME:
            return self.arrays.repeated([array, *args])
        return Array(loaded=array.loaded)


def _sizes(args: Sequence[Value]) -> Value:
    """Return the sizes that a call is given, as one argument or as several."""
    return args[0] if args and isinstance(args[0], tuple | Shape) else tuple(args)
