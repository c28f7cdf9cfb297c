"""Which cases are tuned, in which order, and from which seeds."""

from __future__ import annotations

from typing import Any

import pytest

from kernelpkg.autotune.plan import Tuned, TuningPlan, plan_tuning, spread
from kernelpkg.configs import platforms
from kernelpkg.configs.selection import read_selection
from kernelpkg.errors import UsageError
from kernelpkg.packs.read import read_kernel, read_pack

HERE = platforms.resolve("nvidia_h200")

TOKENS = "num_tokens = [1, 4, 16, 64]"


def plan_of(demo: Any, **wanted: list[str]) -> TuningPlan:
    pack, spec = read_pack(demo.root, "demo"), read_kernel(demo.root, "twice")
    return plan_tuning(spec, read_selection(pack, spec, HERE), wanted)


@pytest.fixture
def wide(demo):
    """The pack with four cases to tune."""
    demo.edit("kernels/twice/kernel.toml", "num_tokens = [1, 4]", TOKENS)
    return demo


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7, 100], ids="n{}".format)
def test_a_spread_order_has_every_place_once(count):
    assert sorted(spread(count)) == list(range(count))


def test_a_spread_order_begins_with_the_ends_and_halves_the_widest_gaps():
    assert list(spread(9)) == [8, 0, 4, 2, 6, 1, 3, 5, 7]


def test_the_largest_case_comes_first_and_then_the_smallest(wide):
    assert [case.key["num_tokens"] for case in plan_of(wide).cases] == [64, 1, 4, 16]


def test_only_cases_with_the_wanted_values_are_planned(wide):
    cases = plan_of(wide, num_tokens=["4", "64"]).cases
    assert sorted(case.key["num_tokens"] for case in cases) == [4, 64]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"num_token": ["4"]}, "'twice' has no axis 'num_token'; did you mean 'num_tokens'?"),
        (
            {"num_tokens": ["5"]},
            "no case for tuning 'twice' has num_tokens=5; there are 1, 4, 16, 64",
        ),
    ],
    ids=["axis", "value"],
)
def test_what_no_case_has_is_wrong_usage(wide, wanted, message):
    with pytest.raises(UsageError) as caught:
        plan_of(wide, **wanted)
    assert str(caught.value) == message


def test_the_old_config_is_what_the_rules_pick_and_exact_only_for_its_own_case(wide):
    wide.configs("twice")  # has 1 and 4, with one config
    old = {case.key["num_tokens"]: (case.old, case.exact) for case in plan_of(wide).cases}
    config = {"block_sizes": [16], "num_warps": 4}
    assert old == {1: (config, True), 4: (config, True), 16: (config, False), 64: (config, False)}


def test_a_config_of_another_platform_is_old_and_a_default_is_not(wide):
    assert {case.old for case in plan_of(wide).cases} == {None}
    wide.configs("twice")
    wide.edit("configs/twice/nvidia_h200.json", "nvidia_h200", "nvidia_h100")
    file = wide.root / "configs/twice/nvidia_h200.json"
    file.rename(file.with_stem("nvidia_h100"))
    assert all(case.old and not case.exact for case in plan_of(wide).cases)


def test_the_call_beside_a_case_is_one_off_and_gets_its_config(wide):
    beside = {
        case.key["num_tokens"]: case.beside and case.beside.values["num_tokens"]
        for case in plan_of(wide).cases
    }
    assert beside == {1: None, 4: 3, 16: 15, 64: 63}


def test_a_call_of_one_may_get_the_config_of_every_case_until_others_are_tuned(wide):
    plan = plan_of(wide)
    alone = {case.key["num_tokens"]: plan.single(case, [case]) for case in plan.cases}
    assert {tokens: one and one.values["num_tokens"] for tokens, one in alone.items()} == {
        1: None,  # it is one
        4: 1,
        16: 1,
        64: 1,
    }
    assert [plan.single(case, plan.cases) for case in plan.cases] == [None] * 4
    without = [case for case in plan.cases if case.key["num_tokens"] != 1]
    least = [case.key["num_tokens"] for case in without if plan.single(case, without)]
    assert least == [4]


def test_a_call_beside_a_case_that_is_one_is_not_run_twice(wide):
    wide.edit("kernels/twice/kernel.toml", TOKENS, "num_tokens = [2, 64]")
    plan = plan_of(wide)
    (two,) = [case for case in plan.cases if case.key["num_tokens"] == 2]
    assert two.beside is not None and two.beside.values["num_tokens"] == 1
    assert plan.single(two, [two]) is None


def test_a_call_beside_a_case_is_one_that_the_guards_accept(wide):
    wide.edit(
        "kernels/twice/kernel.toml", "[[key]]", '[guard]\nwhen = ["num_tokens != 15"]\n[[key]]'
    )
    beside = {case.key["num_tokens"]: case.beside for case in plan_of(wide).cases}
    assert beside[16] is None


def test_seeds_are_the_old_config_and_then_those_of_the_nearest_cases(wide):
    wide.configs("twice")
    plan = plan_of(wide)
    middle = next(case for case in plan.cases if case.key["num_tokens"] == 16)
    tuned = [
        Tuned(key={"num_tokens": count}, config={"block_sizes": [count]})
        for count in (1, 4, 16, 64, 1024, 4096)
    ]
    seeds = plan.seeds(middle, tuned)
    assert seeds == (
        {"block_sizes": [16], "num_warps": 4},
        {"block_sizes": [4]},
        {"block_sizes": [64]},
        {"block_sizes": [1]},
    )


def test_a_seed_of_another_variant_has_no_positional_lists(demo):
    manifest = "kernels/twice/kernel.toml"
    demo.edit(manifest, "[[key]]", '[[key]]\naxis = "dtype"\nmatch = "exact"\n[[key]]')
    demo.edit(manifest, "[[key]]", "[[key]]")
    demo.edit(manifest, '"input.shape[0]"', '"input.shape[0]"\ndtype = "input.dtype"')
    demo.edit(manifest, "[inputs]", '[inputs]\ndefault = { dtype = "float32" }')
    demo.edit(manifest, 'dtype = "float32" }\n[accuracy]', 'dtype = "dtype" }\n[accuracy]')
    plan = plan_of(demo)
    config = {"block_sizes": [8], "indexing": ["pointer", "pointer"]}
    tuned = [Tuned(key={"dtype": "float16", "num_tokens": 4}, config=config)]
    assert plan.seeds(plan.cases[0], tuned) == ({"block_sizes": [8]},)
    same = [Tuned(key={"dtype": "float32", "num_tokens": 2}, config=config)]
    assert plan.seeds(plan.cases[0], same) == (config,)


def test_there_are_at_most_eight_seeds_and_the_default_is_one(wide):
    wide.edit("kernels/twice/kernel.toml", 'requires = ">=1.4"', "default = { num_warps = 8 }")
    plan = plan_of(wide)
    assert plan.seeds(plan.cases[0], []) == ({"num_warps": 8},)
