"""The types of expressions, and what cannot be done with a value of a type."""

# ruff: noqa: E501  # messages are asserted as whole lines

from __future__ import annotations

import pytest

from kernelpkg.expr.language import parse_expr
from kernelpkg.expr.types import Scope, infer, value_problem, wants

SCOPE = Scope(
    tensors=frozenset(["x", "residual"]),
    scalars={"eps": "number", "group": "whole", "neox": "flag", "bound": "number", "act": "text"},
    lists=frozenset(["shifts"]),
    optional=frozenset(["residual", "bound"]),
    axes={"size": "whole", "out_dtype": "dtype", "broken": None, "has_bound": "flag"},
)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("1", "whole"),
        ("1.5", "number"),
        ("True", "flag"),
        ("int8", "dtype"),
        ("size", "whole"),
        ("eps", "number"),
        ("neox", "flag"),
        ("x.shape[0]", "whole"),
        ("x.ndim", "whole"),
        ("x.numel()", "whole"),
        ("x.stride(0)", "whole"),
        ("x.is_contiguous()", "flag"),
        ("x.dtype", "dtype"),
        ("size // group", "whole"),
        ("size * eps", "number"),
        ("-eps", "number"),
        ("neox + 1", "whole"),
        ("shifts[0] + len(shifts)", "whole"),
        ("shifts[-1] > 0", "flag"),
        ("'silu'", "text"),
        ("act", "text"),
        ("act in ['silu', 'relu'] or act == 'gelu'", "flag"),
        ("not size", "flag"),
        ("neox and has_bound", "flag"),
        ("size and group", "whole"),
        ("size or eps", "number"),
        ("size == group", "flag"),
        ("out_dtype in [int8, x.dtype]", "flag"),
        ("residual is None", "flag"),
        ("bound is not None", "flag"),
        ("size is None", "flag"),
    ],
)
def test_an_expression_has_its_type(text, kind):
    """What fits has a type and no problems."""
    assert infer(parse_expr(text), SCOPE) == (kind, ())


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("sise", "KP121", "name 'sise' is not known here; did you mean 'size'?"),
        ("q + 1", "KP121", "name 'q' is not known here; known are act, bound, broken, eps, group, has_bound, neox, out_dtype, residual, shifts, size, x"),
        ("out_dtype == float23", "KP121", "name 'float23' is not known here; did you mean 'float32'?"),
        ("y.ndim", "KP121", "name 'y' is not known here; known are act, bound, broken, eps, group, has_bound, neox, out_dtype, residual, shifts, size, x"),
        ("rsidual is None", "KP121", "name 'rsidual' is not known here; did you mean 'residual'?"),
        ("act in [silu]", "KP121", "name 'silu' is not known here; write a text in quotes, as in 'silu'"),
        ("silu == act", "KP121", "name 'silu' is not known here; write a text in quotes, as in 'silu'"),
        ("size.ndim", "KP121", "axis 'size' is a value and has no attributes"),
        ("eps.shape[0]", "KP121", "argument 'eps' is a number and has no attributes"),
        ("x is None", "KP121", "argument 'x' is always given; remove the test for None"),
        ("eps is None", "KP121", "argument 'eps' is always given; remove the test for None"),
        ("x + 1", "KP121", "tensor 'x' is not a value; read its shape[i], ndim, dtype, numel(), stride(i) and is_contiguous()"),
        ("out_dtype * 9", "KP122", "'out_dtype * 9' uses a dtype as a number"),
        ("-x.dtype", "KP122", "'-x.dtype' uses a dtype as a number"),
        ("not int8", "KP122", "'not int8' uses a dtype as a number"),
        ("neox and int8", "KP122", "'neox and int8' uses a dtype as a number"),
        ("size in [int8]", "KP122", "'size in [int8]' compares a dtype with a number, or by size"),
        ("int8 < out_dtype", "KP122", "'int8 < out_dtype' compares a dtype with a number, or by size"),
        ("size == int8", "KP122", "'size == int8' compares a dtype with a number, or by size"),
        ("act + 1", "KP122", "'act + 1' uses a text as a number"),
        ("not act", "KP122", "'not act' uses a text as a number"),
        ("act < 'silu'", "KP122", "'act < 'silu'' compares a text with a number, or by size"),
        ("act in ['silu', 4]", "KP122", "'act in ['silu', 4]' compares a text with a number, or by size"),
        ("out_dtype in ['int8']", "KP122", "'out_dtype in ['int8']' compares a dtype with a text; write names of dtypes without quotes"),
        ("act == int8", "KP122", "'act == int8' compares a dtype with a text; write names of dtypes without quotes"),
        ("size % ('a' * 9999999999)", "KP122", "''a' * 9999999999' uses a text as a number"),
        ("shifts", "KP121", "list 'shifts' is not a value; read its elements, as in x[0], and len(x)"),
        ("shifts.ndim", "KP121", "list 'shifts' has no attributes; read its elements, as in x[0], and len(x)"),
        ("size[0]", "KP121", "'size' is a value and has no elements"),
        ("len(act)", "KP121", "'act' is a value and has no elements"),
        ("x[0]", "KP121", "tensor 'x' is not a list; read its shape[i], ndim, dtype, numel(), stride(i) and is_contiguous()"),
        ("len(shift)", "KP121", "name 'shift' is not known here; did you mean 'shifts'?"),
        ("shifts is None", "KP121", "argument 'shifts' is always given; remove the test for None"),
        ("act.ndim", "KP121", "argument 'act' is a text and has no attributes"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_once(text, code, message):
    """A wrong name or type gives one line, however often it stands there."""
    assert infer(parse_expr(text), SCOPE)[1] == ((code, message),)
    twice = infer(
        parse_expr(f"({text}) == 1 or ({text}) == 1" if "int8" not in text else text), SCOPE
    )
    assert [problem for problem in twice[1] if problem == (code, message)] == [(code, message)]


def test_an_axis_that_is_wrong_itself_fits_everywhere():
    """One mistake gives one line: what depends on it is not judged."""
    assert infer(parse_expr("broken * 2 + size"), SCOPE) == (None, ())
    assert infer(parse_expr("broken == int8"), SCOPE) == ("flag", ())
    assert wants(None, "whole") is None


@pytest.mark.parametrize(
    ("found", "wanted", "message"),
    [
        ("whole", "whole", None),
        ("whole", "number", None),
        ("number", "whole", "is a number, and must be a whole number"),
        ("flag", "whole", "is true or false, and must be a whole number"),
        ("flag", "number", "is true or false, and must be a number"),
        ("dtype", "flag", "is a dtype, and must be true or false"),
        ("whole", "dtype", "is a whole number, and must be a dtype"),
    ],
)
def test_only_a_whole_number_stands_for_another_type(found, wanted, message):
    """Nothing is converted, but a whole number is a number."""
    assert wants(found, wanted) == message


@pytest.mark.parametrize(
    ("value", "wanted", "message"),
    [
        (4, "whole", None),
        (4, "number", None),
        (0.5, "number", None),
        (True, "flag", None),
        ("int8", "dtype", None),
        ("int9", "dtype", "has value 'int9', which is not a dtype; did you mean 'int8'?"),
        ("q", "dtype", "has value 'q', which is not a dtype; dtypes are spelled as in PyTorch"),
        ("q", "text", None),
        ("q", None, None),
        ("q\n", "text", "has value 'q\\n', with characters that are not shown"),
        (4, "text", "has value 4, which is a whole number, and must be a text"),
        (0.5, "whole", "has value 0.5, which is a number, and must be a whole number"),
        (True, "whole", "has value true, which is true or false, and must be a whole number"),
        (1, "flag", "has value 1, which is a whole number, and must be true or false"),
        ("int8", "whole", "has value int8, which is a dtype, and must be a whole number"),
        (4, None, None),
    ],
)
def test_values_of_axes_have_their_type(value, wanted, message):
    """A value that no call can have is refused."""
    assert value_problem(value, wanted) == message
