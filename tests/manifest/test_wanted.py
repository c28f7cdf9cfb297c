"""The cases that a command is asked for."""

# ruff: noqa: E501  # tables of cases and messages have whole lines

from __future__ import annotations

from functools import partial

import pytest

from kernelpkg.errors import UsageError
from kernelpkg.manifest.cases import cases_of
from kernelpkg.manifest.wanted import read_wanted, wanted_cases, with_cases
from kernelpkg.packs.read import read_kernel

cases = partial(cases_of, use="bench")


@pytest.fixture
def twice(demo):
    add_axis(demo, "twice", "hidden_size")
    return read_kernel(demo.root, "twice")


def add_axis(demo, kernel, name):
    """Add a size of rows, which is 64 in all cases."""
    file = f"kernels/{kernel}/kernel.toml"
    axis, rule = 'num_tokens = "input.shape[0]"', '[[key]]\naxis = "num_tokens"'
    demo.edit(file, axis, f'{axis}\n{name} = "input.shape[1]"')
    demo.edit(file, rule, f'[[key]]\naxis = "{name}"\nmatch = "exact"\n{rule}')
    demo.edit(file, "[[inputs.grid]]\n", f"[[inputs.grid]]\n{name} = [64]\n")
    demo.edit(file, 'shape = ["num_tokens"]', f'shape = ["num_tokens", "{name}"]')


def test_values_of_an_axis_that_is_given_twice_add_up():
    found = read_wanted(["num_tokens=1, 4", "dtype=bfloat16", "num_tokens=16"])
    assert found == {"num_tokens": ["1", "4", "16"], "dtype": ["bfloat16"]}


def test_cases_with_the_values_are_kept_in_their_order(twice):
    def chosen(*values: str) -> list[object]:
        found = wanted_cases(twice, cases(twice), {"num_tokens": values}, "timing")
        return [case.values["num_tokens"] for case in found]

    assert chosen("4") == [4]
    assert chosen("4", "1") == [1, 4]


@pytest.fixture
def plain(demo):
    """A kernel with other token counts, and with an axis `width` in place of `hidden_size`."""
    demo.kernel("plain")
    demo.edit("kernels/plain/kernel.toml", "num_tokens = [1, 4]", "num_tokens = [1, 64]")
    add_axis(demo, "plain", "width")
    return read_kernel(demo.root, "plain")


def test_kernels_without_the_values_are_left_out_where_one_has_them(twice, plain):
    found, notes = with_cases([twice, plain], {"num_tokens": ["64"]}, cases, "timing")
    assert [spec.name for spec in found] == ["plain"]
    assert notes == ["left out: no case for timing 'twice' has num_tokens=64; there are 1, 4"]


def test_a_kernel_needs_one_of_several_values(twice, plain):
    wanted = {"num_tokens": ["1", "4", "64"]}
    assert with_cases([twice, plain], wanted, cases, "timing") == ([twice, plain], [])


def test_a_kernel_that_is_named_is_not_left_out(twice, plain):
    with pytest.raises(UsageError, match=r"^no case for timing 'twice' has num_tokens=64; there"):
        with_cases([twice, plain], {"num_tokens": ["64"]}, cases, "timing", named=True)
    with pytest.raises(UsageError, match=r"^'twice' has no axis 'width'"):
        with_cases([twice, plain], {"width": ["64"]}, cases, "timing", named=True)


def test_kernels_without_an_axis_are_left_out_where_one_has_it(twice, plain):
    wanted = {"num_tokens": ["1"], "width": ["64"]}
    found, notes = with_cases([twice, plain, twice], wanted, cases, "timing")
    assert [spec.name for spec in found] == ["plain"]
    assert notes == ["left out: twice, twice (no axis 'width')"]


def test_all_kernels_are_kept_where_nothing_is_wanted(twice, plain):
    assert with_cases([twice, plain], {}, cases, "timing") == ([twice, plain], [])


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"num_tokens": ["7"]}, "no case for timing 'twice' has num_tokens=7; there are 1, 4"),
        ({"num_tokens": ["1", "7"]}, "no case for timing has num_tokens=7; there are 1, 4, 64"),
        ({"widt": ["1"]}, "no op has an axis 'widt'; did you mean 'width'?"),
        (
            {"hidden_size": ["4096"], "width": ["4096"]},
            "no op has the axes 'hidden_size' and 'width' together; give the axes of one op at a time",
        ),
    ],
    ids=["value", "one-of-values", "axis", "together"],
)  # fmt: skip
def test_what_no_kernel_has_is_an_error(twice, plain, wanted, message):
    with pytest.raises(UsageError) as raised:
        with_cases([twice, plain], wanted, cases, "timing")
    assert str(raised.value) == message
