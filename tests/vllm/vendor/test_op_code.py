"""Python code as text: laid out as ruff's formatter would, and expressions as people write them."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
from attrs import evolve

from kernelpkg.expr.language import parse_expr
from kernelpkg.manifest.guards import compile_axes
from kernelpkg.manifest.opschema import parse_schema
from kernelpkg.manifest.spec import Axis
from kernelpkg.packs.read import read_kernel
from kernelpkg.vllm.vendor.op_code import (
    WIDTH,
    Unsayable,
    assign,
    axis_codes,
    call,
    collection,
    comment,
    flat,
    heading,
    lay,
    python,
    unhidden,
)

LONG = "a_name_thats_long"

DOCS = {
    "fits": call("f", "a", "b"),
    "arguments share a line": call("function", *[LONG] * 4),
    "arguments have lines of their own": call("function", *[LONG] * 5),
    "items never share a line": collection("[]", [LONG] * 5),
    "one argument gets no comma": call("Key", collection("{}", [f'"{LONG}": {LONG}'] * 3)),
    "a long value has parentheses": " + ".join([LONG] * 4),
    "a condition is broken before its operators": (
        " and ".join([LONG] * 3) + f" and not ({LONG} and a)"
    ),
    "a condition is broken before all of its words": (
        f"{LONG} or {LONG} and ({LONG} or a) and b or {LONG} and c"
    ),
    "a sum is broken before its signs": (
        f"{LONG} * 2 + {LONG} - ({LONG} + 1) * {LONG} + {LONG} // 128"
    ),
    "a choice is broken before its words": (
        f"None if {LONG} is None or {LONG} is None else {LONG}.shape[0] + 1"
    ),
}


def test_layouts_are_those_of_ruff():
    """Its formatter makes of everything on one line what we write."""
    flats = [f"    a_name = {flat(doc)}" for doc in DOCS.values()]
    ruff = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", str(WIDTH), "-"]
    text = "\n".join(["if True:", *flats, ""])
    done = subprocess.run(ruff, input=text, capture_output=True, text=True, check=True)
    ours = [line for doc in DOCS.values() for line in assign("a_name", doc)]
    assert done.stdout.split("\n") == ["if True:", *ours, ""]
    assert len(ours) > 4 * len(DOCS)


def test_a_piece_stands_between_others():
    doc = call("product", f"[{LONG}]", "[1, 2]")
    line = f"for a, b in product([{LONG}], [1, 2]):"
    assert [*lay(doc, before="for a, b in ", after=":")] == [line]


def test_a_tuple_of_one_keeps_its_comma():
    assert flat(collection("()", ["a"])) == "(a,)"
    assert flat(collection("()", ["a", "b"])) == "(a, b)"
    assert flat(call("f", "a")) == "f(a)"


def test_a_file_begins_with_its_license():
    """Lines of the docstring are wrapped, and nothing ends it early."""
    owner = "# SPDX-FileCopyrightText: Copyright contributors to the vLLM project"
    assert heading("MIT", "From here.", "Short.") == [
        "# SPDX-License-Identifier: MIT", owner, "# From here.", '"""Short."""'
    ]  # fmt: skip
    assert heading("MIT", "x", 'Ends in a "quote"')[3:] == ['"""Ends in a "quote"', '"""']
    assert heading("MIT", "x", 'Back\\slash and """.')[3:] == ['"""Back\\\\slash and \'\'\'."""']
    assert heading("MIT", "x", "word " * 20)[3:] == [
        '"""' + " ".join(["word"] * 17), " ".join(["word"] * 3), '"""'
    ]  # fmt: skip


def test_comments_are_wrapped():
    lines = comment("word " * 30, 4)
    assert lines == ["    # " + " ".join(["word"] * 16), "    # " + " ".join(["word"] * 14)]


def test_names_hide_nothing():
    """A name that is taken gets an underscore, and another where that is a name as well."""
    assert unhidden(["a", "max", "max_", "b"], {"max"}) == {
        "a": "a",
        "max": "max__",
        "max_": "max_",
        "b": "b",
    }


BASE = read_kernel(Path(__file__).parents[2] / "golden" / "good", "x")
SCHEMA = parse_schema("(Tensor(a!) out, Tensor x, Tensor? y, int n, int? m, bool flag) -> ()")


def spec_of(*texts):
    """Return a kernel with an axis for each expression."""
    axes = tuple(Axis(name=f"a{place}", expr=parse_expr(text)) for place, text in enumerate(texts))
    return evolve(BASE, schema=SCHEMA, axes=axes)


AXES = {
    "size": ("x.shape[0]", ..., "whole"),
    "argument": ("n", ..., "whole"),
    "dtype": ("x.dtype", 'str(x.dtype).removeprefix("torch.")', "dtype"),
    "dtype compared": ("x.dtype == bfloat16", "x.dtype == torch.bfloat16", "flag"),
    "dtype listed": (
        "x.dtype in [int8, bfloat16]", "x.dtype in [torch.int8, torch.bfloat16]", "flag",
    ),
    "dtypes of two": ("x.dtype == out.dtype", ..., "flag"),
    "arithmetic": ("x.shape[-1] // (2 * n)", ..., "whole"),
    "precedence": (
        "(n - (2 - n)) * -n // (n * 2) % (-(n + 1)) == 1 and (n > 1 or not (n > 2 and n > 3))",
        "(n - (2 - n)) * -n // (n * 2) % -(n + 1) == 1 and (n > 1 or not (n > 2 and n > 3))",
        "flag",
    ),
    "methods": ("x.numel() % 2 == 0 and not x.is_contiguous()", ..., "flag"),
    "presence": ("y is not None", ..., "flag"),
    "optional scalar": ("m", ..., "whole?"),
    "optional size": ("y.shape[0]", "None if y is None else y.shape[0]", "whole?"),
    "two optional": (
        "y.shape[0] + m", "None if y is None or m is None else y.shape[0] + m", "whole?",
    ),
    "tested before": ("y is not None and y.shape[0] > 1", ..., "flag"),
    "tested for absence": ("y is None or y.shape[0] > 1", ..., "flag"),
    "tested and negated": (
        "not (y is None) and y.ndim == 2", "y is not None and y.ndim == 2", "flag",
    ),
    "linters' order": (
        "1 < n and not (n in [3, 4]) and not n == 5 and 2 == n % 4",
        "n > 1 and n not in [3, 4] and n != 5 and n % 4 == 2",
        "flag",
    ),
    "read, then read again": (
        "y.ndim == 2 and y.shape[0] > 1",
        "None if y is None else y.ndim == 2 and y.shape[0] > 1",
        "flag?",
    ),
}  # fmt: skip
"""Expressions, their code, where it is another text, and their types, with `?` if nullable."""


@pytest.mark.parametrize(("text", "code", "kind"), AXES.values(), ids=AXES)
def test_axes_read_as_people_would_read_them(text, code, kind):
    """Dtypes are texts on their own, and torch's where they are compared."""
    found = axis_codes(spec_of(text), {})["a0"]
    assert found.code == (text if code is ... else code)
    assert f"{found.type}{'?' * found.nullable}" == kind


class Dtype(str):
    """A dtype as it prints itself."""

    __slots__ = ()


def tensor(*shape, dtype="bfloat16"):
    size = 1
    for part in shape:
        size *= part
    return SimpleNamespace(
        shape=shape,
        ndim=len(shape),
        dtype=Dtype(f"torch.{dtype}"),
        numel=lambda: size,
        is_contiguous=lambda: shape[0] > 2,
    )


def test_both_forms_agree_on_every_call():
    """With and without the optional arguments, for each axis of the table."""
    texts = [text for text, *_ in AXES.values()]
    spec = spec_of(*texts)
    read, codes = compile_axes(spec), axis_codes(spec, {})
    torch = SimpleNamespace(**{n: Dtype(f"torch.{n}") for n in ("int8", "bfloat16", "float16")})
    xs = [tensor(4, 6), tensor(1, 5, dtype="int8")]
    calls = product(xs, [None, tensor(3, 2), tensor(1)], [1, 3], [None, 0, 7], [True, False])
    for x, y, n, m, flag in calls:
        args = {"out": tensor(4, 6), "x": x, "y": y, "n": n, "m": m, "flag": flag}
        found = [eval(code.code, {"torch": torch, **args}) for code in codes.values()]
        assert found == list(read(*args.values())), args


@pytest.mark.parametrize(
    "text", ["n > 1 and y.shape[0] > 1", "n > 1 or m > 1", "1 < n < m"], ids=["and", "or", "chain"]
)
def test_a_condition_before_a_reading_is_refused(text):
    """Whether the axis has a value would depend on the call in a way that takes lines to say."""
    name = "y" if "y" in text else "m"
    wanted = f"axis 'a0' reads '{name}' for some calls only; test '{name} is not None' before it"
    with pytest.raises(Unsayable, match=f"^{wanted}$"):
        axis_codes(spec_of(text), {})


def test_names_are_those_of_the_code_around():
    expr = parse_expr("max + x.shape[0]")
    assert python(expr, {"max": "max_"}) == "max_ + x.shape[0]"
    assert python(parse_expr("kind"), {"kind": "kind_"}, dtypes=True) == "getattr(torch, kind_)"
    assert python(parse_expr("int8"), dtypes=True) == "torch.int8"
    assert python(parse_expr("kind == int8")) == 'kind == "int8"'
