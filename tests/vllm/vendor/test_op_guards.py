"""Asserts at the top of vendored ops, written from [args] and [guard]."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from kernelpkg.expr.language import parse_expr
from kernelpkg.manifest.opschema import parse_schema
from kernelpkg.manifest.spec import ArgSpec, ArgVariant, Axis, Dim
from kernelpkg.packs.read import read_kernel
from kernelpkg.vllm.vendor.op_guards import write_guards
from kernelpkg.vllm.vendor.op_sources import Import

ROOT = Path(__file__).parents[3]
BASE = read_kernel(ROOT / "tests" / "golden" / "good", "x")
HL = (Import(module="helion.language", member=None, name="hl"),)


def variant(shape, dtype="float32", *, when=None, strides=None):
    """Return what a tensor is under a condition; a size that begins with a star is spread."""
    return ArgVariant(
        when=when and parse_expr(when),
        shape=tuple(
            Dim(expr=parse_expr(text.lstrip("*")), spread=text.startswith("*")) for text in shape
        ),
        dtype=parse_expr(dtype),
        strides=strides and tuple(None if s == "*" else parse_expr(s) for s in strides),
    )


def written(schema, axes, guards=(), spread=(), **args):
    """Return the asserts of a kernel, without their indentation in the function."""
    spec = evolve(
        BASE,
        schema=parse_schema(schema),
        axes=tuple(Axis(name=name, expr=parse_expr(text)) for name, text in axes.items()),
        guards=tuple(map(parse_expr, guards)),
        args=tuple(
            ArgSpec(name=name, variants=found if isinstance(found, tuple) else (found,))
            for name, found in args.items()
        ),
    )
    lines = write_guards(spec, spread, HL)
    assert all(line.startswith("    ") for line in lines)
    return [line[4:] for line in lines]


def test_ranks_come_first_then_guards_then_arguments():
    """Sizes that axes are read of go without saying, and so does a dtype."""
    assert written(
        "(Tensor(a!) out, Tensor x) -> ()",
        {"n": "x.shape[0]", "m": "x.shape[1]", "kind": "x.dtype"},
        ["m % 2 == 0", "kind in [int8, float32]"],
        out=variant(["n", "m // 2"]),
        x=variant(["n", "m"], "kind"),
    ) == [
        'assert x.ndim == 2, "x must be [n, m]"',
        'assert x.shape[1] % 2 == 0, "m % 2 == 0"',
        'assert x.dtype in [torch.int8, torch.float32], "kind in [int8, float32]"',
        'assert out.shape == (x.shape[0], x.shape[1] // 2), "out must be [n, m // 2]"',
        'assert out.dtype == torch.float32, "out must have dtype float32"',
        'assert out.is_contiguous(), "out must be contiguous"',
        'assert x.is_contiguous(), "x must be contiguous"',
    ]


def test_what_reads_into_an_optional_argument_waits_until_it_is_given():
    """Helion has no short cut behind `is None`; to ask whether it is given is no reading."""
    assert written(
        "(Tensor x, Tensor? y, int? k) -> ()",
        {"n": "x.shape[0]", "has_y": "y is not None"},
        ["not has_y or y.ndim == 1", "k > 1", "has_y or n > 2"],
        x=variant(["n"]),
        y=variant(["n"], when="has_y"),
    ) == [
        'assert x.ndim == 1, "x must be [n]"',
        "if y is not None:",
        '    assert y is None or y.ndim == 1, "not has_y or y.ndim == 1"',
        "if k is not None:",
        '    assert k > 1, "k > 1"',
        'assert y is not None or x.shape[0] > 2, "has_y or n > 2"',
        'assert x.dtype == torch.float32, "x must have dtype float32"',
        'assert x.is_contiguous(), "x must be contiguous"',
        "if y is not None:",
        '    assert y.shape == x.shape, "y must be [n]"',
        '    assert y.dtype == torch.float32, "y must have dtype float32"',
        '    assert y.is_contiguous(), "y must be contiguous"',
    ]


def test_conditions_decide_only_what_differs():
    """A condition that reads strides decides nothing: Helion 1.4 cannot tell it."""
    axes = {"n": "x.shape[0]", "tall": "x.stride(0) == 1 and x.stride(1) != 1"}
    shared = [
        'assert x.ndim == 2, "x must be [n, 4]"',
        'assert x.shape[1] == 4, "x must be [n, 4]"',
        'assert x.dtype == torch.float32, "x must have dtype float32"',
    ]

    def of(condition):
        tall = variant(["n", "4"], when=condition, strides=["1", "*"])
        both = (tall, variant(["n", "4"], strides=["*", "1"]))
        return written("(Tensor x, bool flag) -> ()", axes, x=both)

    assert of("tall") == shared
    assert of("flag") == [
        *shared,
        "if flag:",
        '    assert x.stride(0) == 1 if x.size(0) > 1 else True, "x must have strides [1, *]"',
        "else:",
        '    assert x.stride(1) == 1 if x.size(1) > 1 else True, "x must have strides [*, 1]"',
    ]


def test_an_argument_of_conditions_alone_needs_one_of_them():
    """A call where none holds has no description that it could fit."""
    both = (variant(["n"], when="n > 4"), variant(["n"], "int8", when="flag"))
    lines = written("(Tensor x, Tensor? y, bool flag) -> ()", {"n": "x.shape[0]"}, y=both)
    assert lines == [
        "if y is not None:",
        '    assert y.shape == (x.shape[0],), "y must be [n]"',
        '    assert y.is_contiguous(), "y must be contiguous"',
        '    assert x.shape[0] > 4 or flag, "y is only allowed when n > 4 or flag"',
        "if y is not None:",
        "    if x.shape[0] > 4:",
        '        assert y.dtype == torch.float32, "y must have dtype float32"',
        "    elif flag:",
        '        assert y.dtype == torch.int8, "y must have dtype int8"',
    ]


def test_sizes_that_another_argument_spreads_are_the_same():
    """Whatever the other sizes are; nothing is said where the other one is not given."""
    like = evolve(Dim(expr=parse_expr("n"), spread=True), like="x")
    shape = (like, Dim(expr=parse_expr("4")))
    lines = written(
        "(Tensor x, Tensor y, Tensor? z) -> ()",
        {"n": "x.numel() // x.shape[-1]", "m": "x.shape[-1]"},
        x=variant(["*n", "m"]),
        y=evolve(variant([]), shape=shape),
        z=evolve(variant([], when="z is not None"), shape=(like,)),
    )
    assert 'assert y.shape[:-1] == x.shape[:-1], "y must have the sizes of x"' in lines
    assert '    assert z.shape == x.shape[:-1], "z must have the sizes of x"' in lines
    assert not [line for line in lines if "numel" in line]


def test_sizes_that_are_spread_are_counted():
    """Where there are several of them, each shape has code of its own."""
    comment = "# Keys know their product alone, and code for one of 1 is wrong for more."
    assert written(
        "(Tensor x, Tensor? y, Tensor z) -> ()",
        {"n": "x.numel() // x.shape[-1]", "m": "x.shape[-1]"},
        spread=("x", "y"),
        x=variant(["*n", "m"]),
        y=variant(["2", "*n", "m"], when="y is not None"),
        z=variant(["*1"]),
    ) == [
        'assert x.ndim >= 1, "x must be [*n, m]"',
        'assert x.dtype == torch.float32, "x must have dtype float32"',
        'assert x.is_contiguous(), "x must be contiguous"',
        "if y is not None:",
        '    assert y.shape[0] == 2, "y must be [2, *n, m]"',
        '    assert y.shape[-1] == x.shape[-1], "y must be [2, *n, m]"',
        '    assert y.numel() == 2 * (x.numel() // x.shape[-1]) * x.shape[-1], "shape of y"',
        '    assert y.dtype == torch.float32, "y must have dtype float32"',
        '    assert y.is_contiguous(), "y must be contiguous"',
        'assert z.numel() == 1, "z must be [*1]"',
        'assert z.dtype == torch.float32, "z must have dtype float32"',
        comment,
        "hl.specialize(x.shape[:-1] if x.ndim > 2 else ())",
        "if y is not None:",
        "    hl.specialize(y.shape[1:-1] if y.ndim > 3 else ())",
    ]


def test_what_a_line_does_not_hold_is_said_in_fewer_words_or_laid_out():
    """The rest of the sentence is in the code, which a traceback shows."""
    long = " + ".join(["a_size_that_is_long"] * 3)
    axes = {"a_size_that_is_long": "a_size_that_is_long"}
    some = "a_size_that_is_long > 100 and a_size_that_is_long % 100 == 7"
    both = f"{long} == 12 or {long} == 13"
    lines = written("(Tensor x, int a_size_that_is_long) -> ()", axes, [some, f"{long} == 7", both])
    assert lines == [
        f"assert {some}, (",
        '    "a_size_that_is_long"',
        ")",
        f"assert {long} == 7, (",
        '    "a_size_that_is_long"',
        ")",
        "assert (",
        f"    {long} == 12",
        f"    or {long} == 13",
        '), "a_size_that_is_long"',
    ]


@pytest.mark.parametrize(
    ("imports", "name"),
    [
        pytest.param((), "helion.language", id="none"),
        pytest.param(
            (Import(module="helion.language", member=None, name="helion"),),
            "helion.language",
            id="its parent",
        ),
        pytest.param(
            (Import(module="helion", member="language", name="language"),), "language", id="member"
        ),
    ],
)
def test_helions_language_has_the_name_that_the_kernel_gives_it(imports, name):
    spec = read_kernel(ROOT, "silu_mul_fp8")
    line = f"    {name}.specialize(input.shape[:-1] if input.ndim > 2 else ())"
    assert write_guards(spec, ("input",), imports)[-1] == line
