"""Tensors in a function that is read: which sizes they have, and what these say of arguments."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from attrs import define, evolve

from kernelpkg.from_helion.sizes import ONE
from kernelpkg.from_helion.values import (
    Array,
    Reading,
    Shape,
    Size,
    Tile,
    Value,
    integer,
    symbol_of,
)


@define
class Arrays:
    """What is done to tensors; what that says goes to `found`."""

    found: Reading
    loops: int = 0
    """How many loops are around what is read."""

    def argument(self, name: str) -> Array:
        """Return an argument, with its sizes where their number is known."""
        rank = self.found.ranks.get(name)
        sizes = None if rank is None else tuple(f"{name}.{place}" for place in range(rank))
        return Array(sizes=sizes, views=frozenset({name}), plain=True, argument=name, like=name)

    def rank(self, array: Array, rank: int) -> Array:
        """Say how many dimensions a tensor has; return it with them."""
        if array.sizes is not None or not array.like:
            return array
        fits = self.found.ranks.setdefault(array.like, rank) == rank
        return evolve(array, sizes=self.argument(array.like).sizes) if fits else array

    def writes(self, node: ast.AST, array: Value) -> None:
        """Say that a tensor is written, and with it the arguments that it is a view of."""
        for name in array.views if isinstance(array, Array) else ():
            self.found.written.setdefault(name, node)

    def specialize(self, given: Value) -> None:
        """Say that sizes are made constants of the code."""
        match given:
            case Size(symbol=symbol):
                self.found.specialized[symbol] = None
            case Shape(array=array):
                for size in array.sizes or ():
                    self.specialize(None if size is None else Size(size))
            case tuple():
                for part in given:
                    self.specialize(part)

    def join(self, one: Array, other: Array) -> None:
        """Say that two tensors have equal sizes."""
        if one.sizes is None and other.sizes is not None:
            one, other = other, one
        if one.sizes is not None:
            other = self.rank(other, len(one.sizes))
            for left, right in zip(one.sizes, other.sizes or (), strict=False):
                self.found.sizes.join(left, right)
        elif one.like and other.like:
            self.found.sizes.join(f"{one.like}.numel", f"{other.like}.numel")

    def repeated(self, given: Sequence[Value]) -> Value:
        """Return the tensor that elementwise work on others gives; their sizes are equal, or 1."""
        arrays = [value for value in given if isinstance(value, Array)]
        if not arrays:
            return None
        loaded = frozenset[str]().union(*(array.loaded for array in arrays))
        if any(array.sizes is None for array in arrays):
            return Array(loaded=loaded)
        length = max(len(array.sizes or ()) for array in arrays)
        sizes: list[str | None] = [ONE] * length
        for array in arrays:
            for place, size in enumerate(reversed(array.sizes or ()), 1):
                self.found.sizes.join(sizes[-place], size)
                known = sizes[-place]
                sizes[-place] = size if known == ONE else known if size == ONE else known or size
        return Array(sizes=tuple(sizes), loaded=loaded)

    def product(self, one: Value, other: Value) -> Value:
        """Return the product of two matrices, or of two rows of them."""
        if not (isinstance(one, Array) and isinstance(other, Array)):
            return Array()
        left, right = one.sizes, other.sizes
        if left is None or right is None or min(len(left), len(right)) < 2:
            return Array(loaded=one.loaded | other.loaded)
        self.found.sizes.join(left[-1], right[-2])
        for batch, match in zip(left[:-2], right[:-2], strict=False):
            self.found.sizes.join(batch, match)
        return Array(sizes=(*left[:-1], right[-1]), loaded=one.loaded | other.loaded)

    def load(self, array: Array, indices: Sequence[Value], *, stored: bool = False) -> Array:
        """Return what an index takes out of a tensor, or where it is `stored` to."""
        if not stored:
            self.found.read.update(dict.fromkeys(array.views))
        loaded = array.loaded | (array.views if self.loops else frozenset())
        plain = array.plain
        places = [index for index in indices if index != "new"]
        whole = next((i.whole for i in places if isinstance(i, Tile) and i.whole), None)
        if whole is not None:
            self.join(whole, array)
            return Array(loaded=loaded, plain=plain)
        for index in places:
            for name in index.loaded if isinstance(index, Array) else ():
                self.found.indices.setdefault(name, None)
        if "..." in places:
            return Array(loaded=loaded, plain=plain)
        if (self.loops or len(places) > 1) and not any(isinstance(i, tuple) for i in places):
            array = self.rank(array, len(places))
        return Array(
            sizes=self.taken(array, indices) if array.sizes is not None else None,
            views=frozenset() if self.loops else array.views,
            loaded=loaded,
            plain=plain,
        )

    def taken(self, array: Array, indices: Sequence[Value]) -> tuple[str | None, ...] | None:
        """Return the sizes of what an index takes out of a tensor of known sizes."""
        sizes: list[str | None] = []
        rest = [*(array.sizes or ())]
        for index in indices:
            if index == "new":
                sizes.append(ONE)
                continue
            if not rest:
                return None
            size = rest.pop(0)
            match index:
                case ":":
                    sizes.append(size)
                case "part":
                    sizes.append(None)
                case Tile(symbol=symbol, single=single):
                    if array.argument not in self.found.bounds:  # offsets have one more
                        self.found.sizes.join(size, symbol)
                    sizes += [] if single else [size if symbol is not None else None]
                case Array(sizes=inner, loaded=names, plain=True) if names:
                    for name in names:
                        self.found.indices[name] = size
                    sizes += inner if inner is not None else [None]
                case Array(sizes=inner):
                    if inner is not None and len(inner) == 1 and not index.loaded:
                        self.found.sizes.join(size, inner[0])
                    sizes += inner if inner is not None else [None]
                case Size():
                    pass
                case _:
                    return None
        return (*sizes, *rest)

    def size(self, array: Array, place: int | None) -> Value:
        """Return the size of a tensor at a place, which counts from behind where it is negative."""
        if place is None:
            return None
        if array.sizes is not None:
            fine = -len(array.sizes) <= place < len(array.sizes)
            symbol = array.sizes[place] if fine else None
            return None if symbol is None else Size(symbol)
        name = array.argument
        if not name:
            return None
        asked = self.found.fronts if place >= 0 else self.found.ends
        asked[name] = max(asked.get(name, 0), place + 1 if place >= 0 else -place)
        return Size(f"{name}.{place}")

    def new(self, shape: Value) -> Array:
        """Return a new tensor of sizes that are given, or of another's."""
        if isinstance(shape, Shape):
            return Array(sizes=shape.array.sizes, like=shape.array.like)
        if not isinstance(shape, tuple):
            return Array()
        return Array(sizes=tuple(p.symbol if isinstance(p, Size | Tile) else None for p in shape))

    def moved(self, array: Array, one: int, other: int) -> Array:
        """Return a tensor two of whose dimensions have changed places."""
        sizes = None if array.sizes is None else [*array.sizes]
        if sizes is not None:
            try:
                sizes[one], sizes[other] = sizes[other], sizes[one]
            except IndexError:
                sizes = None
        return evolve(array, sizes=None if sizes is None else tuple(sizes), argument="", like="")

    def reduced(self, node: ast.Call, array: Array) -> Array:
        """Return a tensor without the dimension that a call reduces."""
        word = {keyword.arg: keyword.value for keyword in node.keywords}
        given = word.get("dim") or next(
            (arg for arg in node.args if integer(arg) is not None), None
        )
        place = None if given is None else integer(given)
        if array.sizes is None or (given is not None and place is None):
            return Array(loaded=array.loaded)
        if place is None or not -len(array.sizes) <= place < len(array.sizes):
            return Array(sizes=() if given is None else None, loaded=array.loaded)
        sizes = [*array.sizes]
        kept = word.get("keepdim")
        if isinstance(kept, ast.Constant) and kept.value is True:
            sizes[place] = ONE
        else:
            del sizes[place]
        return Array(sizes=tuple(sizes), loaded=array.loaded)

    def view(self, array: Array, name: str, nodes: Sequence[ast.expr]) -> Array:
        """Return a view of a tensor, by the method that makes it and its arguments."""
        sizes, places = array.sizes, [integer(arg) for arg in nodes]
        if sizes is None or None in places:
            return evolve(array, sizes=None, argument="", like="")
        new: tuple[str | None, ...] | None = None
        match name, places:
            case ("t", []):
                return self.moved(array, -1, -2)
            case ("transpose", [int(one), int(other)]):
                return self.moved(array, one, other)
            case ("unsqueeze", [int(place)]):
                at = place if place >= 0 else len(sizes) + 1 + place
                new = (*sizes[:at], ONE, *sizes[at:])
            case ("squeeze", [int(place)]) if sizes:
                at = place % len(sizes)
                new = (*sizes[:at], *sizes[at + 1 :])
            case ("flatten", []):
                new = (None,)
            case ("permute", _) if len(places) == len(sizes):
                new = tuple(sizes[place or 0] for place in places)
        return evolve(array, sizes=new, argument="", like="")

    def reshaped(self, array: Array, parts: Value, *, lead: bool) -> Array:
        """Return a tensor of other sizes; `lead` says that -1 is the first, for all before."""
        if isinstance(parts, Shape):
            return evolve(array, sizes=parts.array.sizes, argument="", like="")
        sizes = [symbol_of(part) for part in parts]
        if lead and array.sizes is None and array.argument:
            ends = [f"{array.argument}.{place - len(sizes)}" for place in range(1, len(sizes))]
            root = self.found.sizes.root
            if ends and all(
                size is not None and root(size) == root(end)
                for size, end in zip(sizes[1:], ends, strict=True)
            ):
                sizes[0] = f"{array.argument}.lead{len(ends)}"
        return evolve(array, sizes=tuple(sizes), argument="", like="")
