"""What a manifest says of arguments as a spec: what is like another argument."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kernelpkg.errors import PackError
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


KINDS = Path(__file__).parents[1] / "packs" / "kinds"
SHIFTS = 'shifts = ["down", "right"]'


def edited_roll(tmp_path, new):
    """Read the kernel with a list, with another entry for it."""
    shutil.copytree(KINDS / "kernels/roll", tmp_path / "kernels/roll")
    path = tmp_path / "kernels/roll/kernel.toml"
    path.write_text(path.read_text().replace(SHIFTS, new))
    return read_kernel(tmp_path, "roll")


@pytest.mark.parametrize(
    ("entry", "texts"),
    [
        (SHIFTS, ["[down, right]"]),
        (
            'shifts = [{ when = "down == 0", value = [0, "right"] }, { value = ["down", "right"]}]',
            ["[0, right]", "[down, right]"],
        ),
    ],
    ids=["elements", "variants"],
)
def test_a_list_is_given_by_its_elements(tmp_path, entry, texts):
    arg = edited_roll(tmp_path, entry).args[1]
    assert [variant.value.text for variant in arg.variants] == texts


PLACE = "kernels/roll/kernel.toml:"


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("shifts = 3", "47: KP132 argument 'shifts' is a list; give its elements"),
        ("shifts = [{ value = 3 }]", "47: KP132 argument 'shifts' is a list; give its elements"),
        (
            "shifts = ['down', 1.5]",
            (
                "47: KP012 entry 2 of 'shifts' must be a table, or an element: a whole number, an "
                "expression, not a number (1.5)"
            ),
        ),
        (
            "shifts = ['down', 'width > 2']",
            "47: KP122 expression 'width > 2' is true or false, and must be a whole number",
        ),
        ("", "45: KP130 argument 'shifts' is not given in [args]; give its elements"),
    ],
    ids=["number", "number in a table", "fraction", "condition", "nothing"],
)
def test_what_is_not_a_list_of_whole_numbers_is_one_line(tmp_path, entry, problem):
    with pytest.raises(PackError) as caught:
        edited_roll(tmp_path, entry)
    assert str(caught.value).split("\n")[0] == PLACE + problem
