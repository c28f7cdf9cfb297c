"""What expressions may be over ranges, and from where on conditions hold."""

from __future__ import annotations

import math

import pytest

from kernelpkg.expr.intervals import FLAGS, LARGEST, SIZE, WHOLE, Range, extent, pieces, value_of
from kernelpkg.expr.language import parse_expr

HOLDS, FAILS = Range(True, True), Range(False, False)
KNOWN = {
    "n": Range(1, 10),
    "k": Range(-3, 3),
    "size": SIZE,
    "any": WHOLE,
    "flag": FLAGS,
    "dtype": "int8",
    "absent": None,
}

VALUES = {
    "number": ("7", Range(7, 7)),
    "name": ("n", Range(1, 10)),
    "size-of-a-tensor": ("x.shape[0]", SIZE),
    "elements": ("x.numel()", SIZE),
    "dtype-of-a-tensor": ("x.dtype", None),
    "layout": ("x.is_contiguous()", FLAGS),
    "minus": ("-n", Range(-10, -1)),
    "sum": ("n + k", Range(-2, 13)),
    "difference": ("n - k", Range(-2, 13)),
    "product": ("n * k", Range(-30, 30)),
    "product-with-nothing": ("size * 0", Range(0, 0)),
    "quotient": ("n // 3", Range(0, 3)),
    "quotient-of-sizes": ("x.numel() // x.shape[-1]", SIZE),
    "quotient-below-zero": ("k // 2", Range(-2, 1)),
    "quotient-by-all": ("n // any", None),
    "remainder": ("n % 4", Range(0, 4)),
    "remainder-of-one": ("11 % 4", Range(3, 3)),
    "unknown": ("n + absent", None),
    "holds": ("n >= 1", HOLDS),
    "fails": ("n > 10", FAILS),
    "open": ("n > 9", FLAGS),
    "chain": ("0 < n < 11", HOLDS),
    "chain-that-fails": ("0 < n < 1", FAILS),
    "dtype-equal": ("dtype == int8", HOLDS),
    "dtype-in": ("dtype in [float32, float16]", FAILS),
    "not-in": ("n not in [11, 12]", HOLDS),
    "in-one-of-them": ("n in [3, 12]", FLAGS),
    "and": ("flag and n > 10", FAILS),
    "or": ("flag or n >= 1", HOLDS),
    "not": ("not n > 10", HOLDS),
    "of-numbers": ("n and k", None),
    "given": ("n is not None", HOLDS),
    "absent": ("absent is None", FLAGS),
}


@pytest.mark.parametrize(("text", "found"), VALUES.values(), ids=VALUES)
def test_an_expression_is_in_its_extent(text, found):
    """Flags are True and False, and numbers 1 and 0."""
    assert repr(extent(parse_expr(text), KNOWN)) == repr(found)


def test_infinite_ranges_stay_numbers():
    """No operation on ranges without end makes what is not a number."""
    for text in ("size // size", "any // size", "size * any", "any - any", "size - size", "-any"):
        found = extent(parse_expr(text), KNOWN)
        assert isinstance(found, Range)
        assert not math.isnan(found.low)
        assert not math.isnan(found.high)


@pytest.mark.parametrize(
    ("value", "found"),
    [(True, HOLDS), (4, Range(4, 4)), (0.5, Range(0.5, 0.5)), ("int8", "int8"),
     (None, None)],
    ids=str,
)  # fmt: skip
def test_one_value_is_known_as_itself(value, found):
    assert repr(value_of(value)) == repr(found)


PIECES = {
    "always": ("x >= 1", [(1, True)]),
    "never": ("x < 0", [(1, False)]),
    "bound": ("x <= 512", [(1, True), (513, False)]),
    "least": ("x >= 7", [(1, False), (7, True)]),
    "product": ("x * 3 <= 10_000", [(1, True), (3334, False)]),
    "quotient": ("x // 8 <= 4", [(1, True), (40, False)]),
    "one-value": ("x != 9", [(1, True), (9, False), (10, True)]),
    "some-values": ("x in [1, 2, 64]", [(1, True), (3, False), (64, True), (65, False)]),
    "with-another": ("x + n <= 64", [(1, True), (61, False)]),
    "largest": ("x < 9223372036854775807", [(1, True), (LARGEST, False)]),
    "repeats": ("x % 8 == 0", [(1, None)]),
    "repeats-as-quotient": ("x // 8 * 8 == x", [(1, None)]),
    "bound-and-repeats": ("x <= 512 and x % 8 == 0", [(1, None)]),
    "may-divide-by-zero": ("64 // (x - 5) > 1", [(1, None)]),
    "reads-what-is-absent": ("x > 5 or absent > 3", [(1, None)]),
}


@pytest.mark.parametrize(("text", "found"), PIECES.values(), ids=PIECES)
def test_conditions_hold_from_somewhere_on(text, found):
    """Bounds are told exactly, and nothing is told of what repeats or may have no value."""
    known = {"n": value_of(4), "absent": None}
    assert list(pieces(parse_expr(text), known, "x", 1)) == found


def test_pieces_begin_where_they_are_asked_to():
    assert list(pieces(parse_expr("x > -2"), {}, "x", -5)) == [(-5, False), (-1, True)]
