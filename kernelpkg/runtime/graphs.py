"""Graphs of torch.compile: told apart by what they take from ops, dropped when that changes.

PyTorch keeps graphs by the names of ops, on disk for years. What a graph takes from an op is its
interface, the schema and what the fake implementation does; so that of every op is part of the key.

Before: `torch_ops`, for each op that comes, changes or goes. After: nothing.
"""

from __future__ import annotations

import functools
import re
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
import torch.compiler.config

from kernelpkg.files import digest_value

_OURS: Final = re.compile(r" ?kernelpkg-[0-9a-f]{64}$")

_INTERFACES: Final[dict[str, str]] = {}
"""The interface of each op that is registered."""

_SUM: Final = [0]
"""All of them in one number, from which each can be taken out again: there may be thousands."""

_TRACED: Final[set[str]] = set()
"""Those that a graph of this process may have been made with."""

_STALE: Final[set[str]] = set()
"""Ops of graphs that are gone by now, or have another interface."""


def interface_of(schema: str, fake: Callable[..., Any] | None, backward: Any = None) -> str:
    """Return the digest of all that a graph takes from an op; a `backward` is told by its text.

    Of the fake implementation it holds the code, what it closes over, and the functions and values
    of its own module that it names; of other modules it holds names alone.
    """
    return digest_value([schema, _described(fake, []), repr(backward)])


def put(op: str, interface: str) -> None:
    """Let graphs be kept apart by the interface of an op, from when it is registered."""
    if interface != _INTERFACES.get(op):
        take(op)
        _INTERFACES[op] = interface
        _count(op, interface)
    _tell_apart()


def take(op: str) -> None:
    """Forget an op that is registered no longer."""
    if op in _TRACED:
        _TRACED.remove(op)
        _STALE.add(op)
    interface = _INTERFACES.pop(op, None)
    if interface is not None:
        _count(op, interface)
    _tell_apart()


def _count(op: str, interface: str) -> None:
    """Put an interface into the sum, or take it out."""
    _SUM[0] ^= int(digest_value([op, interface]).removeprefix("sha256-"), 16)


def trace(op: str) -> None:
    """Say that a graph is being made with an op; its key is made after that.

    A tag that the user has set since then has taken ours away.
    """
    _TRACED.add(op)
    _tell_apart()


def mark() -> str:
    """Return a word for the interfaces of all ops that are registered; none for none."""
    return f"kernelpkg-{_SUM[0]:064x}" if _INTERFACES else ""


def _tell_apart() -> None:
    """Put the interfaces of what is loaded into the key of graphs, behind the user's own tag."""
    tag = torch.compiler.config.cache_key_tag
    wanted = f"{_OURS.sub('', tag)} {mark()}".strip()
    if tag != wanted:
        torch.compiler.config.cache_key_tag = wanted


def drop_stale() -> None:
    """Drop all graphs of this process, if any of them may hold an op as it is no longer.

    PyTorch waits for graphs that are being made; so no lock may be held that they may want.
    """
    if _STALE:
        _STALE.clear()
        if "torch._dynamo" in sys.modules:
            torch.compiler.reset()


def _described(value: Any, seen: list[object]) -> Any:
    """Return a JSON value that tells a value apart in every process: no addresses, no places."""
    match value:
        case None | bool() | int() | float() | str() | bytes():
            return [type(value).__name__, repr(value)]
        case torch.dtype() | torch.device() | torch.layout() | torch.memory_format():
            return str(value)
        case tuple() | list():
            return [_described(item, seen) for item in value]
        case set() | frozenset():
            return sorted(repr(_described(item, seen)) for item in value)
        case dict():
            return sorted(
                repr((_described(key, seen), _described(item, seen))) for key, item in value.items()
            )
        case types.CodeType():
            return [value.co_code.hex(), value.co_names, _described(value.co_consts, seen)]
        case functools.partial():
            return [_described(part, seen) for part in (value.func, value.args, value.keywords)]
        case types.MethodType():
            return [_described(value.__func__, seen), _described(value.__self__, seen)]
        case types.FunctionType() if value not in seen:
            seen.append(value)
            return [_described(part, seen) for part in _parts(value)]
    named = value if hasattr(value, "__qualname__") else type(value)
    return [getattr(named, "__module__", ""), getattr(named, "__qualname__", "")]


def _parts(function: types.FunctionType) -> Iterator[Any]:
    """Yield what decides what a function does."""
    yield function.__code__
    yield function.__defaults__
    yield function.__kwdefaults__
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # it is filled later
            yield None
    for name in sorted(_names(function.__code__)):
        found = function.__globals__.get(name)
        if isinstance(found, types.FunctionType) and found.__globals__ is not function.__globals__:
            yield name, found.__module__, found.__qualname__
        elif found is not None:
            yield name, found


def _names(code: types.CodeType) -> set[str]:
    inner = [_names(const) for const in code.co_consts if isinstance(const, types.CodeType)]
    return set(code.co_names).union(*inner)
