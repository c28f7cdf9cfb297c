"""Which calls share compiled code: those of one config and one class.

Code that was made for a size of 1, or of 0, is wrong for larger ones; sizes that the host part
specialises are numbers in it; dtypes, flags and absent arguments choose what it does; and tensors
that 32-bit indices do not reach have code of their own. So have calls of which something is true
that Helion looked at, as that a view has one column. All other sizes, strides and numbers are
arguments of it. A stride along one element or none leads nowhere, and counts as 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from attrs import evolve, field, frozen

from kernelpkg.expr.language import compile_exprs, parse_expr

Exact = Mapping[int, tuple[bool, ...] | None]
"""Per argument of the op, by its place: which of its sizes are numbers in the code, and then which
of its strides; of a whole number, whether it is one itself, and of a list, which elements are. None
stands for a value that the function does not read."""


def size_classes(args: Sequence[Any]) -> tuple[Hashable, ...]:
    """Return which sizes and strides of a call are 0, 1, or more; Helion 1.4's own key does not.

    Code that Helion compiled for a size of 1 gives wrong rows for larger ones, and Helion 1.4's
    own key does not tell them apart when shapes are dynamic.
    """
    # Wrong rows in silence otherwise: with Helion 1.4.0's own key, 15 of 16 rows of five of the
    # seven ops came back wrong on an H200 when a call of 16 tokens followed a call of one
    # (2026-11-22). A row-major and a column-major scale differ in strides of 1 alone.
    return tuple(
        (
            tuple(size if size < 2 else 2 for size in arg.shape),
            tuple(stride if stride < 2 else 2 for stride in _strides(arg)),
        )
        for arg in args
        if isinstance(arg, torch.Tensor)
    )


@frozen(kw_only=True)
class ClassRule:
    """What tells calls of a kernel apart beside their dtypes, flags, and sizes of 0, 1 and more.

    `exact` says which of their sizes are numbers in the code. `facts` are, of calls that are equal
    so far, what code took for granted of one of them: expressions over the arguments `a0`, `a1` and
    so on, each of which may be true of it or not.
    """

    exact: Exact = field(factory=dict)
    facts: Mapping[str, tuple[str, ...]] = field(factory=dict)

    def class_of(self, args: Sequence[Any], *, far: bool = False) -> str:
        """Return the class of a call as JSON, which a build is searched by.

        `far` is for calls whose tensors are not far, and whose results are.
        """
        found = self._without_facts(args)
        facts = self.facts.get(json.dumps(found), ()) if self.facts else ()
        if lacks := sum((not true) << at for at, true in enumerate(truths(facts, args))):
            found.append(f"not {lacks:x}")
        far = far or any(
            is_far(arg.shape, arg.stride()) for arg in args if isinstance(arg, torch.Tensor)
        )
        return json.dumps([*found, "far"] if far else found)

    def learned(self, args: Sequence[Any], exact: Exact, facts: Collection[str]) -> ClassRule:
        """Return the rule that also tells apart what code that was made for a call has to."""
        both = _joined(self.exact, exact)
        rule = self if both == self.exact else evolve(self, exact=both)
        place = json.dumps(rule._without_facts(args))
        known = rule.facts.get(place, ())
        if {*facts} <= {*known}:
            return rule
        return evolve(rule, facts={**rule.facts, place: tuple(sorted({*known, *facts}))})

    def kind_of(self, args: Sequence[Any]) -> str:
        """Return how the classes begin of all calls that are equal to one but for facts."""
        return json.dumps(self._without_facts(args)).removesuffix("]")

    def _without_facts(self, args: Sequence[Any]) -> list[Any]:
        return [_fact(arg, self.exact.get(place, ())) for place, arg in enumerate(args)]


def truths(facts: tuple[str, ...], args: Sequence[Any]) -> tuple[bool, ...]:
    """Return which of some facts are true of a call; one that has no value is not."""
    if not facts:
        return ()
    count, read = _reader(facts)
    given = (*args, *(None,) * (count - len(args)))[:count]
    try:
        return tuple(map(bool, read(*given)))
    except ArithmeticError:
        one_by_one = (truths((fact,), args) for fact in facts) if len(facts) > 1 else ((False,),)
        return tuple(true for (true,) in one_by_one)


@lru_cache(maxsize=4096)
def _reader(facts: tuple[str, ...]) -> tuple[int, Callable[..., tuple[Any, ...]]]:
    """Return what reads facts, of how many arguments."""
    exprs = [parse_expr(fact) for fact in facts]
    count = 1 + max(int(name[1:]) for expr in exprs for name in expr.names())
    names = tuple(f"a{place}" for place in range(count))
    return count, compile_exprs(exprs, names, nullable=frozenset(names), absent=False)


def untrue(facts: Mapping[str, bool], args: Sequence[Any]) -> bool:
    """Whether some fact is not as it was said to be, for a call."""
    return truths((*facts,), args) != (*facts.values(),)


def is_far(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether the last element of a tensor lies out of reach of a 32-bit index.

    A view of few elements can lie as far apart as one of 2**31.
    """
    last = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    return last >= 2**31 and all(shape)


def _strides(arg: torch.Tensor) -> Iterator[int]:
    """Yield the strides of a tensor, 1 where no step is made.

    PyTorch leaves anything there: rows of one token have the stride of the tensor they are from.
    """
    for size, stride in zip(arg.shape, arg.stride(), strict=True):
        yield stride if size > 1 else 1


def _fact(arg: Any, exact: tuple[bool, ...] | None) -> Any:
    if exact is None and not isinstance(arg, torch.Tensor):
        return "unused"
    exact = exact or ()
    match arg:
        case torch.Tensor():
            found = [min(number, 2) for number in (*arg.shape, *_strides(arg))]
            for at, number in enumerate((*arg.shape, *arg.stride())[: len(exact)]):
                if exact[at]:  # a stride too that leads nowhere, for it is a number in the code
                    found[at] = number
            return [str(arg.dtype).removeprefix("torch."), found]
        case bool() | str() | None:
            return arg
        case int():
            return {"int": arg if any(exact) or arg < 2 else 2}
        case float():
            return "float"
        case list() | tuple():
            sure = (*exact, *(False,) * (len(arg) - len(exact)))
            return [n if mark or n < 2 else 2 for n, mark in zip(arg, sure, strict=False)]
    return repr(arg)


def _joined(one: Exact, other: Exact) -> dict[int, tuple[bool, ...] | None]:
    """Return what is exact in one or the other."""
    found = dict(one)
    for place, marks in other.items():
        before = found.get(place, ())
        if before is None or marks is None:
            found[place] = None
            continue
        length = max(len(before), len(marks))
        both = zip(*((*m, *(False,) * (length - len(m))) for m in (before, marks)), strict=True)
        found[place] = tuple(a or b for a, b in both)
    return found
