"""Which sizes of the arguments of a function are equal, and what they are called."""

from __future__ import annotations

from attrs import define, field

ONE = "1"
"""The size along which a tensor is repeated."""


@define
class Sizes:
    """Sizes by their symbols: that of `x.shape[0]` is `x.0`; symbols of one size are joined.

    A size may be a number, or made of others by an operator; some have names in the source.
    """

    parents: dict[str, str] = field(factory=dict)
    numbers: dict[str, int] = field(factory=dict)
    made: dict[str, tuple[str, str, str]] = field(factory=dict)
    names: dict[str, dict[str, None]] = field(factory=dict)
    _called: dict[str, None] = field(factory=dict)

    def root(self, symbol: str) -> str:
        """Return the symbol that stands for all that are the same size."""
        while symbol in self.parents:
            symbol = self.parents[symbol]
        return symbol

    def number(self, value: int) -> str:
        """Return the symbol of a number."""
        self.numbers[str(value)] = value
        return str(value)

    def value(self, symbol: str | None) -> int | None:
        """Return the number that a size is, if it is known."""
        return None if symbol is None else self.numbers.get(self.root(symbol))

    def combine(self, operator: str, left: str, right: str) -> str:
        """Return the symbol of what an operator makes of two sizes."""
        one, other = self.value(left), self.value(right)
        if one is not None and other is not None:
            known = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
            if operator in known:
                return self.number(known[operator](one, other))
        symbol = f"({left} {operator} {right})"
        self.made[symbol] = (operator, left, right)
        return symbol

    def join(self, one: str | None, other: str | None) -> None:
        """Say that two sizes are equal; of what is not known nothing is said."""
        if one is None or other is None or ONE in (one, other):
            return
        kept, gone = self.root(one), self.root(other)
        if kept == gone or kept in self.parts(gone) or gone in self.parts(kept):
            return  # a size is not itself and one more
        if gone in self.numbers or (kept in self.made and gone not in self.made):
            kept, gone = gone, kept
        self.parents[gone] = kept
        if gone in self.numbers:
            self.numbers.setdefault(kept, self.numbers[gone])
        if gone in self.made:
            self.made.setdefault(kept, self.made[gone])
        both = {*self.names.get(kept, ()), *self.names.pop(gone, ())}
        self.names[kept] = {name: None for name in self._called if name in both}

    def parts(self, symbol: str) -> set[str]:
        """Return the roots of what a size is made of."""
        found: set[str] = set()
        waiting = [*self.made.get(self.root(symbol), ())[1:]]
        while waiting:
            root = self.root(waiting.pop())
            if root not in found:
                found.add(root)
                waiting += self.made.get(root, ())[1:]
        return found

    def call(self, symbol: str | None, name: str) -> None:
        """Give a size a name that it has in the source."""
        if symbol is not None and name.strip("_"):
            self._called[name.strip("_")] = None
            self.names.setdefault(self.root(symbol), {})[name.strip("_")] = None

    def members(self, symbol: str) -> list[str]:
        """Return all symbols that are the same size."""
        root = self.root(symbol)
        return [root, *(name for name in self.parents if self.root(name) == root)]
