"""The values of a map: ratios, origins, and what makes two calls one stretch."""

from __future__ import annotations

import math

import pytest
from attrs import evolve

from kernelpkg.configs.selection import Chosen
from kernelpkg.report.coveragemap import OUTCOMES, Answer, Cell, Move, Row, farthest, tally

CHOSEN = Chosen(
    config_id="a",
    config={"num_warps": 4},
    outcome="exact",
    mode="tuned",
    platform="nvidia_h200",
    key={"n": 4},
    reason="exact case n=4",
)


def move(value, to, *, axis="n", extrapolated=True):
    return Move(axis=axis, value=value, to=to, extrapolated=extrapolated)


@pytest.mark.parametrize(
    ("value", "to", "ratio"),
    [(16, 4, 4.0), (1, 4, 4.0), (4, 4, 1.0), (0, 4, math.inf), (-2, 4, math.inf),
     (2, 0.5, 4.0), (True, False, 1.0), ("int8", "float16", 1.0), (None, 4, 1.0)],
    ids=str,
)  # fmt: skip
def test_a_ratio_is_the_larger_over_the_smaller(value, to, ratio):
    assert move(value, to).ratio == ratio


ORIGINS = {
    "tuned": (CHOSEN, "tuned"),
    "variant": (evolve(CHOSEN, outcome="default"), "variant"),
    "empty": (evolve(CHOSEN, outcome="default", key={}), "empty"),
    "borrowed": (evolve(CHOSEN, outcome="default", mode="default"), "borrowed"),
    "manifest": (evolve(CHOSEN, mode="default", platform=None, key=None), "manifest"),
    "helion": (evolve(CHOSEN, mode="default", platform=None, config=None, key=None), "helion"),
    "none": (None, "none"),
}


@pytest.mark.parametrize(("chosen", "origin"), ORIGINS.values(), ids=ORIGINS)
def test_where_a_config_comes_from(chosen, origin):
    assert Answer(outcome="default", chosen=chosen).origin == origin


def test_calls_of_one_stretch_have_one_case_and_one_outcome():
    """How far they are from it does not part them, nor does the value of another axis' move."""
    one = Answer(outcome="extrapolated", chosen=CHOSEN, moves=(move(9, 4),))
    further = evolve(one, moves=(move(90, 4),))
    inside = evolve(one, moves=(move(3, 4, extrapolated=False), move(9, 4, axis="other")))
    assert one.kind("n") == further.kind("n")
    assert one.kind("n") != inside.kind("n")
    assert one.kind("n") != evolve(one, outcome="bucketed").kind("n")
    assert one.kind("n") != evolve(one, chosen=evolve(CHOSEN, key={"n": 8})).kind("n")
    refused = Answer(outcome="refused", guard="guard 'n < 4' refuses it")
    assert refused.kind("n") != evolve(refused, guard="guard 'n < 5' refuses it").kind("n")


def test_rows_are_counted_and_the_farthest_move_is_found():
    """Each outcome is counted, in order; moves that do not extrapolate do not count as far."""
    answers = [
        Answer(outcome="exact", chosen=CHOSEN),
        Answer(outcome="bucketed", chosen=CHOSEN, moves=(move(1, 99, extrapolated=False),)),
        Answer(outcome="extrapolated", chosen=CHOSEN, moves=(move(8, 4), move(4, 12))),
    ]
    row = Row(axes={}, cells=tuple(Cell(value=1, answer=a) for a in answers), line=())
    assert tuple(tally([row, row])) == OUTCOMES
    assert tally([row, row]) == {
        "exact": 2, "bucketed": 2, "extrapolated": 2, "default": 0, "missing": 0, "refused": 0,
    }  # fmt: skip
    assert farthest([row]) == move(4, 12)
    assert farthest([]) is None
