"""What a spec knows beyond its manifest: the values that calls can have of its axes."""

# ruff: noqa: E501  # tables of cases and messages have whole lines

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from kernelpkg.expr.language import parse_expr
from kernelpkg.manifest.opschema import parse_schema
from kernelpkg.manifest.spec import Axis, AxisType
from kernelpkg.packs.read import read_kernel

ROOT = Path(__file__).parents[2]

SCHEMA = "(Tensor x, Tensor? bias, int n, float eps, bool flag) -> ()"

AXES = {
    "size": ("x.shape[0]", "a whole number, 0 or more", [0, 7], [-5, 1.5, 3.0, True, "int8", None]),
    "rows": ("x.numel() // x.shape[-1]", "a whole number, 0 or more", [0, 7], [-1, None]),
    "shifted": ("x.shape[0] + 2", "a whole number, 2 or more", [2], [1]),
    "number": ("n", "a whole number", [-3, 0], [0.5, False, "int8", None]),
    "float": ("eps", "a number", [0.5, -1, 0], [True, "int8", None]),
    "flag": ("flag", "true or false", [True, False], [1, "int8", None]),
    "given": ("bias is not None", "true or false", [True, False], [0, None]),
    "dtype": ("x.dtype", "the name of a dtype", ["int8"], ["int9", 8, True, None]),
    "optional": ("bias.shape[0]", "a whole number, 0 or more, or none", [0, None], [-1, "int8"]),
}


@pytest.mark.parametrize(("text", "words", "has", "lacks"), AXES.values(), ids=AXES)
def test_an_axis_has_its_type(text, words, has, lacks):
    """It says in words what calls can have, has that, and nothing else."""
    spec = evolve(
        read_kernel(ROOT, "silu_mul_fp8"),
        schema=parse_schema(SCHEMA),
        axes=(Axis(name="axis", expr=parse_expr(text)),),
    )
    found = spec.axis_types["axis"]
    assert str(found) == words
    assert [value for value in has if not found.has(value)] == []
    assert [value for value in lacks if found.has(value)] == []


def test_what_reads_an_optional_argument_may_be_absent():
    """Where an optional argument is absent, what reads it is none; a test for it is not."""
    axes = [
        Axis(name=name, expr=parse_expr(AXES[name][0])) for name in ("size", "given", "optional")
    ]
    spec = evolve(read_kernel(ROOT, "silu_mul_fp8"), schema=parse_schema(SCHEMA), axes=tuple(axes))
    assert [name for name, found in spec.axis_types.items() if found.absent] == ["optional"]


VALUES = {
    "whole": ("whole", 4096, None),
    "flag": ("flag", True, None),
    "dtype": ("dtype", "bfloat16", None),
    "whole-for-number": ("number", 2, None),
    "null": ("whole", None, "cannot be null, for it has a value in every call"),
    "text-for-whole": ("whole", "4096", "has value '4096', which is a text, and must be a whole number"),
    "dtype-for-whole": ("whole", "int8", "has value 'int8', which is a text, and must be a whole number"),
    "float-for-whole": ("whole", 4096.0, "has value 4096.0, which is a number, and must be a whole number"),
    "flag-for-whole": ("whole", True, "has value true, which is true or false, and must be a whole number"),
    "whole-for-flag": ("flag", 1, "has value 1, which is a whole number, and must be true or false"),
    "no-dtype": ("dtype", "bf16", "has value 'bf16', which is not a dtype; did you mean 'bfloat16'?"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "message"), VALUES.values(), ids=VALUES)
def test_a_value_of_a_key_has_the_type_of_its_axis(kind, value, message):
    """Nothing is coerced; null stands for an axis that may be absent alone."""
    assert AxisType(kind=kind, low=None, absent=False).problem(value) == message
    assert AxisType(kind=kind, low=None, absent=True).problem(None) is None
