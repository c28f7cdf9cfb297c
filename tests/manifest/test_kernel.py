"""What a manifest says of arguments as a spec: what is like another argument."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kernelpkg.packs.read import read_kernel

GOOD = Path(__file__).parents[1] / "golden" / "good"
OUT = 'out = { shape = ["num_tokens", "hidden_size"], dtype = "dtype" }'
INPUT = 'input = { shape = ["num_tokens", "hidden_size"], dtype = "dtype", strides = ["*", 1] }'


@pytest.fixture
def variants(tmp_path):
    """Returns what 'out' is, with other lines for it and 'input', as texts."""

    def variants(out, given=INPUT):
        shutil.copytree(GOOD, tmp_path, dirs_exist_ok=True)
        path = tmp_path / "kernels/x/kernel.toml"
        path.write_text(
            (GOOD / "kernels/x/kernel.toml").read_text().replace(OUT, out).replace(INPUT, given)
        )
        spec = read_kernel(tmp_path, "x")
        return [said(variant) for variant in next(a for a in spec.args if a.name == "out").variants]

    return variants


def said(variant):
    """Return a variant in the words of a manifest."""
    spread = {True: "*", False: ""}
    return {
        "when": variant.when and variant.when.text,
        "shape": [f"{spread[d.spread]}{d.expr.text}{d.like or ''}" for d in variant.shape],
        "dtype": variant.dtype.text,
        "strides": variant.strides and [s and s.text for s in variant.strides],
        "init": variant.init,
    }


WHOLE = {"when": None, "shape": ["num_tokens", "hidden_size"], "dtype": "dtype", "strides": [None, "1"], "init": None}  # fmt: skip  # noqa: E501


@pytest.mark.parametrize(
    ("own", "changes"),
    [
        ("", {}),
        ('dtype = "int8"', {"dtype": "int8"}),
        ('strides = [1, "*"]', {"strides": ["1", None]}),
        ('shape = ["hidden_size"]', {"shape": ["hidden_size"], "strides": None}),
        ('init = "zeros"', {"init": "zeros"}),
    ],
    ids=["all", "dtype", "strides", "shape", "init"],
)
def test_what_is_not_given_is_as_of_the_other(variants, own, changes):
    """A shape of its own has strides of its own, or is contiguous."""
    comma = ", " * bool(own)
    assert variants(f'out = {{ like = "input"{comma}{own} }}') == [{**WHOLE, **changes}]


def test_each_variant_of_the_other_is_taken_over(variants):
    """With its condition; what is given is given for all of them."""
    tables = (
        '{ when = "group == 4", shape = ["num_tokens", "hidden_size"], dtype = "dtype" }',
        '{ shape = ["num_tokens", "hidden_size"], dtype = "dtype", strides = ["*", 1] }',
    )
    found = variants('out = { like = "input", dtype = "int8" }', f"input = [{', '.join(tables)}]")
    assert found == [
        {**WHOLE, "when": "group == 4", "dtype": "int8", "strides": None},
        {**WHOLE, "dtype": "int8"},
    ]


def test_sizes_that_are_spread_are_those_of_the_other(variants):
    """As a part of a shape too."""
    spread = 'input = { shape = ["*num_tokens", "hidden_size"], dtype = "dtype" }'
    assert variants('out = { like = "input" }', spread)[0]["shape"] == [
        "*num_tokensinput",
        "hidden_size",
    ]
    (found,) = variants('out = { like = "input", shape = ["*", 1, "group"] }', spread)
    assert found["shape"] == ["*num_tokensinput", "1", "group"]
    assert (found["dtype"], found["strides"]) == ("dtype", None)
