"""Locks that a process which is forked finds free, and what they guard whole.

A forked process has the locks of its parent, and not the threads that hold them.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any, Final

LONGEST_WAIT: Final = 30.0
"""How many seconds a fork waits for what other threads are loading or compiling."""

_LOCKS: Final[dict[int, weakref.ref[Any]]] = {}


class _Held(threading.local):
    """The locks that this thread holds while it forks."""

    def __init__(self) -> None:
        self.locks: list[Any] = []


_held: Final = _Held()


def make_lock() -> Any:
    """Return a reentrant lock for which forks wait, and which is free in a forked process."""
    lock = threading.RLock()
    number = id(lock)
    _LOCKS[number] = weakref.ref(lock, lambda _: _LOCKS.pop(number, None))
    return lock


def _living() -> list[Any]:
    found = [reference() for reference in list(_LOCKS.values())]
    return [lock for lock in found if lock is not None]


def _before_fork() -> None:
    """Hold all locks, unless another thread keeps one for too long.

    Whoever waits for one holds no other, so that no two threads wait for each other.
    """
    end = time.monotonic() + LONGEST_WAIT
    busy = _hold(_living())
    while busy is not None:
        if not busy.acquire(timeout=max(0.0, end - time.monotonic())):
            return
        busy.release()
        busy = _hold(_living())


def _hold(locks: Sequence[Any]) -> Any:
    """Hold locks, or none of them and return the first that cannot be had."""
    for lock in locks:
        if not lock.acquire(blocking=False):
            _release()
            return lock
        _held.locks.append(lock)
    return None


def _release() -> None:
    while _held.locks:
        _held.locks.pop().release()


def _after_fork_in_child() -> None:
    _release()
    for lock in _living():
        if not lock._is_owned():  # by the thread that forked, which is the only one here
            lock._at_fork_reinit()


os.register_at_fork(
    before=_before_fork, after_in_parent=_release, after_in_child=_after_fork_in_child
)
