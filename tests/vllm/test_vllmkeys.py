"""The keys of vLLM's config files: names and types of axes, and keys that are texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernelpkg.packs.read import read_kernel, read_pack
from kernelpkg.vllm.vllmkeys import KeyAxes, key_axes

ROOT = Path(__file__).parents[2]

AXES = KeyAxes(
    kernel="x",
    types={
        "dtype": "dtype",
        "has_bias": "flag",
        "hidden": "whole",
        "hidden_size": "whole",
        "ratio": "number",
        "num_tokens": "whole",
    },
    nullable=frozenset({"ratio"}),
    names={"batchsize": "num_tokens", "numtokens": "num_tokens", "bias": "has_bias"},
)


def test_the_last_of_several_names_is_written():
    """Older names come first in the manifest; what is written has the newest one."""
    assert AXES.theirs == {"num_tokens": "numtokens", "has_bias": "bias"}


SPLIT = {
    "released": ("hidden_4096_numtokens_256", [("hidden", 4096), ("numtokens", 256)]),
    "oldest": ("hidden_4096_batchsize_256", [("hidden", 4096), ("batchsize", 256)]),
    "name-within-a-name": ("hidden_size_8_hidden_4", [("hidden_size", 8), ("hidden", 4)]),
    "our-name": ("num_tokens_1", [("num_tokens", 1)]),
    "below-zero": ("hidden_-1_numtokens_2", [("hidden", -1), ("numtokens", 2)]),
    "dtype-with-underscore": (
        "dtype_float8_e4m3fn_hidden_1",
        [("dtype", "float8_e4m3fn"), ("hidden", 1)],
    ),
    "dtype-within-a-dtype": ("dtype_float8_e4m3fnuz", [("dtype", "float8_e4m3fnuz")]),
    "flag-of-python": ("bias_True_hidden_1", [("bias", True), ("hidden", 1)]),
    "flag-of-json": ("hidden_1_has_bias_false", [("hidden", 1), ("has_bias", False)]),
    "number": ("ratio_0.5_hidden_1", [("ratio", 0.5), ("hidden", 1)]),
    "whole-number": ("ratio_2", [("ratio", 2)]),
}


@pytest.mark.parametrize(("text", "items"), SPLIT.values(), ids=SPLIT)
def test_a_key_that_is_a_text_is_split_by_names_that_are_known(text, items):
    found = AXES.split(text)
    assert found == items
    assert [type(value) for _, value in found] == [type(value) for _, value in items]


FAILS = {
    "empty": ("", ""),
    "no-name": ("some_other_key", ""),
    "no-value": ("hidden_", ""),
    "name-alone": ("hidden", ""),
    "value-of-another-type": ("hidden_4096.5", ""),
    "dtype-that-is-none": ("dtype_float4", ""),
    "unknown-axis-behind": ("hidden_1_groupsize_128", " at 'groupsize_128'"),
    "axis-twice": ("hidden_1_hidden_2", " at 'hidden_2'"),
    "axis-by-two-names": ("numtokens_1_batchsize_2", " at 'batchsize_2'"),
    "underscore-at-the-end": ("hidden_1_", ""),
    "two-underscores": ("hidden_1__numtokens_2", " at '_numtokens_2'"),
    "line-break-at-the-end": ("hidden_1\n", ""),
    "digits-of-another-script": ("hidden_١", ""),
    "thousands-of-digits": ("hidden_" + "9" * 5000, ""),
    "other-case": ("Hidden_1", ""),
}


@pytest.mark.parametrize(("text", "where"), FAILS.values(), ids=FAILS)
def test_nothing_is_guessed_where_a_key_cannot_be_split(text, where):
    """The part is told at which no known name and value stand."""
    assert AXES.split(text) == f"cannot be split into axes and values{where}"


def test_nothing_is_guessed_where_a_key_can_be_split_in_two_ways():
    """A name that holds another name and its value makes a key ambiguous."""
    types = {"a": "flag", "b": "whole", "a_true_b": "whole"}
    axes = KeyAxes(kernel="x", types=types)
    assert axes.split("a_true_b_1") == "can be split into axes and values in several ways"
    assert axes.split("b_1_a_true") == [("b", 1), ("a", True)]


VALUES = {
    "whole": ("hidden", 4096, None),
    "flag": ("has_bias", True, None),
    "dtype": ("dtype", "bfloat16", None),
    "whole-for-number": ("ratio", 2, None),
    "null-where-an-argument-is-optional": ("ratio", None, None),
    "null": ("hidden", None, "cannot be null, for it has a value in every call"),
    "text-for-whole": (
        "hidden",
        "4096",
        "has value '4096', which is a text, and must be a whole number",
    ),
    "dtype-for-whole": (
        "hidden",
        "int8",
        "has value 'int8', which is a text, and must be a whole number",
    ),
    "float-for-whole": (
        "hidden",
        4096.0,
        "has value 4096.0, which is a number, and must be a whole number",
    ),
    "flag-for-whole": (
        "hidden",
        True,
        "has value true, which is true or false, and must be a whole number",
    ),
    "whole-for-flag": (
        "has_bias",
        1,
        "has value 1, which is a whole number, and must be true or false",
    ),
    "no-dtype": ("dtype", "bf16", "has value 'bf16', which is no dtype; did you mean 'bfloat16'?"),
    "array": ("hidden", [1], "must be a number, text, true, false or null, not [1]"),
    "object": ("hidden", {}, "must be a number, text, true, false or null, not {}"),
}


@pytest.mark.parametrize(("axis", "value", "message"), VALUES.values(), ids=VALUES)
def test_a_value_has_the_type_of_its_axis(axis, value, message):
    assert AXES.value_problem(axis, value) == message


NAMES = {
    "none": ({}, []),
    "new-names": ({"a": "hidden", "b": "num_tokens"}, []),
    "own-name": ({"hidden": "hidden"}, []),
    "swapped": ({"hidden": "hidden_size", "hidden_size": "hidden"}, []),
    "no-such-axis": (
        {"tokens": "num_token"},
        [
            (
                "tokens",
                "kernel 'x' has no rule for axis 'num_token'; did you mean 'num_tokens'?",
            )
        ],
    ),
    "far-from-any-axis": (
        {"tokens": "zzz"},
        [
            (
                "tokens",
                (
                    "kernel 'x' has no rule for axis 'zzz'; it has dtype, has_bias, hidden, "
                    "hidden_size, ratio, num_tokens"
                ),
            )
        ],
    ),
    "name-of-another-axis": (
        {"hidden": "hidden_size"},
        [
            (
                "hidden",
                (
                    "'hidden' stands for axis 'hidden_size', and axis 'hidden' has no other name; "
                    "give that one a name too"
                ),
            )
        ],
    ),
}


@pytest.mark.parametrize(("names", "problems"), NAMES.values(), ids=NAMES)
def test_names_stand_for_axes_with_rules_and_for_one_each(names, problems):
    assert list(KeyAxes(kernel="x", types=AXES.types, names=names).name_problems()) == problems


def test_copies_of_the_default_case_are_marked_unless_an_axis_has_that_name():
    assert AXES.is_marked({"default": True, "num_tokens": 1})
    assert not AXES.is_marked({"default": 1})
    assert not AXES.is_marked({"num_tokens": 1})
    named = KeyAxes(kernel="x", types={"default": "flag"})
    assert not named.is_marked({"default": True})


def test_axes_of_a_kernel_have_the_types_of_their_expressions():
    """Types come from the expressions of the manifest, the order from its rules."""
    spec = read_kernel(ROOT, "rms_norm_dynamic_per_token_quant")
    axes = key_axes(spec, {})
    assert list(axes.types.items()) == [
        ("in_dtype", "dtype"),
        ("out_dtype", "dtype"),
        ("has_scale_ub", "flag"),
        ("has_residual", "flag"),
        ("hidden_size", "whole"),
        ("num_tokens", "whole"),
    ]
    assert axes.nullable == frozenset()


def test_an_axis_that_reads_an_optional_argument_may_have_no_value(demo):
    """Where an optional argument is absent, what reads it is none; a test for it is not."""
    demo.edit("kernels/twice/kernel.toml", "(Tensor input)", "(Tensor input, Tensor? bias)")
    demo.edit(
        "kernels/twice/kernel.py",
        "input: torch.Tensor",
        "input: torch.Tensor, bias: torch.Tensor | None",
    )
    demo.edit(
        "kernels/twice/host.py",
        "input: torch.Tensor",
        "input: torch.Tensor, bias: torch.Tensor | None",
    )
    demo.edit(
        "kernels/twice/kernel.toml",
        "[[key]]\n",
        'width = "bias.shape[0]"\nhas_bias = "bias is not None"\n[[key]]\naxis = "has_bias"\n'
        'match = "exact"\n[[key]]\naxis = "width"\nmatch = "exact"\n[[key]]\n',
    )
    demo.edit(
        "kernels/twice/kernel.toml",
        "[inputs]\n",
        "[inputs]\ndefault = {has_bias = true, width = 1}\n",
    )
    demo.edit(
        "kernels/twice/kernel.toml",
        "[accuracy]",
        'bias = { shape = ["width"], dtype = "float32", when = "has_bias" }\n[accuracy]',
    )
    axes = key_axes(read_kernel(demo.root, "twice"), {})
    assert axes.nullable == {"width"}
    assert axes.types == {"has_bias": "flag", "width": "whole", "num_tokens": "whole"}


def test_the_first_pack_has_names_that_are_right():
    """Every name of [vllm.axes] of the first pack is one that its kernel can have."""
    pack = read_pack(ROOT, "kernelpkg")
    for kernel, names in pack.vllm_axes.items():
        axes = key_axes(read_kernel(ROOT, kernel), names)
        assert list(axes.name_problems()) == []
    silu = key_axes(read_kernel(ROOT, "silu_mul_fp8"), pack.vllm_axes["silu_mul_fp8"])
    assert silu.theirs == {"intermediate_size": "intermediate", "num_tokens": "numtokens"}
    for text in ("intermediate_2048_numtokens_256", "intermediate_2048_batchsize_256"):
        assert not isinstance(silu.split(text), str)
