"""The expression language: what is in it, what is refused and how, and what compiled code gives."""

from __future__ import annotations

import pytest

from kernelpkg.expr.language import (
    DTYPES,
    ExprError,
    compile_exprs,
    dtype_name,
    evaluate,
    parse_expr,
)


class Tensor:
    """What expressions read of a tensor."""

    dtype = "torch.bfloat16"
    ndim = 2
    shape = (4, 128)

    def numel(self):
        return 512

    def stride(self, place):
        return (128, 1)[place]

    def is_contiguous(self):
        return True


VALUES = {"x": Tensor(), "n": 12, "f": 0.5, "flag": True, "absent": None}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("n", 12),
        ("-n", -12),
        ("2 * (n + 3) - 1", 29),
        ("2 * n + 3 - 1", 26),
        ("n - (3 - 1)", 10),
        ("n // 5 % 2", 0),
        ("-n // 5", -3),
        ("n * f", 6.0),
        ("1e-6", 1e-6),
        ("x.shape[0]", 4),
        ("x.shape[-1]", 128),
        ("x.ndim", 2),
        ("x.numel() // x.shape[-1]", 4),
        ("x.stride(0)", 128),
        ("x.stride(-1)", 1),
        ("x.is_contiguous()", True),
        ("x.dtype", "bfloat16"),
        ("bfloat16", "bfloat16"),
        ("x.dtype == bfloat16", True),
        ("x.dtype in [float16, float32]", False),
        ("x.dtype not in [float16, float32]", True),
        ("n in []", False),
        ("n in [x.shape[0] * 3]", True),
        ("1 < n <= 12", True),
        ("1 < n <= 11", False),
        ("not flag or n == 12 and f < 1", True),
        ("(not flag or n == 12) and f > 1", False),
        ("not flag", False),
        ("x is None", False),
        ("x is not None", True),
        ("absent is None", True),
        ("absent", None),
        ("absent + 1", None),
        ("absent.shape[0]", None),
        ("absent is not None and absent.ndim == 2", False),
        ("  n\t", 12),
    ],
)
def test_an_expression_has_its_value(text, value):
    """Each part of the language means what it means in Python."""
    found = evaluate(parse_expr(text), VALUES)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n\n+ 1", "has '\\n'; expressions are one line of ASCII"),
        ("n ≥ 1", "has '\\u2265'; expressions are one line of ASCII"),
        ("n\0", "has '\\x00'; expressions are one line of ASCII"),
        ("n / 2", "uses 'n / 2', which is not in the language"),
        ("n ** 2", "uses 'n ** 2', which is not in the language"),
        ("n << 2", "uses 'n << 2', which is not in the language"),
        ("~n", "uses '~n', which is not in the language"),
        ("n if flag else 1", "uses 'n if flag else 1', which is not in the language"),
        ("lambda: n", "uses 'lambda: n', which is not in the language"),
        ("(n := 1)", "uses '(n := 1)', which is not in the language"),
        ("[i for i in x]", "uses '[i for i in x]', which is not in the language"),
        ("(n, n)", "uses '(n, n)', which is not in the language"),
        ("{n}", "uses '{n}', which is not in the language"),
        ("f'{n}'", "uses 'f'{n}'', which is not in the language"),
        ("...", "uses '...', which is not in the language"),
        ("1j", "uses '1j', which is not in the language"),
        ("max(n, 1)", "uses 'max(n, 1)', which is not in the language"),
        ("x[n]", "has index 'n'; an index is a whole number"),
        ("len(x, y)", "uses 'len(x, y)', which is not in the language"),
        ("len(x.shape)", "uses 'len(x.shape)', which is not in the language"),
        ("mode == 'a\\n'", "has a text with characters that are not shown"),
        ("[1, 2]", "has a list in other places than after 'in'"),
        ("n == [1]", "has a list in other places than after 'in'"),
        ("n in x", "needs a list in brackets after 'in'"),
        ("n in [1] in [2]", "has 'in' in a chain of comparisons; join them with 'and'"),
        ("n in [[1]]", "has a list in other places than after 'in'"),
        ("None", "uses None other than in 'is None' and 'is not None'"),
        ("n in [None]", "uses None other than in 'is None' and 'is not None'"),
        ("x == None", "compares to None with other than 'is' and 'is not'"),
        ("x is n", "uses 'is' with other than None"),
        ("x.shape[0] is None", "tests something other than one name for None"),
        ("int8 is None", "tests something other than one name for None"),
        ("x is None is None", "tests something other than one name for None"),
        ("x.shape", "reads a whole shape; read one size, as in 'x.shape[0]'"),
        ("x.shape[n]", "has index 'n'; an index is a whole number"),
        ("x.shape[True]", "has index 'True'; an index is a whole number"),
        ("x.shape[0:1]", "has index '0:1'; an index is a whole number"),
        ("x.shape[+1]", "has index '+1'; an index is a whole number"),
        ("x.stride(99)", "has index '99'; 64 dimensions or elements are the most"),
        ("n // 0", "divides by zero in 'n // 0'"),
        ("n < -9223372036854775808", "has a whole number of more than 64 bits"),
        (f"n < 0x{'f' * 900}", "has a whole number of more than 64 bits"),
        ("n % (2 - 2)", "divides by zero in 'n % (2 - 2)'"),
        ("n % -0.0", "divides by zero in 'n % -0.0'"),
        ("n // (1 // (1 - 1))", "divides by zero in '1 // (1 - 1)'"),
        ("1e999", "has a number that is not finite"),
        ("n " + "+ 1 " * 300, "is longer than 1000 characters; name parts of it in [axes]"),
        ("(" * 45 + "n" + "+1)" * 45, "is nested too deeply; name parts of it in [axes]"),
        ("not " * 45 + "n", "is nested too deeply; name parts of it in [axes]"),
    ],
)
def test_what_is_not_in_the_language_is_named(text, message):
    """A text outside of the language is refused, with the part that is not in it."""
    with pytest.raises(ExprError) as caught:
        parse_expr(text)
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["", "n +", "n; n", "n = 1", "import os", "n)", "1" * 900 + "q"])
def test_what_is_no_expression_of_python_does_not_parse(text):
    """Python's own words, which differ between its versions, follow."""
    with pytest.raises(ExprError, match=r"^does not parse: ."):
        parse_expr(text)


@pytest.mark.parametrize("attribute", ["device", "T", "__class__", "data_ptr", "item"])
@pytest.mark.parametrize("form", ["x.{}", "x.{}()", "x.{}.shape[0]", "x.dtype.{}"])
def test_no_other_attribute_of_a_tensor_can_be_read(form, attribute):
    """Nothing leads from a tensor to what is not a fact of the call."""
    with pytest.raises(ExprError, match=r"uses '(\.|x\.)|whole shape"):
        parse_expr(form.format(attribute))


@pytest.mark.parametrize("text", ["x.numel(0)", "x.stride()", "x.stride(dim=0)", "x.stride(0, 1)"])
def test_methods_take_what_they_take(text):
    """A method with other arguments is refused."""
    with pytest.raises(ExprError, match=r"uses '\.(numel|stride)'"):
        parse_expr(text)


def test_names_come_in_order_without_dtypes():
    """The names that an expression reads are told once, in their order."""
    expr = parse_expr("b.shape[0] * a + b.ndim == 0")
    assert expr.names() == ("b", "a")
    assert parse_expr("y in [int8, x]").names() == ("y", "x")
    assert parse_expr("x is None").names() == ("x",)


def test_what_an_expression_is_can_be_asked():
    """A bare name, a test for presence, and a value that may be missing are told apart."""
    assert parse_expr("a").name == "a"
    assert parse_expr("(a)").name == "a"
    assert parse_expr("a + 1").name is None
    assert parse_expr("( a  is not None )").tested == "a"
    assert parse_expr("a is None").tested == "a"
    assert parse_expr("a == 1").tested is None
    assert parse_expr("not a").tested is None
    assert [parse_expr(text).can_fail for text in ("a * 2", "a // 2", "a - 1", "-a", "not a")] == [
        False,
        True,
        True,
        True,
        False,
    ]


def test_equal_texts_are_one_expression():
    """Kernels share what is made from a text."""
    assert parse_expr("a + 1") is parse_expr("a + 1")
    assert parse_expr("a + 1") == parse_expr(" a + 1 ")


def test_an_absent_argument_makes_each_expression_absent_alone():
    """An expression that reads what is absent has no value, and its neighbours keep theirs."""
    exprs = [parse_expr(text) for text in ("n", "absent.ndim", "absent is None", "n + absent")]
    read = compile_exprs(exprs, ["n", "absent"], nullable=frozenset(["absent"]))
    assert read(3, None) == (3, None, True, None)
    assert compile_exprs(exprs[:3], ["n", "absent"])(3, Tensor()) == (3, 2, False)
    guard = compile_exprs(exprs[1:2], ["absent"], nullable=frozenset(["absent"]), absent=False)
    assert guard(None) == (False,)


def test_names_of_the_compiled_code_cannot_be_hit():
    """Arguments may have any name, also those that the code uses itself."""
    names = ["given", "Absent", "dtype_name", "v0", "_v0", "compiled", "lamb"]
    exprs = [parse_expr(name) for name in names]
    read = compile_exprs(exprs, names, nullable=frozenset(names[:2]))
    assert read(*range(7)) == tuple(range(7))
    assert read(None, *range(6)) == (None, *range(6))


def test_division_by_zero_is_raised():
    """Who evaluates says for which case it was."""
    with pytest.raises(ZeroDivisionError):
        evaluate(parse_expr("1 // n"), {"n": 0})


def test_a_dtype_is_read_by_its_name():
    """Dtypes compare as texts, however the tensor spells them."""
    assert dtype_name("torch.float8_e4m3fn") == "float8_e4m3fn"
    assert dtype_name("int8") == "int8"
    assert all(evaluate(parse_expr(name), {}) == name for name in DTYPES)
