"""What tensors of an `init` can hold, said before any is made; no torch."""

# ruff: noqa: E501  # messages are asserted as whole lines

from __future__ import annotations

from functools import partial

import pytest

from kernelpkg.expr.language import evaluate, parse_expr
from kernelpkg.manifest.inits import init_problem, numbers_of, takes_numbers
from kernelpkg.manifest.spec import ArgVariant


def variant(init, bits=None, **numbers):
    exprs = {key: parse_expr(str(value)) for key, value in numbers.items()}
    return ArgVariant(init=init, bits=bits, **exprs)


VALUES = {"n": 5}


@pytest.mark.parametrize(
    ("arg", "shape", "dtype", "problem"),
    [
        (variant("randint", high="n"), (3,), "int64", None),
        (variant("randint", low=-4, high=-2), (3,), "int8", None),
        (variant("randint", low="n", high=5), (3,), "int8", "has no value from 5 to below 5"),
        (variant("randint", low="n", high=5), (0,), "int8", None),
        (variant("sorted", high=0), (2, 2), "int8", "has no value from 0 to below 0"),
        (variant("permutation"), (2, 3), "int16", None),
        (variant("permutation", high=6), (2, 3), "int32", None),
        (variant("permutation", high="n"), (2, 3), "int32", "has 6 elements, and 5 values are below its 'high'"),
        (variant("permutation", high=1), (2,), "int32", "has 2 elements, and 1 value is below its 'high'"),
        (variant("permutation"), (2, 3), "bfloat16", "has dtype bfloat16, and init 'permutation' makes int8, uint8, int16, int32 or int64"),
        (variant("offsets", total="n"), (3,), "int32", None),
        (variant("offsets", total=0), (1,), "int64", None),
        (variant("offsets", total="n"), (1,), "int64", "has offsets of no runs that cannot end at 5"),
        (variant("offsets", total="n - 6"), (4,), "int64", "has offsets of runs that cannot end at -1"),
        (variant("offsets", total=2**31), (4,), "int64", None),
        (variant("offsets", total=2**31), (4,), "int32", "has offsets up to 2147483648, which int32 does not hold"),
        (variant("offsets", total=4), (4,), "int16", "has dtype int16, and init 'offsets' makes int32 or int64"),
        (variant("offsets", total=0), (0,), "int32", "has shape [0], and offsets are a vector of one more than there are runs"),
        (variant("offsets", total=4), (2, 2), "int32", "has shape [2, 2], and offsets are a vector of one more than there are runs"),
        (variant("packed", bits=4), (2,), "uint8", None),
        (variant("packed", bits=4, low=-8, high=8), (2,), "int32", None),
        (variant("packed", bits=4, low=-9), (2,), "int32", "has codes from -9 to 7, which 4 bits do not hold"),
        (variant("packed", bits=2, high="n"), (2,), "int8", "has codes from 0 to 4, which 2 bits do not hold"),
        (variant("packed", bits=1, high="n"), (2,), "int8", "has codes from 0 to 4, which 1 bit does not hold"),
        (variant("packed", bits=3), (2,), "int8", "has 8 bits an element, which are not codes of 3"),
        (variant("packed", bits=16), (2,), "uint8", "has 8 bits an element, which are not codes of 16"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(arg, shape, dtype, problem):
    """No values, too few of them, offsets that cannot be, and codes that are too wide."""
    value_of = partial(evaluate, values=VALUES)
    assert takes_numbers(arg)
    assert init_problem(arg, shape, dtype, value_of) == problem


def test_codes_end_where_their_bits_do():
    """With a negative code, they are signed."""
    value_of = partial(evaluate, values=VALUES)
    assert numbers_of(variant("packed", bits=4), value_of) == {"bits": 4, "high": 16}
    found = numbers_of(variant("packed", bits=4, low=-7), value_of)
    assert found == {"bits": 4, "low": -7, "high": 8}
    assert numbers_of(variant("randn"), value_of) == {}
    assert not takes_numbers(variant("randn"))
