"""Which calls are chosen beside the tuned cases: by hand, and for the kernels of the first pack."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from kernelpkg.check.off_grid import Around
from kernelpkg.manifest.cases import Case, cases_of, guard_problem, is_empty, sizes
from kernelpkg.packs.read import kernel_names, read_kernel

ROOT = Path(__file__).parents[2]
NAMES = kernel_names(ROOT)


def around(demo: Any, keys: list[dict[str, Any]], **edits: str) -> Around:
    """The demo kernel with other text in its manifest, and some tuned keys."""
    for old, new in edits.items():
        demo.edit("kernels/twice/kernel.toml", OLD[old], new)
    return Around(spec=read_kernel(demo.root, "twice"), keys=tuple(keys))


OLD = {
    "axes": '[axes]\nnum_tokens = "input.shape[0]"\n',
    "rule": '[[key]]\naxis = "num_tokens"\nmatch = "ceil"\n',
    "inputs": "[inputs]\n[[inputs.grid]]\nnum_tokens = [1, 4]\n",
    "args": 'input = { shape = ["num_tokens"], dtype = "float32" }\n',
}
GUARD = '[guard]\nwhen = ["num_tokens % 128 == 0"]\n'
ROWS = {
    "axes": '[axes]\nnum_tokens = "input.shape[0]"\nwidth = "input.shape[1]"\n'
    'dtype = "input.dtype"\nmode = "input.stride(1)"\n',
    "rule": '[[key]]\naxis = ["dtype", "mode"]\nmatch = "exact"\n[[key]]\naxis = "width"\n'
    'match = "nearest"\n[[key]]\naxis = "num_tokens"\nmatch = "ceil"\n',
    "inputs": '[inputs]\ndefault = { dtype = "float32", mode = 1 }\n[[inputs.grid]]\n'
    "num_tokens = [1, 4]\nwidth = [64, 96]\n[[inputs.grid]]\nuse = ['test']\nnum_tokens = [3]\n"
    'width = [8]\nrows = [{ dtype = "bfloat16" }, { dtype = "float16", mode = 2 }]\n',
    "args": 'input = { shape = ["num_tokens", "width"], dtype = "dtype", '
    'strides = ["*", "mode"] }\n',
}


def tokens(cases: Any) -> list[int]:
    return sorted(case.values["num_tokens"] for case in cases)


def test_few_tuned_values(demo):
    """Each gap has a call beside each of its ends and one in its middle."""
    found = around(demo, [{"num_tokens": 16}, {"num_tokens": 64}]).off_grid()
    # Nothing; half of the least; just below and above each; the middle.
    assert tokens(found) == [0, 8, 15, 17, 40, 63, 65]


def test_many_tuned_values(demo):
    """With more than three gaps, these take turns: above the lower end, below the upper, middle."""
    keys = [{"num_tokens": count} for count in (1, 8, 16, 64, 256, 257, 512)]
    found = around(demo, keys).off_grid()
    assert tokens(found) == [0, 2, 15, 40, 65, 511, 513]


def test_guards_move_the_calls(demo):
    """Beside a tuned value means the nearest that the guards accept."""
    keys = [{"num_tokens": 256}, {"num_tokens": 1024}]
    edits = {"axes": OLD["axes"] + GUARD, "inputs": OLD["inputs"].replace("[1, 4]", "[256]")}
    assert tokens(around(demo, keys, **edits).off_grid()) == [0, 128, 384, 640, 896, 1152]


def test_ends_of_ranges(demo):
    """Ranges have a call at each bound, and one above it, tuned or not."""
    rule = OLD["rule"].replace('"ceil"', '"ranges"\nbounds = [100, 200]')
    found = around(demo, [{"num_tokens": 16}, {"num_tokens": 64}], rule=rule).off_grid()
    assert {100, 101, 200, 201} < set(tokens(found))


def test_without_tuned_keys(demo):
    """The grid for tuning stands in, and all of its cases are calls of their own."""
    found = around(demo, [])
    assert tokens(found.tuned) == [1, 4]
    assert tokens(found.grid_cases()) == [1, 4]
    assert tokens(found.off_grid()) == [0, 2, 3, 5]


def test_tuned_cases_are_not_run_twice(demo):
    """Cases of the grid that are tuned are none beside it."""
    assert tokens(around(demo, [{"num_tokens": 1}]).grid_cases()) == [4]
    assert tokens(around(demo, [{"num_tokens": 2}]).grid_cases()) == [1, 4]


def test_the_case_of_a_key(demo):
    """It is that of the grid, or one with the other values of the most similar grid case."""
    found = around(demo, [], **ROWS)
    key = {"dtype": "float32", "mode": 1, "width": 96, "num_tokens": 4}
    assert found.case_of(key) in cases_of(found.spec, "tune")
    key = {"dtype": "float16", "mode": 2, "width": 32, "num_tokens": 7}
    assert found.case_of(key).values == key
    assert tuple(found.case_of(key).values) == ("num_tokens", "width", "dtype", "mode")


def test_a_key_without_inputs_is_left_out(demo):
    """A tuned key that a guard refuses gives no calls."""
    edits = {"axes": OLD["axes"] + GUARD, "inputs": OLD["inputs"].replace("[1, 4]", "[256]")}
    assert tokens(around(demo, [{"num_tokens": 5}, {"num_tokens": 128}], **edits).tuned) == [128]


def test_variants_that_were_never_tuned(demo):
    """Each pair of values of their axes that no other call has, once; sizes are tuned ones."""
    keys = [
        {"dtype": "float32", "mode": 1, "width": width, "num_tokens": count}
        for width, count in itertools.product((64, 96), (1, 4))
    ]
    found = around(demo, keys, **ROWS)
    assert [(c.values["dtype"], c.values["mode"]) for c in found.untuned()] == [
        ("float32", 2),
        ("bfloat16", 2),
        ("float16", 1),
    ]
    assert {(c.values["width"], c.values["num_tokens"]) for c in found.untuned()} == {(64, 4)}
    assert [(c.values["dtype"], c.values["mode"]) for c in found.one_of_each()] == [
        ("float16", 2),
        ("bfloat16", 1),
        ("float32", 1),
    ]


def test_what_guards_list_and_no_grid_has(demo):
    """Dtypes and numbers, each in a call of its own; what cannot be made is left out."""
    guards = (
        '[guard]\nwhen = ["dtype in [float32, float16, bfloat16, float64]", "mode in [1, 2, 3]", '
        '"width == 96 or width < 70 or width == 0.5"]\n'
    )
    edits = {**ROWS, "axes": ROWS["axes"] + guards}
    found = around(demo, [], **edits).guarded()
    shown = [(case.values["dtype"], case.values["mode"]) for case in found]
    assert shown == [("float64", 2), ("float16", 3)]


def test_the_ends_of_each_count(demo):
    """None and one; the first call of a variant has several."""
    found = around(demo, [], **ROWS).ends()
    sizes = [(case.values["num_tokens"], case.values["width"]) for case in found]
    assert sizes == [(3, 0), (3, 1), (0, 8), (1, 8)]


def test_orders_share_a_config_where_they_can(demo):
    """The larger call is one with the config of the call of one, else the smallest."""
    found = around(demo, [{"num_tokens": count} for count in (1, 8, 64, 512)])
    sizes = {1: "a", 8: "b", 64: "a", 512: "a"}
    (pair,) = found.orders(lambda case: sizes.get(case.values["num_tokens"], "c"))
    assert (pair[0], tokens(pair[1:])) == ("num_tokens", [1, 64])
    (pair,) = found.orders(lambda case: case.values["num_tokens"])
    assert tokens(pair[1:]) == [1, 4]


def test_every_axis_that_may_be_one_has_its_order(demo):
    """For each variant of which a case is known; the two calls differ in that axis alone."""
    found = around(demo, [], **ROWS).orders(lambda case: 0)
    assert [(axis, one.values["dtype"]) for axis, one, _ in found] == [
        ("width", "float32"),
        ("num_tokens", "float32"),
    ]
    for axis, one, many in found:
        differing = {name for name in one.values if one.values[name] != many.values[name]}
        assert (differing, one.values[axis]) == ({axis}, 1)
        assert many.values[axis] > 1


def _chosen(name: str) -> tuple[Around, list[Case]]:
    spec = read_kernel(ROOT, name)
    keys = [dict(zip(spec.key_axes, c.key(spec), strict=True)) for c in cases_of(spec, "tune")]
    found = Around(spec=spec, keys=tuple(keys))
    pairs = found.orders(lambda case: 0)
    return found, [
        *found.grid_cases(),
        *found.off_grid(),
        *found.untuned(),
        *(case for _, one, many in pairs for case in (one, many)),
        *found.one_of_each(),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_call_of_the_first_pack_can_be_made(name):
    """Guards accept it, all arguments have a size, and there are no more than a GPU does soon."""
    found, chosen = _chosen(name)
    for case in chosen:
        assert guard_problem(found.spec, case) is None
        assert sum(size.bytes for size in sizes(found.spec, case)) < 8 << 30
        assert list(case.values) == [a.name for a in found.spec.axes if a.name in case.values]
    assert 40 <= len(chosen) <= 100


@pytest.mark.parametrize("name", NAMES)
def test_off_the_grid_of_the_first_pack(name):
    """Every axis with an ordered rule has calls below, between and above its tuned values."""
    found, _ = _chosen(name)
    calls = found.off_grid()
    tuned = {tuple(case.values.items()) for case in found.tuned}
    assert len({tuple(case.values.items()) for case in calls} - tuned) == len(calls)
    for rule in found.spec.rules:
        if rule.match == "exact":
            continue
        known = sorted({case.values[rule.axis] for case in found.tuned})
        values = {case.values[rule.axis] for case in calls} - set(known)
        if rule.axis in ("group_size", "head_dim"):  # guards name all that there are
            continue
        assert min(values) < known[0] <= known[-1] < max(values)
        if rule.match == "ceil":
            gaps = [(low, high) for low, high in itertools.pairwise(known) if high > low + 1]
            assert all(any(low < value < high for value in values) for low, high in gaps)
    exact = [rule.axis for rule in found.spec.rules if rule.match == "exact"]
    variants = {tuple(case.values[axis] for axis in exact) for case in found.tuned}
    assert {tuple(case.values[axis] for axis in exact) for case in calls} == variants
    assert {c.values["num_tokens"] for c in calls if is_empty(found.spec, c)} == {0}


def test_the_choice_is_always_the_same():
    """It follows from the manifest and the keys alone."""
    assert _chosen("rms_norm_per_block_quant")[1] == _chosen("rms_norm_per_block_quant")[1]
