"""The cases that a command is asked for."""

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
    return read_kernel(demo.root, "twice")


def test_values_of_an_axis_that_is_given_twice_add_up():
    found = read_wanted(["num_tokens=1, 4", "dtype=bfloat16", "num_tokens=16"])
    assert found == {"num_tokens": ["1", "4", "16"], "dtype": ["bfloat16"]}


def test_cases_with_the_values_are_kept_in_their_order(twice):
    def chosen(*values: str) -> list[object]:
        found = wanted_cases(twice, cases(twice), {"num_tokens": values}, "timing")
        return [case.values["num_tokens"] for case in found]

    assert chosen("4") == [4]
    assert chosen("4", "1") == [1, 4]


def test_kernels_without_the_values_are_left_out_where_one_has_them(demo, twice):
    demo.kernel("plain")
    demo.edit("kernels/plain/kernel.toml", "num_tokens = [1, 4]", "num_tokens = [1, 64]")
    specs = [twice, read_kernel(demo.root, "plain")]
    found = with_cases(specs, {"num_tokens": ["64"]}, cases, "timing")
    assert [spec.name for spec in found] == ["plain"]
    with pytest.raises(UsageError, match="no case for timing 'twice' has num_tokens=7; there are"):
        with_cases(specs, {"num_tokens": ["7"]}, cases, "timing")
