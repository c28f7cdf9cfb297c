"""`explain`: where axis values come from, which cannot be, and what the outcome is."""

# ruff: noqa: E501  # tables of cases have a line each

from __future__ import annotations

import pytest

from kernelpkg.configs.explain import explain, lines, read_value
from kernelpkg.errors import UsageError
from kernelpkg.packs.read import read_kernel, read_pack


@pytest.fixture
def ask(rich):
    """Ask for the config of a call of a kernel with axes of every type."""

    def ask(platform="nvidia_h200", **given):
        return explain(
            read_pack(rich.root, "demo"), read_kernel(rich.root, "twice"), platform, given
        )

    return ask


@pytest.mark.parametrize(
    ("given", "outcome", "warps"),
    [
        ({"num_tokens": "16", "hidden_size": "64"}, "exact", 8),
        ({"num_tokens": "3", "hidden_size": "64"}, "bucketed", 8),
        ({"num_tokens": "99", "hidden_size": "64"}, "extrapolated", 8),
        ({"num_tokens": "1", "hidden_size": "64", "odd": "true"}, "default", 4),
    ],
    ids=["exact", "bucketed", "extrapolated", "default"],
)
def test_each_outcome_has_its_word(ask, given, outcome, warps):
    found = ask(**given)
    assert (found.outcome, found.chosen.config["num_warps"]) == (outcome, warps)


def test_a_call_that_a_guard_refuses_is_a_miss(ask):
    found = ask(num_tokens="1", hidden_size="63")
    assert (found.outcome, found.chosen) == ("miss", None)
    assert found.reason == (
        "the kernel does not take the call: guard 'hidden_size % 8 == 0' refuses it"
    )


def test_axes_that_are_not_given_come_from_the_defaults_and_it_says_so(ask):
    found = ask(num_tokens="1", hidden_size="64", odd="false")
    assert found.axes == {"num_tokens": 1, "hidden_size": 64, "dtype": "bfloat16", "odd": False}
    assert found.filled == ("dtype",)
    assert lines(found) == [
        "twice on nvidia_h200",
        "call:    num_tokens=1, hidden_size=64, dtype=bfloat16 (from [inputs] default), odd=false",
        "rule:    dtype exact: bfloat16 is tuned",
        "rule:    odd exact: false is tuned",
        "rule:    hidden_size nearest: 64 is tuned",
        "rule:    num_tokens ceil: 1 is tuned",
        "outcome: exact case hidden_size=64, num_tokens=1",
        "config:  num_warps=4, indexing=['pointer']",
        "file:    configs/twice/nvidia_h200.json",
    ]


def test_a_variant_that_was_never_tuned_is_told(ask):
    found = ask(num_tokens="1", hidden_size="64", odd="true")
    assert dict(found.chosen.config) == {"num_warps": 4}
    assert lines(found)[3].lower() == "rule:    odd exact: true is not tuned, false is"


def test_without_any_config_the_default_is_told(ask):
    assert lines(ask("cpu", num_tokens="1", hidden_size="64"))[2:] == [
        "outcome: default; nothing is tuned; [helion] default",
        "config:  num_warps=2",
    ]


def test_helions_own_default_has_no_config_to_show(demo):
    found = explain(
        read_pack(demo.root, "demo"), read_kernel(demo.root, "twice"), "cpu", {"num_tokens": "1"}
    )
    assert lines(found)[2:] == [
        "outcome: default; nothing is tuned; Helion's own default",
        "config:  as Helion chooses",
    ]


def test_a_platform_that_is_no_gpu_is_wrong_usage(ask):
    with pytest.raises(UsageError, match="'nvidia_h20O' is not a platform that is known here; did"):
        ask("nvidia_h20O", num_tokens="1", hidden_size="64")


def test_a_gpu_can_be_named_as_the_driver_does(ask):
    assert ask("NVIDIA H200", num_tokens="1", hidden_size="64").platform == "nvidia_h200"


WRONG = {
    "platform-without-a-name": ({"platform": "--"}, "platform '--' is not a name such as nvidia_h200 or cpu"),
    "unknown-axis": ({"num_token": "1"}, "kernel 'twice' has no axis 'num_token'; did you mean 'num_tokens'?"),
    "far-axis": ({"x": "1"}, "kernel 'twice' has no axis 'x'; it has num_tokens, hidden_size, dtype, odd"),
    "axes-without-value": ({}, "axes hidden_size, num_tokens have no default; give hidden_size=VALUE num_tokens=VALUE"),
    "axis-without-value": ({"num_tokens": "1"}, "axis hidden_size has no default; give hidden_size=VALUE"),
    "no-number": ({"num_tokens": "many"}, "axis 'num_tokens' is 'many'; it must be a number"),
    "flag-for-number": ({"num_tokens": "true"}, "axis 'num_tokens' is 'true'; it must be a number"),
    "not-finite": ({"num_tokens": "inf"}, "axis 'num_tokens' is 'inf'; it must be a number"),
    "number-for-flag": ({"odd": "1"}, "axis 'odd' is '1'; it must be true or false"),
    "number-for-dtype": ({"dtype": "8"}, "axis 'dtype' is '8'; it must be the name of a dtype"),
    "size-below-zero": ({"num_tokens": "-5"}, "axis 'num_tokens' is '-5'; it must be a whole number, 0 or more"),
    "part-of-a-size": ({"num_tokens": "1.5"}, "axis 'num_tokens' is '1.5'; it must be a whole number, 0 or more"),
    "absent-size": ({"num_tokens": "none"}, "axis 'num_tokens' is 'none'; it must be a whole number, 0 or more"),
    "absent-flag": ({"odd": "none"}, "axis 'odd' is 'none'; it must be true or false"),
    "unknown-dtype": ({"dtype": "bfloat"}, "axis 'dtype' is 'bfloat', which is not a dtype; did you mean 'bfloat16'?"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "line"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_wrong_usage(ask, given, line):
    with pytest.raises(UsageError) as caught:
        ask(**given)
    assert str(caught.value) == line


def test_a_text_is_what_it_is_whatever_it_reads_as(demo):
    """No number, flag or dtype is made of what is given for it."""
    edits = {
        "(Tensor input)": "(Tensor input, str mode)",
        "[axes]\n": '[axes]\nmode = "mode"\n',
        "[[key]]\n": '[[key]]\naxis = "mode"\nmatch = "exact"\n[[key]]\n',
        "num_tokens = [1, 4]": 'num_tokens = [1, 4]\nmode = ["up", "4"]',
    }
    for old, new in edits.items():
        demo.edit("kernels/twice/kernel.toml", old, new)
    for file in ("kernel.py", "host.py"):
        demo.edit(f"kernels/twice/{file}", "input: torch.Tensor", "input: torch.Tensor, mode: str")
    pack, spec = read_pack(demo.root, "demo"), read_kernel(demo.root, "twice")
    for mode in ("up", "4", "none", "true", "int8"):
        found = explain(pack, spec, "nvidia_h200", {"mode": mode, "num_tokens": "1"})
        assert found.axes == {"mode": mode, "num_tokens": 1}


def test_a_picker_of_its_own_needs_the_arguments(ask, rich):
    rich.edit("kernels/twice/kernel.toml", "version = 1", 'version = 1\npicker = "host.py:pick"')
    for kind in ('match = "nearest"', 'match = "ceil"'):
        rich.edit("kernels/twice/kernel.toml", kind, 'match = "exact"')
    with pytest.raises(UsageError) as caught:
        ask()
    assert str(caught.value) == (
        "kernel 'twice' picks with 'host.py:pick', which needs the arguments of a call"
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("-1", -1), ("0.5", 0.5), ("True", True), ("false", False), ("none", None),
     ("int8", "int8"), ("nan", "nan")],
)  # fmt: skip
def test_values_are_read_by_their_spelling(text, value):
    found = read_value(text)
    assert (found, type(found)) == (value, type(value))
