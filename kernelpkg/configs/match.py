"""The match kinds: which tuned value of one axis a call's value gets.

Numbers are kept exact (floats as fractions), so that ties and bounds do not depend on rounding;
True and False are flags and never equal a number.

The ops that are vendored into vLLM run a copy of what finds values here, in lines of 88 columns
(`vllm/vendor/op_picker.write_shared`).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Final

from kernelpkg.manifest.cases import show
from kernelpkg.manifest.spec import Match, Rule, Scalar

EXACT: Final = 0
"""Rank of a match: the tuned value equals the call's, or the axis is ignored."""

BUCKETED: Final = 1
"""Rank of a match: the value lies between tuned ones, or is rounded up to the first."""

EXTRAPOLATED: Final = 2
"""Rank of a match: the call's value lies outside of the tuned values."""

MISS: Final = 3
"""Rank of a match: no tuned value may be used."""

NOWHERE: Final = (-1, MISS)

Number = int | Fraction


def identity(value: Scalar) -> object:
    """Return what equality of axis values goes by: True and False are not numbers."""
    return (value,) if type(value) is bool else value


def _number(value: Scalar) -> Number | None:
    """Return a finite number, exactly, or None for anything else."""
    if type(value) is int:
        return value
    return Fraction(value) if type(value) is float and math.isfinite(value) else None


def order(value: Scalar) -> tuple[int, str, Number | Scalar]:
    """Return a sort key for values of any type: numbers first, then by type."""
    number = _number(value)
    return (0, "", number) if number is not None else (1, type(value).__name__, value)


def _power(number: Number) -> int:
    """Return a number rounded up to a power of two, 1 at least."""
    return 1 if number <= 1 else 1 << (math.ceil(number) - 1).bit_length()


def _around(number: Number) -> tuple[int, int]:
    """Return the first whole number not below a number, and the first above it."""
    return math.ceil(number), math.floor(number) + 1


def _listed(values: Iterable[Scalar]) -> str:
    return ", ".join(map(show, values))


class Matcher:
    """The tuned values of one axis in order; a call's value finds its equal."""

    __slots__ = ("places", "rule", "tuned")

    def __init__(self, rule: Rule, tuned: Iterable[Scalar]) -> None:
        self.rule = rule
        self.tuned = tuple(sorted(tuned, key=order))
        self.places = {identity(value): place for place, value in enumerate(self.tuned)}

    def find(self, value: Scalar) -> tuple[int, int]:
        """Return the place of a call's tuned value, and the rank of the match."""
        # `identity`, written out: a call costs as much as the look-up.
        place = self.places.get((value,) if type(value) is bool else value)
        return NOWHERE if place is None else (place, EXACT)

    def turns(self) -> Iterator[int]:
        """Yield the whole numbers at which `find` may say other than of the number before."""
        for number in map(_number, self.tuned):
            if number is not None:
                yield from _around(number)

    def reason(self, value: Scalar, rank: int) -> str:
        """Return why `find` gave this rank, as a short phrase."""
        if rank == EXACT:
            return "is tuned"
        if not self.tuned:
            return "nothing is tuned"
        return f"is not tuned, {_listed(self.tuned)} {'are' if self.tuned[1:] else 'is'}"


class _Ignored(Matcher):
    """Takes every call; its one place stands for all tuned values together."""

    __slots__ = ()

    def find(self, value: Scalar) -> tuple[int, int]:
        return 0, EXACT

    def turns(self) -> Iterator[int]:
        return iter(())

    def reason(self, value: Scalar, rank: int) -> str:
        return "is ignored"


class _Ordered(Matcher):
    """What the ordered kinds share: numbers are placed, all else must be equal."""

    __slots__ = ("numbers",)

    def __init__(self, rule: Rule, tuned: Iterable[Scalar]) -> None:
        super().__init__(rule, (value for value in tuned if self.takes(_number(value))))
        numbers = map(_number, self.tuned)
        self.numbers = [number for number in numbers if number is not None]

    def takes(self, number: Number | None) -> bool:
        """Whether a call can reach a tuned value; None is one that is not a number."""
        return True

    def find(self, value: Scalar) -> tuple[int, int]:
        number = value if type(value) is int else _number(value)
        if number is None:
            return super().find(value)
        return self.place(number) if self.numbers else NOWHERE

    def place(self, number: Number) -> tuple[int, int]:
        """Do the work of `find` for a number, where numbers are tuned."""
        raise NotImplementedError

    def above(self) -> tuple[int, int]:
        """Return what a call above all tuned numbers gets."""
        largest = len(self.numbers) - 1, EXTRAPOLATED
        return largest if self.rule.over == "largest" else NOWHERE

    def reason(self, value: Scalar, rank: int) -> str:
        number = _number(value)
        if rank == EXACT or number is None or not self.numbers:
            return super().reason(value, rank)
        return self.phrase(number, rank)

    def phrase(self, number: Number, rank: int) -> str:
        """Do the work of `reason` for a number that is not tuned."""
        raise NotImplementedError


class _Ceil(_Ordered):
    """The smallest tuned number that is not below the call's."""

    __slots__ = ()

    def place(self, number: Number) -> tuple[int, int]:
        numbers = self.numbers
        place = bisect_left(numbers, number)
        if place == len(numbers):
            return self.above()
        return place, EXACT if numbers[place] == number else BUCKETED

    def phrase(self, number: Number, rank: int) -> str:
        if rank == BUCKETED:
            return "takes the next larger tuned value"
        return "above the largest tuned value" + (", takes it" if rank == EXTRAPOLATED else "")


class _Floor(_Ordered):
    """The largest tuned number that is not above the call's."""

    __slots__ = ()

    def place(self, number: Number) -> tuple[int, int]:
        numbers = self.numbers
        place = bisect_right(numbers, number) - 1
        if place < 0:
            return (0, EXTRAPOLATED) if self.rule.under == "smallest" else NOWHERE
        if numbers[place] == number:
            return place, EXACT
        return place, BUCKETED if number < numbers[-1] else EXTRAPOLATED

    def phrase(self, number: Number, rank: int) -> str:
        if number > self.numbers[0]:
            return "takes the next smaller tuned value"
        where = "below" if number < self.numbers[0] else "not above"
        return f"{where} the smallest tuned value" + (", takes it" if rank < MISS else "")


class _Below(_Floor):
    """The largest tuned number below the call's, also where that is tuned."""

    __slots__ = ()

    def place(self, number: Number) -> tuple[int, int]:
        numbers = self.numbers
        place = bisect_left(numbers, number) - 1
        if place >= 0:
            return place, BUCKETED if number <= numbers[-1] else EXTRAPOLATED
        if self.rule.under == "miss":
            return NOWHERE
        return 0, EXACT if number == numbers[0] else EXTRAPOLATED


class _Nearest(_Ordered):
    """The tuned number with the least distance; `cuts` are the doubled midpoints."""

    __slots__ = ("cuts", "parts", "whole")

    def __init__(self, rule: Rule, tuned: Iterable[Scalar]) -> None:
        super().__init__(rule, tuned)
        self.cuts = list(map(self.cut, self.numbers, self.numbers[1:]))
        # By its decimal text, because 0.3 in a manifest means three tenths.
        bound = None if rule.max is None else Fraction(str(rule.max))
        self.parts, self.whole = (1, 0) if bound is None else bound.as_integer_ratio()

    def cut(self, low: Number, high: Number) -> Number:
        """Return what `cut(number, number)` is held against; up to it, low wins."""
        return low + high

    def deviates(self, near: Number, number: Number) -> bool:
        """Whether the relative deviation is above parts/whole, without dividing."""
        distance = max(near, number) - min(near, number)
        return distance * self.whole > max(number, -number) * self.parts

    def halfway(self, cut: Number) -> int:
        """Return the first whole number that lies beyond a cut."""
        return math.floor(Fraction(cut) / 2) + 1

    def limits(self, near: Number) -> Iterator[Number]:
        """Yield the numbers whose deviation from a tuned one is the bound."""
        yield Fraction(near * self.whole) / (self.whole + self.parts)
        if self.whole != self.parts:
            yield Fraction(near * self.whole) / (self.whole - self.parts)

    def turns(self) -> Iterator[int]:
        yield from super().turns()
        yield from map(self.halfway, self.cuts)
        if self.whole:
            yield from (0, 1)  # where the sign changes, which the bound does not look at
            for near in self.numbers:
                for limit in self.limits(near):
                    yield from _around(limit)

    def place(self, number: Number) -> tuple[int, int]:
        numbers = self.numbers
        place = bisect_left(self.cuts, self.cut(number, number))
        near = numbers[place]
        if near == number:
            return place, EXACT
        if self.deviates(near, number):
            return NOWHERE
        return place, BUCKETED if numbers[0] < number < numbers[-1] else EXTRAPOLATED

    def phrase(self, number: Number, rank: int) -> str:
        if rank < MISS:
            return f"nearest of {_listed(self.tuned[: len(self.numbers)])}"
        return f"no tuned value within {100 * self.parts / self.whole:.6g}%"


class _NearestLog(_Nearest):
    """The tuned number with the least ratio; `cuts` are the squared means."""

    __slots__ = ()

    def takes(self, number: Number | None) -> bool:
        return number is None or number > 0

    def cut(self, low: Number, high: Number) -> Number:
        return low * high

    def halfway(self, cut: Number) -> int:
        return math.isqrt(math.floor(cut)) + 1

    def limits(self, near: Number) -> Iterator[Number]:
        yield Fraction(near * self.whole) / (self.whole + self.parts)
        yield Fraction(near * (self.whole + self.parts)) / self.whole

    def turns(self) -> Iterator[int]:
        yield 1  # below it, nothing has a ratio to a tuned value
        yield from super().turns()

    def deviates(self, near: Number, number: Number) -> bool:
        low, high = (near, number) if near < number else (number, near)
        return (high - low) * self.whole > low * self.parts

    def place(self, number: Number) -> tuple[int, int]:
        return super().place(number) if number > 0 else NOWHERE

    def phrase(self, number: Number, rank: int) -> str:
        if number > 0:
            return super().phrase(number, rank)
        return "is not positive, so it has no ratio to a tuned value"


class _Pow2(_Ordered):
    """The call's number rounded up to a power of two, 1 at least, if that is tuned."""

    __slots__ = ()

    def takes(self, number: Number | None) -> bool:
        return number is None or _power(number) == number

    def turns(self) -> Iterator[int]:
        yield from super().turns()
        yield from (math.floor(Fraction(number) / 2) + 1 for number in self.numbers)

    def place(self, number: Number) -> tuple[int, int]:
        power = _power(number)
        place = bisect_left(self.numbers, power)
        if place == len(self.numbers):
            return self.above()
        if self.numbers[place] != power:
            return NOWHERE
        return place, EXACT if number == power else BUCKETED

    def phrase(self, number: Number, rank: int) -> str:
        power = f"rounds up to {_power(number)}, "
        if _power(number) <= self.numbers[-1]:
            return power + ("which is tuned" if rank == BUCKETED else "which is not tuned")
        return power + "above the largest tuned" + (", takes that" if rank == EXTRAPOLATED else "")


class _Ranges(_Ordered):
    """A tuned number of the call's range: the smallest not below it, or the last."""

    __slots__ = ()

    def turns(self) -> Iterator[int]:
        yield from super().turns()
        yield from (bound + 1 for bound in self.rule.bounds)

    def place(self, number: Number) -> tuple[int, int]:
        numbers = self.numbers
        bounds = self.rule.bounds
        home = bisect_left(bounds, number)
        place = bisect_left(numbers, number)
        if place < len(numbers) and bisect_left(bounds, numbers[place]) == home:
            return place, EXACT if numbers[place] == number else BUCKETED
        if place and bisect_left(bounds, numbers[place - 1]) == home:
            return place - 1, BUCKETED if place < len(numbers) else EXTRAPOLATED
        return NOWHERE

    def phrase(self, number: Number, rank: int) -> str:
        bounds = self.rule.bounds
        home = bisect_left(bounds, number)
        ends = [f"above {bounds[home - 1]}"] if home else []
        ends += [f"up to {bounds[home]}"] if home < len(bounds) else []
        return ("in the range " if rank < MISS else "no tuned value ") + ", ".join(ends)


_KINDS: dict[Match, type[Matcher]] = {
    "exact": Matcher,
    "nearest": _Nearest,
    "ceil": _Ceil,
    "floor": _Floor,
    "pow2": _Pow2,
    "ranges": _Ranges,
    "ignore": _Ignored,
}


def matcher(rule: Rule, tuned: Iterable[Scalar]) -> Matcher:
    """Return the rule over tuned values, which must be distinct by `identity`.

    Tuned values that no call can reach are left out of `Matcher.tuned`.
    """
    log = rule.match == "nearest" and rule.distance == "log"
    return (_NearestLog if log else _KINDS[rule.match])(rule, tuned)


def inexact(found: Matcher) -> Matcher:
    """Return what counts for calls of which an earlier axis had no equal value."""
    kind = found.rule.inexact
    if kind is None:
        return found
    return (_Below if kind == "below" else _Floor)(found.rule, found.tuned)
