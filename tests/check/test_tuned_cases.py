"""The cases of config files against the kernels of the first pack, and stray ones by rules."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from kernelpkg.check.config_files import CheckedFile
from kernelpkg.check.tuned_cases import case_findings, ragged, value_findings
from kernelpkg.configs.picker import compile_picker
from kernelpkg.configs.store import ConfigFile, TunedCase
from kernelpkg.manifest.spec import Rule
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
        ({"in_dtype": "bf16"}, "has value 'bf16', which is not a dtype; did you mean 'bfloat16'?"),
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
            "3 cases hidden_size=4096, num_tokens=20, 100, 300 are in no grid of [inputs] for "
            "'tune'; add them to the grid, or remove them"
        ),
        (
            "20 cases hidden_size=2048, num_tokens=1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, "
            "1008, 1009, 1010, 1011, 1012, 1013, …, 1019 are in no grid of [inputs] for 'tune'; "
            "add them to the grid, or remove them"
        ),
        (
            "case hidden_size=5120, num_tokens=9 is in no grid of [inputs] for 'tune'; add "
            "it to the grid, or remove it"
        ),
    ]


def test_cases_for_tests_alone_are_of_no_grid_for_tuning():
    assert "KP215" in codes(checked(key(hidden_size=256, num_tokens=3)))


def test_the_default_case_is_of_no_grid_and_needs_none():
    """It says nothing of which cases are tuned, either."""
    found = list(case_findings(checked({}), ()))
    assert [finding.code for finding in found] == ["KP207"]
    assert "lacks 192 of 192 cases" in found[0].message


def test_a_kernel_without_rules_has_one_case_for_all_calls():
    """Its key is empty, and the grid asks for no other."""
    file = evolve(checked({}), spec=evolve(checked({}).spec, rules=()))
    assert list(case_findings(file, ())) == []


def test_wrong_cases_are_told_once():
    """A case whose value is wrong is not said to be of no grid as well."""
    file = checked(key(num_tokens="16"))
    assert "KP215" in codes(file)
    assert "KP215" not in [finding.code for finding in case_findings(file, {0})]


POWERS = [1 << power for power in range(14)]
SIZES = [2048, 4096, 8192]
RULES = (Rule(axis="size", match="nearest"), Rule(axis="tokens", match="ceil"))


def full(sizes: list[int] = SIZES, tokens: list[int] = POWERS) -> list[tuple[int, int]]:
    return list(itertools.product(sizes, tokens))


def stray_values(
    rules: tuple[Rule, ...], rows: list[Any]
) -> dict[int, tuple[int | None, int | None]]:
    """Return the ragged values with the calls that they take."""
    return {one.value: (one.low, one.high) for one in ragged(rules, rows)}


def test_a_full_product_has_none():
    assert stray_values(RULES, full()) == {}


@pytest.mark.parametrize(
    ("stray", "taken"),
    [
        (6000, (5049, 7096)),
        (1000, (None, 1524)),
        (20000, (14097, None)),
        (4097, (4097, 6144)),
        (0, (None, 1024)),
    ],
    ids=["between", "below", "above", "beside", "zero"],
)
def test_a_stray_case_takes_the_calls_nearest_to_it(stray, taken):
    """From the midpoints to its neighbours, or everything on a side where it has none."""
    assert stray_values(RULES, [*full(), (stray, 256)]) == {stray: taken}


def test_what_a_stray_case_says_of_its_neighbours():
    (one,) = ragged(RULES, [*full(), (6000, 256), (6000, 512)])
    assert (one.axis, one.later, one.own) == ("size", ("tokens",), 2)
    assert one.others == {4096: 14, 8192: 14}
    assert one.rows == ((6000, 256), (6000, 512))


@pytest.mark.parametrize(
    "tokens",
    [[1, 16, 256, 4096], POWERS[:4], POWERS[::2], POWERS[:-1], [*POWERS, 16384]],
    ids=["spread", "small-ones", "every-other", "one-less", "one-more"],
)
def test_sparse_tuning_is_not_ragged(tokens):
    """A size that was tuned for fewer token counts, yet for a fourth at least."""
    assert stray_values(RULES, [*full(), *full([6000], tokens)]) == {}


def test_powers_of_two_are_not_ragged_beside_every_eighth_number():
    """Tuned for the sizes of CUDA graphs here, and for ten powers of two there."""
    graphs = [1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)]
    rows = [*full(SIZES, graphs), *full([6000], POWERS[:10])]
    assert stray_values(RULES, rows) == {}
    assert stray_values(RULES, [*full(SIZES, graphs), *full([6000], [256, 264, 272])]) == {
        6000: (5049, 7096)
    }


def test_where_most_sizes_are_sparse_none_is_ragged():
    """That is how they were tuned: one size that has more makes strays of no others."""
    assert stray_values(RULES, [*full([2048]), *full([4096, 8192, 16384], [1])]) == {}


def test_strays_do_not_hide_each_other():
    rows = [*full(), (6000, 256), (6100, 16)]
    assert stray_values(RULES, rows) == {6000: (5049, 6050), 6100: (6051, 7146)}


@pytest.mark.parametrize(
    ("rule", "stray", "taken"),
    [
        (Rule(axis="size", match="ceil"), 6000, {6000: (4097, 6000)}),
        (Rule(axis="size", match="ceil"), 9000, {9000: (8193, None)}),
        (Rule(axis="size", match="ceil", over="miss"), 9000, {}),
        (Rule(axis="size", match="floor"), 6000, {6000: (6000, 8191)}),
        (Rule(axis="size", match="floor"), 1000, {1000: (None, 2047)}),
        (Rule(axis="size", match="nearest", max=0.1), 6000, {}),
        (Rule(axis="size", match="nearest", max=0.5), 6000, {6000: (5049, 7096)}),
        (Rule(axis="size", match="nearest", distance="log"), 6000, {6000: (4958, 7010)}),
        (Rule(axis="size", match="exact"), 6000, {}),
        (Rule(axis="size", match="pow2"), 6000, {}),
        (Rule(axis="size", match="ranges", bounds=(5000, 9000)), 6000, {6000: (5001, 6000)}),
        (Rule(axis="size", match="ranges", bounds=(5000, 7000)), 6000, {}),
    ],
    ids=[
        *("ceil", "ceil-above", "ceil-miss", "floor", "floor-below", "far", "near", "log"),
        *("exact", "pow2", "ranges", "own-range"),
    ],
)
def test_a_stray_case_by_other_rules(rule, stray, taken):
    """Where no other value would have its calls, it takes them from none."""
    assert stray_values((rule, RULES[1]), [*full(), (stray, 256)]) == taken


def test_variants_are_looked_at_apart():
    """A stray size of one variant is not a stray in another that is sparse all over."""
    rules = (Rule(axis="flag", match="exact"), *RULES)
    rows = [(True, *row) for row in [*full(), (6000, 1)]]
    rows += [(False, *row) for row in full([*SIZES, 6000], [1])]
    (one,) = ragged(rules, rows)
    assert (one.before, one.value) == ({"flag": True}, 6000)


def test_a_stray_value_of_the_second_axis():
    """A group size of which one case was tuned, beside one that has all token counts."""
    rules = (RULES[0], Rule(axis="group", match="nearest"), RULES[1])
    rows = [(size, 128, tokens) for size, tokens in full()]
    (one,) = ragged(rules, [*rows, (4096, 64, 1)])
    assert (one.axis, one.before, one.low, one.high) == ("group", {"size": 4096}, None, 96)


def test_ignored_axes_do_not_count():
    """Many values of an axis that restricts nothing make a size no better tuned."""
    rules = (RULES[0], Rule(axis="note", match="ignore"), RULES[1])
    rows = [(size, 0, tokens) for size, tokens in full()]
    strays = [(6000, note, 256) for note in range(14)]
    assert stray_values(rules, [*rows, *strays]) == {6000: (5049, 7096)}
    assert stray_values((rules[1], *RULES), [(0, *row) for row in [*full(), (6000, 1)]]) == {
        6000: (5049, 7096)
    }


def test_values_that_are_no_sizes_are_left_alone():
    rows = [*full(), (None, 1), ("float32", 1), (True, 1), (0.5, 1)]
    assert stray_values(RULES, rows) == {}


def test_keys_of_one_axis_and_no_keys():
    """Nothing comes after the last axis, so it has no ragged values."""
    assert stray_values(RULES[1:], [(1,), (2,)]) == {}
    assert stray_values(RULES, []) == {}


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=5, unique=True),
    st.integers(0, 60),
    st.sampled_from(["nearest", "ceil", "floor"]),
)
def test_the_calls_of_a_stray_size_are_those_that_the_picker_gives_it(sizes, stray, match):
    """The range is the picker's own, on every call near it."""
    rules = (Rule(axis="size", match=match), RULES[1])
    rows = full([size for size in sizes if size != stray])
    rows.append((stray, 4))
    picker = compile_picker(
        rules, [dict(zip(("size", "tokens"), row, strict=True)) for row in rows], {}
    )
    for one in ragged(rules, rows):
        for call in range(130):
            index = picker.pick((call, 1)).index
            inside = (one.low is None or one.low <= call) and (one.high is None or call <= one.high)
            assert (index is not None and rows[index][0] == stray) == inside
