"""The cases of config files against the kernels of the first pack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from kernelpkg.check.checkedfile import CheckedFile
from kernelpkg.check.tuned_cases import case_findings, value_findings
from kernelpkg.configs.store import ConfigFile, TunedCase
from kernelpkg.packs.read import read_kernel

ROOT = Path(__file__).parents[2]
SPEC = read_kernel(ROOT, "rms_norm_per_block_quant")


def checked(*keys: dict[str, Any], overlay: bool = False) -> CheckedFile:
    file = ConfigFile(
        kernel=SPEC.name,
        platform="nvidia_h200",
        configs=({},),
        cases=tuple(TunedCase(key=key, config=0) for key in keys),
    )
    return CheckedFile(
        spec=SPEC, shown="x.json", platform="nvidia_h200", overlay=overlay, file=file, text=""
    )


def key(**more: Any) -> dict[str, Any]:
    return {"hidden_size": 4096, "num_tokens": 16, **more}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"in_dtype": "float32"},
        {"has_scale_ub": False, "out_dtype": "int8"},
        {"hidden_size": 192, "group_size": 64},
        {"num_tokens": 0},
    ],
    ids=["grid", "dtype", "int8", "size", "empty"],
)
def test_real_calls_are_fine(more):
    """Whether or not the grid has them."""
    assert value_findings(checked(key(**more))) == ([], frozenset())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"out_dtype": "int8"},
            "guard 'out_dtype == float8_e4m3fn or not has_scale_ub' refuses it",
        ),
        ({"hidden_size": 4100}, "guard 'hidden_size % group_size == 0' refuses it"),
        ({"group_size": 0}, "guard 'group_size in [64, 128]' refuses it"),
        ({"num_tokens": -3}, "'num_tokens' of argument 'result' is -3, and cannot be below zero"),
    ],
    ids=["two-axes", "no-multiple", "zero", "negative"],
)
def test_keys_that_no_call_has(more, message):
    found, wrong = value_findings(checked(key(), key(**more)))
    assert [finding.code for finding in found] == ["KP211"]
    assert message in found[0].message
    assert wrong == {1}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"num_tokens": "16"}, "has value '16', which is a text, and must be a whole number"),
        ({"num_tokens": 16.0}, "has value 16.0, which is a number, and must be a whole number"),
        (
            {"num_tokens": True},
            "has value true, which is true or false, and must be a whole number",
        ),
        ({"num_tokens": None}, "cannot be null, for it has a value in every call"),
        ({"has_residual": 1}, "has value 1, which is a whole number, and must be true or false"),
        ({"in_dtype": "bf16"}, "has value 'bf16', which is no dtype; did you mean 'bfloat16'?"),
        ({"in_dtype": 16}, "has value 16, which is a whole number, and must be a dtype"),
    ],
    ids=["text", "float", "flag", "null", "number-for-flag", "no-dtype", "number-for-dtype"],
)
def test_values_of_another_type_than_their_axis(more, message):
    (axis,) = more
    found, wrong = value_findings(checked(key(**more)))
    assert [finding.message for finding in found] == [
        f"case 0, key: axis '{axis}' {message}; correct it, or tune again"
    ]
    assert (found[0].code, wrong) == ("KP210", {0})


def codes(file: CheckedFile) -> list[str]:
    return [finding.code for finding in case_findings(file, ())]


def test_cases_of_no_grid_come_together_where_the_last_axis_differs():
    """In the order of its values, with what many of them have in common said once."""
    keys = [key(num_tokens=tokens) for tokens in (300, 20, 100)]
    keys += [key(hidden_size=2048, num_tokens=tokens) for tokens in range(1000, 1020)]
    file = checked(*keys, key(hidden_size=5120, num_tokens=9))
    found = [finding.message for finding in case_findings(file, ()) if finding.code == "KP215"]
    assert found == [
        (
            "3 cases hidden_size=4096, num_tokens=20, 100, 300 are of no grid of [inputs] that is "
            "for 'tune'; add them to the grid, or remove them"
        ),
        (
            "20 cases hidden_size=2048, num_tokens=1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, "
            "1008, 1009, 1010, 1011, 1012, 1013, …, 1019 are of no grid of [inputs] that is for "
            "'tune'; add them to the grid, or remove them"
        ),
        (
            "case hidden_size=5120, num_tokens=9 is of no grid of [inputs] that is for 'tune'; add "
            "it to the grid, or remove it"
        ),
    ]


def test_cases_for_tests_alone_are_of_no_grid_for_tuning():
    assert "KP215" in codes(checked(key(hidden_size=256, num_tokens=3)))


def test_the_default_case_is_of_no_grid_and_needs_none():
    """It says nothing of which cases are tuned, either."""
    found = list(case_findings(checked({}), ()))
    assert [finding.code for finding in found] == ["KP207"]
    assert "lacks 126 of 126 cases" in found[0].message


def test_a_kernel_without_rules_has_one_case_for_all_calls():
    """Its key is empty, and the grid asks for no other."""
    file = evolve(checked({}), spec=evolve(checked({}).spec, rules=()))
    assert list(case_findings(file, ())) == []


def test_wrong_cases_are_told_once():
    """A case whose value is wrong is not said to be of no grid as well."""
    file = checked(key(num_tokens="16"))
    assert "KP215" in codes(file)
    assert "KP215" not in [finding.code for finding in case_findings(file, {0})]
