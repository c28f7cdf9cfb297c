"""Which tuned values are ragged, and which calls they take."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelpkg.check.raggedkeys import ragged
from kernelpkg.configs.picker import compile_picker
from kernelpkg.manifest.spec import Rule

POWERS = [1 << power for power in range(14)]
SIZES = [2048, 4096, 8192]
RULES = (Rule(axis="size", match="nearest"), Rule(axis="tokens", match="ceil"))


def full(sizes: list[int] = SIZES, tokens: list[int] = POWERS) -> list[tuple[int, int]]:
    return list(itertools.product(sizes, tokens))


def found(rules: tuple[Rule, ...], rows: list[Any]) -> dict[int, tuple[int | None, int | None]]:
    """Return the ragged values with the calls that they take."""
    return {one.value: (one.low, one.high) for one in ragged(rules, rows)}


def test_a_full_product_has_none():
    assert found(RULES, full()) == {}


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
    assert found(RULES, [*full(), (stray, 256)]) == {stray: taken}


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
    assert found(RULES, [*full(), *full([6000], tokens)]) == {}


def test_powers_of_two_are_not_ragged_beside_every_eighth_number():
    """Tuned for the sizes of CUDA graphs here, and for ten powers of two there."""
    graphs = [1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)]
    rows = [*full(SIZES, graphs), *full([6000], POWERS[:10])]
    assert found(RULES, rows) == {}
    assert found(RULES, [*full(SIZES, graphs), *full([6000], [256, 264, 272])]) == {
        6000: (5049, 7096)
    }


def test_where_most_sizes_are_sparse_none_is_ragged():
    """That is how they were tuned: one size that has more makes strays of no others."""
    assert found(RULES, [*full([2048]), *full([4096, 8192, 16384], [1])]) == {}


def test_strays_do_not_hide_each_other():
    rows = [*full(), (6000, 256), (6100, 16)]
    assert found(RULES, rows) == {6000: (5049, 6050), 6100: (6051, 7146)}


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
    assert found((rule, RULES[1]), [*full(), (stray, 256)]) == taken


def test_variants_are_looked_at_apart():
    """A stray size of one variant is no stray in another that is sparse all over."""
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
    assert found(rules, [*rows, *strays]) == {6000: (5049, 7096)}
    assert found((rules[1], *RULES), [(0, *row) for row in [*full(), (6000, 1)]]) == {
        6000: (5049, 7096)
    }


def test_values_that_are_no_sizes_are_left_alone():
    rows = [*full(), (None, 1), ("float32", 1), (True, 1), (0.5, 1)]
    assert found(RULES, rows) == {}


def test_keys_of_one_axis_and_no_keys():
    """Nothing comes after the last axis, so it has no ragged values."""
    assert found(RULES[1:], [(1,), (2,)]) == {}
    assert found(RULES, []) == {}


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
