"""The calls of one op, in Python: what each signature launches, and how often it was called.

`_native.c` has the same class in C, with equal results; `native` says which of them is used.
"""

from __future__ import annotations

import itertools
import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import CodeType
from typing import Any, Final, NoReturn

import torch
from torch.autograd import forward_ad

from kernelpkg.locks import make_lock

LIMIT: Final = 32_768
"""How many signatures an op remembers before each new one takes the place of an old one."""

MOST_ARGS: Final = 255
MOST_COUNTERS: Final = 65_536

_LEAST, _MOST = -(2**63), 2**63 - 1

_WITHOUT_KEY = (AttributeError, OverflowError, RuntimeError, TypeError, ValueError)
"""What an argument raises that no signature can hold."""

_double_bits = struct.Struct("<d").pack


def has_tangent(value: Any) -> bool:
    """Whether a forward gradient is wanted of a tensor: it is the first of a pair.

    So it is taken to be where that cannot be told, as while `torch.func.linearize` traces.
    """
    if not isinstance(value, torch.Tensor):
        return False
    try:
        dual = forward_ad.unpack_dual(value)  # type: ignore[no-untyped-call]  # of PyTorch
    except RuntimeError:
        return True
    return dual.tangent is not None


def _refuse(value: object) -> NoReturn:
    raise TypeError


def _real(value: Any) -> float | bytes:
    """Return what stands for a float: equal for equal bits alone, as 0.0, -0.0 and NaN need it."""
    if value.__class__ is int:
        value = float(value)
    elif value.__class__ is not float:
        _refuse(value)
    return value if value < 0.0 or value > 0.0 else _double_bits(value)


def _any_real(value: Any) -> str:
    """Return what stands for a float whose value no signature has."""
    if value.__class__ is not float:
        _real(value)
    return "any"


def _numbers(values: Any) -> tuple[int, ...]:
    if values.__class__ is not list and values.__class__ is not tuple:
        _refuse(values)
    for value in values:
        if value.__class__ is not int or not _LEAST <= value <= _MOST:
            _refuse(value)
    return tuple(values)


# Code is compiled for an alignment of pointers, so that it is part of a signature; a tensor of no
# elements has no pointer. A device is its number, -1 for the CPU: PyTorch calls an implementation
# for CPU or CUDA with no tensors of other devices, and a device itself takes 50 ns more to hash.
_TENSOR = "{0}.dtype, {0}.get_device(), {0}.data_ptr() & 15, {0}.shape, {0}.stride()"
_CODE: Final = {
    "t": _TENSOR,
    "i": f"{{0}} if {{0}}.__class__ is int and {_LEAST} <= {{0}} <= {_MOST} else refuse({{0}})",
    "f": "(({0} if {0}.__class__ is float and ({0} < 0.0 or {0} > 0.0) else real({0}))"
    " if apart[{1}] else any_real({0}))",
    "b": "{0} if {0} is True or {0} is False else refuse({0})",
    "s": "{0} if {0}.__class__ is str else refuse({0})",
    "l": "numbers({0})",
    "o": "{0}",
}
"""What a signature holds of an argument; flat, for a tuple costs its making and its hash."""

KINDS: Final = "tTiIfFbBsSlLo"
"""Tensor, int, float, bool, str, int[], and any other that is hashable; capitals may be None."""


class Calls:
    """Finds what a call launches by its signature, and asks `resolve` where nothing is found.

    A signature is all that a launch depends on: per tensor its dtype, device, sizes, strides and
    the alignment of its pointer to 16 bytes, and every other value, floats by their bits unless
    `accept_any` leaves them out.

    Args:
        kinds: A letter of `KINDS` for each argument of the op.
        resolve: Answers a call, given its arguments as a tuple, whose signature is not known or
            that has none, and calls `put` where the next one is to be quick.
        grad_enabled: Says whether gradients are recorded.
        check_grad: Answers a call of which a tensor requires grad, where gradients are recorded,
            or has a tangent, or raises.
        defaults: The values of trailing arguments that a call may leave out.
        limit: How many signatures are remembered; then each new one takes the oldest one's place.
        capturing: Says whether a CUDA graph is being captured.

    Attributes:
        call: The function of the op's arguments that is registered with PyTorch.
    """

    def __init__(
        self,
        kinds: str,
        resolve: Callable[[tuple[Any, ...]], Any],
        *,
        grad_enabled: Callable[[], bool],
        check_grad: Callable[[tuple[Any, ...]], Any],
        defaults: tuple[Any, ...] = (),
        limit: int = LIMIT,
        capturing: Callable[[], bool] | None = None,
    ) -> None:
        check_arguments(kinds, len(defaults), limit)
        self._entries: OrderedDict[Any, tuple[Any, ...]] = OrderedDict()
        self._limit = limit
        self._kinds = kinds
        self._lock = make_lock()
        # A step of itertools.count cannot be interrupted by another thread; `+= 1` can.
        self._apart = [kind in "fF" for kind in kinds]
        self._counters: dict[int, itertools.count[int]] = {}
        self._reads: dict[int, int] = {}
        space: dict[str, Any] = {
            "find": self._entries.get,
            "resolve": resolve,
            "grad_enabled": grad_enabled,
            "check_grad": check_grad,
            "forward_ad": forward_ad,
            "has_tangent": has_tangent,
            "capturing": capturing or _never,
            "without_key": _WITHOUT_KEY,
            "refuse": _refuse,
            "real": _real,
            "any_real": _any_real,
            "apart": self._apart,
            "numbers": _numbers,
        }
        first = len(kinds) - len(defaults)
        space |= {f"d{first + place}": value for place, value in enumerate(defaults)}
        exec(_compiled(_written(kinds, len(defaults))), space)
        self.call: Callable[..., Any] = space["call"]
        self._key: Callable[..., Any] = space["key"]

    def put(
        self,
        args: Sequence[Any],
        launch: Callable[..., Any],
        counter: int = 0,
        captured: Callable[..., Any] | None = None,
        captured_counter: int = 0,
    ) -> bool:
        """Remember what answers calls of a signature.

        Args:
            args: The arguments of such a call.
            launch: A `Recorded`, or any function of the op's arguments.
            counter: The count that goes up by one for each answer.
            captured: What answers in place of `launch` while a graph is captured.
            captured_counter: Its count.

        Returns:
            False for arguments that have no signature: nothing is remembered.

        Raises:
            ValueError: A counter is not in 0 to 65535.
        """
        for place in (counter, captured_counter):
            if not 0 <= place < MOST_COUNTERS:
                raise ValueError(f"a counter must be 0 to {MOST_COUNTERS - 1}")
        try:
            key = self._key(*args)
            hash(key)
        except _WITHOUT_KEY:
            return False
        with self._lock:
            ticks = self._tick(counter), self._tick(captured_counter)
            if key not in self._entries and len(self._entries) >= self._limit:
                self._entries.popitem(last=False)
            self._entries[key] = (launch, ticks[0], captured, ticks[1])
        return True

    def _tick(self, counter: int) -> Callable[[], int]:
        return self._counters.setdefault(counter, itertools.count()).__next__

    def get(self, args: Sequence[Any]) -> Callable[..., Any] | None:
        """Return what answers calls of a signature, or None."""
        try:
            entry = self._entries.get(self._key(*args))
        except _WITHOUT_KEY:
            return None
        return None if entry is None else entry[0]

    def count(self, counter: int) -> int:
        """Return how many calls were answered under a counter."""
        with self._lock:
            counted = self._counters.get(counter)
            if counted is None:
                return 0
            reads = self._reads.get(counter, 0)
            self._reads[counter] = reads + 1  # reading is a step too
            return next(counted) - reads

    def accept_any(self, places: Sequence[int]) -> None:
        """Leave the values of the floats at some places, and no others, out of signatures.

        All signatures are forgotten.

        Raises:
            ValueError: At one of them there is no float.
        """
        floats = {place for place, kind in enumerate(self._kinds) if kind in "fF"}
        if not floats.issuperset(places):
            raise ValueError("a place must be that of a float")
        with self._lock:
            apart = floats.difference(places)
            self._apart[:] = [place in apart for place in range(len(self._kinds))]
            self._entries.clear()

    def clear(self) -> None:
        """Forget all signatures; the counts stay."""
        with self._lock:
            self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)


def check_arguments(kinds: str, defaults: int, limit: int) -> None:
    """Raise ValueError for what no `Calls` takes, in the words of `_native.c`."""
    if len(kinds) > MOST_ARGS:
        raise ValueError(f"kinds must be {MOST_ARGS} at most")
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"kinds has '{kind}', which is none of {KINDS}")
    if defaults > len(kinds):
        raise ValueError("defaults must not be more than kinds")
    if not 1 <= limit <= 2**24:
        raise ValueError("limit must be 1 to 16777216")


def _never() -> bool:
    return False


def _written(kinds: str, defaults: int) -> str:
    """Write the function that is called, and the one that makes a signature."""
    names = [f"a{place}" for place in range(len(kinds))]
    first = len(kinds) - defaults
    params = ", ".join(
        name if place < first else f"{name}=d{place}" for place, name in enumerate(names)
    )
    given = ", ".join(names)
    key = "".join(f"{_key_code(place, kind)}, " for place, kind in enumerate(kinds))
    tensors = [name for name, kind in zip(names, kinds, strict=True) if kind in "tT"]
    grad = " or ".join(f"getattr({name}, 'requires_grad', False)" for name in tensors)
    tangent = " or ".join(f"has_tangent({name})" for name in tensors)
    return (
        f"def key({params}):\n"
        f"    return ({key})\n"
        f"def call({params}):\n"
        f"    if grad_enabled() and ({grad or 'False'}):\n"
        f"        return check_grad(({given}{',' if names else ''}))\n"
        f"    if forward_ad._current_level >= 0 and ({tangent or 'False'}):\n"
        f"        return check_grad(({given}{',' if names else ''}))\n"
        "    try:\n"
        f"        entry = find(({key}))\n"
        "    except without_key:\n"
        "        entry = None\n"
        "    if entry is None:\n"
        f"        return resolve(({given}{',' if names else ''}))\n"
        "    launch, answered, captured, captured_answered = entry\n"
        "    if captured is not None and capturing():\n"
        "        launch, answered = captured, captured_answered\n"
        f"    result = launch({given})\n"
        "    answered()\n"
        "    return result\n"
    )


def _key_code(place: int, kind: str) -> str:
    name = f"a{place}"
    code = _CODE[kind.lower()].format(name, place)
    if kind == "o" or kind.islower():
        return code if kind == "t" else f"({code})"
    return f"None if {name} is None else ({code})"


@lru_cache(maxsize=1024)
def _compiled(code: str) -> CodeType:
    """Compile the code of a function, which ops with like arguments share; 0.15 ms each."""
    return compile(code, "<calls>", "exec", dont_inherit=True)
