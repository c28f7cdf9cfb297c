"""Findings of one cause are one, with the smallest case and a count of the others."""

from __future__ import annotations

import pytest

from kernelpkg.check.causes import Occurrence, once_each
from kernelpkg.errors import Problem


def occurred(size, message, *, cause=None, path="a.py", line=3, code="KP240", severity="error"):
    problem = Problem(
        path=path, line=line, code=code, severity=severity, message=f": {message}", level=1
    )
    return Occurrence(problem=problem, label=f"fails for n={size}", size=size, cause=cause)


def told(*found):
    return [str(problem) for problem in once_each(found)]


def test_messages_that_differ_in_numbers_are_one():
    """The smallest case is shown, wherever it stands; one without elements shows the least."""
    found = [
        occurred(size, f"{size} of 64 are off by {off}")
        for size, off in ((64, "1.5e-3"), (0, "nan"), (4, "inf"))
    ]
    assert told(*found) == ["a.py:3: KP240 fails for n=4 and 2 more: 4 of 64 are off by inf"]


def test_one_and_several_are_one_cause():
    found = [
        occurred(4, "2 codes apart; 4 of 8 are off"),
        occurred(2, "1 code apart; 1 of 8 is off"),
    ]
    assert told(*found) == ["a.py:3: KP240 fails for n=2 and 1 more: 1 code apart; 1 of 8 is off"]


def test_the_place_is_that_of_the_case_that_is_shown():
    assert told(occurred(8, "no", line=9), occurred(4, "no", line=5)) == [
        "a.py:5: KP240 fails for n=4 and 1 more: no"
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"message": "other words"},
        {"path": "b.py"},
        {"code": "KP241"},
        {"severity": "unverified"},
        {"cause": "field"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_what_differs_in_more_is_two(other):
    assert len(told(occurred(4, "no"), occurred(8, **{"message": "no", **other}))) == 2


def test_a_cause_that_is_named_joins_what_differs_in_words():
    assert told(occurred(4, "one", cause="field"), occurred(8, "two", cause="field")) == [
        "a.py:3: KP240 fails for n=4 and 1 more: one"
    ]


def test_what_is_found_twice_counts_once():
    assert told(occurred(4, "no"), occurred(4, "no")) == ["a.py:3: KP240 fails for n=4: no"]
