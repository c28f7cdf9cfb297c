"""Calls that stand for all others: between two turns of the rules, two sizes are enough.

What a call gets changes at the turns of the rules alone. Between two of them, code differs by
whether a size is 1, and whether it is a multiple of 16, which Triton compiles apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Final

from attrs import evolve

from kernelpkg.configs.selection import ConfigSelection
from kernelpkg.manifest.cases import Case, guard_problem, is_empty

FACTOR: Final = 16
"""What Triton compiles multiples of apart; addresses too, in bytes."""

_BETWEEN: Final = frozenset({"ceil", "floor", "nearest", "pow2", "ranges", "ignore"})
"""The matches under which calls between tuned sizes get what these have."""


def free_axes(selection: ConfigSelection) -> tuple[str, ...]:
    """Return the axes whose sizes code does not know, and that calls may have any of."""
    spec = selection.spec
    return tuple(
        rule.axis
        for rule in spec.rules
        if rule.match in _BETWEEN
        and rule.axis not in spec.specialize
        and spec.axis_types[rule.axis].kind == "whole"
    )


def samples(selection: ConfigSelection, axis: str) -> tuple[int, ...]:
    """Return sizes of a free axis that stand for all of them, rising."""
    turns = sorted({1, 2, *(turn for turn in selection.turns(axis) if turn > 1)})
    found = set[int]()
    for low, high in itertools.pairwise([*turns, 2**31]):
        odd = low + (low % FACTOR == 0)
        even = -(-low // FACTOR) * FACTOR
        found |= {size for size in (odd, even) if low <= size < high}
    return tuple(sorted(found))


def spread(selection: ConfigSelection, cases: Iterable[Case]) -> Iterator[Case]:
    """Yield, for cases that differ in their free axes alone, the ones that stand for all of them.

    Cases that a guard refuses, and those without elements, are left out.
    """
    free = free_axes(selection)
    sizes = [samples(selection, axis) for axis in free]
    seen = set[tuple[str, ...]]()
    for case in cases:
        absent = {name for name in free if case.values.get(name) is None}
        fixed = tuple(repr(v) for n, v in case.values.items() if n not in free or n in absent)
        if fixed in seen:
            continue
        seen.add(fixed)
        for values in itertools.product(*sizes):
            chosen = zip(free, values, strict=True)
            changes = {name: size for name, size in chosen if name not in absent}
            near = evolve(case, values={**case.values, **changes})
            if not is_empty(selection.spec, near) and guard_problem(selection.spec, near) is None:
                yield near
