"""What is known of the values in a function that is read, and what was found."""

from __future__ import annotations

import ast
from typing import Any

from attrs import define, field, frozen

from kernelpkg.from_helion.sizes import Sizes


@frozen
class Size:
    """A whole number that is a size, by its symbol."""

    symbol: str


@frozen
class Tile:
    """A tile over a size, or None over a part of one; of `hl.tile(x.shape)` the whole tensor.

    A `single` one is a number, as `hl.grid` gives.
    """

    symbol: str | None
    single: bool = False
    whole: Array | None = None


@frozen
class Edge:
    """Where a tile over a size begins or ends."""

    symbol: str | None


@frozen
class Array:
    """A tensor: its sizes if their number is known, what it is a view of and was loaded from."""

    sizes: tuple[str | None, ...] | None = None
    views: frozenset[str] = frozenset()
    loaded: frozenset[str] = frozenset()
    plain: bool = False
    """Whether its values are those of what it is of, and nothing was computed of them."""
    argument: str = ""
    """The argument that it is, whole and not a view of."""
    like: str = ""
    """The argument whose sizes it has."""


@frozen
class Shape:
    """The sizes of a tensor as a whole."""

    array: Array


@frozen
class DType:
    """The dtype of an argument."""

    name: str


Value = Any
"""One of these, a tuple of values, or None."""


@define
class Reading:
    """What was found; symbols as in `Sizes`, names are those of arguments."""

    sizes: Sizes = field(factory=Sizes)
    ranks: dict[str, int] = field(factory=dict)
    """How many dimensions arguments have, where it is told."""
    fronts: dict[str, int] = field(factory=dict)
    ends: dict[str, int] = field(factory=dict)
    """Of how many dimensions at least sizes are asked, from the front and from the end."""
    guessed: dict[str, int] = field(factory=dict)
    """The numbers of dimensions that were guessed of that."""
    written: dict[str, ast.AST] = field(factory=dict)
    read: dict[str, None] = field(factory=dict)
    asked: dict[str, ast.AST] = field(factory=dict)
    """Arguments that are handed to what is not known, and may be written there."""
    returned: dict[str, ast.AST] = field(factory=dict)
    """Arguments that are returned, whole or as a view."""
    results: int | None = None
    specialized: dict[str, None] = field(factory=dict)
    tiles: list[str] = field(factory=list)
    """What is tiled, in order."""
    indices: dict[str, str | None] = field(factory=dict)
    """Arguments whose values are indices, and the size that they lie below, if it is told."""
    bounds: dict[str, None] = field(factory=dict)
    """Arguments whose values are where tiles begin and end."""
    bits: dict[str, None] = field(factory=dict)
    flags: dict[str, None] = field(factory=dict)
    dtypes: dict[str, str] = field(factory=dict)
    guards: list[tuple[ast.AST, str, str, str]] = field(factory=list)
    """What is asserted of two sizes: where, the comparison, and both."""

    def restart(self) -> Reading:
        """Return one that knows what is told late and serves early, and nothing else."""
        return Reading(ranks=self.ranks, bounds=self.bounds, guessed=self.guessed)

    def guess(self) -> None:
        """Take arguments for having as many dimensions as sizes are asked of, from the front."""
        for name in self.fronts.keys() - self.ranks.keys():
            self.guessed[name] = self.fronts[name] + self.ends.get(name, 0)
            self.ranks[name] = self.guessed[name]


def symbol_of(value: Value) -> str | None:
    """Return the symbol of a size."""
    return value.symbol if isinstance(value, Size) else None


def integer(node: ast.expr) -> int | None:
    """Return a whole number that is written, or None."""
    match node:
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(value))):
            return -value
    return None
