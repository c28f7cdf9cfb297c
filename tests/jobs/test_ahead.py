"""Items that a thread makes before they are asked for."""

from __future__ import annotations

import contextlib
import threading
from contextvars import ContextVar

import pytest

from kernelpkg.jobs.ahead import ahead


def test_items_are_made_ahead_in_their_order():
    """A thread makes some before they are asked for, and not all of them."""
    made, some = [], threading.Event()

    def items():
        for number in range(10):
            made.append((number, threading.current_thread() is threading.main_thread()))
            if number == 3:
                some.set()
            yield number

    with contextlib.closing(ahead(items(), 3)) as found:
        assert next(found) == 0
        assert some.wait(600)
        assert made == [(number, False) for number in range(4)]
        assert list(found) == [*range(1, 10)]


def test_closing_makes_no_more():
    """What interrupts a run does not wait for all that is left."""
    made = []

    def items():
        for number in range(1000):
            made.append(number)
            yield number

    with contextlib.closing(ahead(items(), 2)) as found:
        next(found)
    assert len(made) <= 4


def test_an_error_in_the_thread_is_raised_where_its_item_is_asked_for():
    """Nothing that goes wrong there is lost."""

    def items():
        yield 1
        raise LookupError("lost")

    found = ahead(items(), 4)
    assert next(found) == 1
    with pytest.raises(LookupError, match="lost"):
        next(found)


def test_errors_are_told_in_the_thread_as_outside():
    """It sees the context variables of whoever asks, such as what --verbose listens with."""
    asked: ContextVar[str] = ContextVar("asked", default="nobody")
    asked.set("verbose")
    with contextlib.closing(ahead(iter(asked.get, None), 1)) as found:
        assert next(found) == "verbose"
