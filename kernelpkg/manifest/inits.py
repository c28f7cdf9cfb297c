"""What test tensors hold: the kinds of `init` that take numbers, and what these can make."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from kernelpkg.errors import counted
from kernelpkg.expr.language import DTYPES, Expr
from kernelpkg.manifest.spec import ArgVariant

NUMBERS: Final = ("low", "high", "total", "bits")
"""The keys of an argument that say more of its `init`."""

_WHOLE: Final = ("int8", "uint8", "int16", "int32", "int64")


@frozen
class _Kind:
    """The numbers that an `init` needs, those that it takes beside, and the dtypes that it has."""

    needs: tuple[str, ...]
    takes: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()


_KINDS: Final[Mapping[object, _Kind]] = {
    "randint": _Kind(("high",), ("low",)),
    "sorted": _Kind(("high",), ("low",)),
    "permutation": _Kind((), ("high",), _WHOLE),
    "offsets": _Kind(("total",), (), ("int32", "int64")),
    "packed": _Kind(("bits",), ("low", "high"), _WHOLE),
}


def takes_numbers(variant: ArgVariant) -> bool:
    """Whether an argument has an `init` whose values depend on numbers that may not fit."""
    return isinstance(variant.init, str) and variant.init in _KINDS


def key_problems(name: str, table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (key, message) for what is wrong with `init` and its numbers in a table of [args]."""
    init = table.get("init")
    kind = _KINDS.get(init, _Kind(()))
    given = [key for key in NUMBERS if table.get(key) is not None]
    for key in kind.needs:
        if key not in given:
            yield "init", f"argument '{name}': init '{init}' needs '{key}'"
    for key in given:
        if key not in (*kind.needs, *kind.takes):
            kinds = [name for name, kind in _KINDS.items() if key in (*kind.needs, *kind.takes)]
            message = f"'{key}' goes with init {' or '.join(map(repr, kinds))}"
            yield key, f"argument '{name}': {message}; correct 'init', or remove it"
    dtype = table.get("dtype")
    if dtype in DTYPES and kind.dtypes and dtype not in kind.dtypes:
        yield "dtype", f"argument '{name}' {_other_dtype(init, dtype)}"


def init_problem(
    variant: ArgVariant, shape: Sequence[int], dtype: str, value_of: Callable[[Expr], Any]
) -> str | None:
    """Say why an argument of a shape and a dtype cannot hold what its `init` says, or return None.

    `value_of` gives the value of an expression for a case; what it raises is left to the caller.
    """
    init, kind = variant.init, _KINDS.get(variant.init, _Kind(()))
    count, numbers = math.prod(shape), numbers_of(variant, value_of)
    low, high = numbers.get("low", 0), numbers.get("high")
    if kind.dtypes and dtype not in kind.dtypes:
        return _other_dtype(init, dtype)
    if init == "offsets":
        return _offsets_problem(shape, dtype, numbers["total"])
    if init == "permutation":
        high = count if high is None else high
        below = counted(max(0, high), "value is", "values are")
        wrong = f"has {counted(count, 'element')}, and {below} below its 'high'"
        return wrong if high < count else None
    if init == "packed":
        bits = numbers["bits"]
        width = 8 if dtype == "uint8" else int(dtype.removeprefix("int"))
        if width % bits:
            return f"has {width} bits an element, which are not codes of {bits}"
        if low < -(1 << bits - 1) or numbers["high"] > 1 << bits:
            kept = counted(bits, "bit does", "bits do")
            return f"has codes from {low} to {numbers['high'] - 1}, which {kept} not hold"
    assert high is not None
    return f"has no value from {low} to below {high}" if count and high <= low else None


def numbers_of(variant: ArgVariant, value_of: Callable[[Expr], Any]) -> dict[str, int]:
    """Return the numbers of an `init`, by their keys: those that are given, and the codes' end."""
    found = {"low": variant.low, "high": variant.high, "total": variant.total}
    values = {key: int(value_of(expr)) for key, expr in found.items() if expr is not None}
    if variant.bits is not None:
        values["bits"] = variant.bits
        values.setdefault("high", 1 << variant.bits - (values.get("low", 0) < 0))
    return values


def _other_dtype(init: object, dtype: str) -> str:
    *others, last = _KINDS[init].dtypes
    return f"has dtype {dtype}, and init '{init}' makes {', '.join(others)} or {last}"


def _offsets_problem(shape: Sequence[int], dtype: str, total: int) -> str | None:
    if len(shape) != 1 or shape[0] < 1:
        return f"has shape {list(shape)}, and offsets are a vector of one more than there are runs"
    if total < 0 or (shape[0] == 1 and total):
        runs = "runs" if shape[0] > 1 else "no runs"
        return f"has offsets of {runs} that cannot end at {total}"
    if total > 2**31 - 1 and dtype == "int32":
        return f"has offsets up to {total}, which int32 does not hold"
    return None
