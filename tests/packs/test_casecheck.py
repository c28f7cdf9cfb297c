"""Cases held against rules: what is not looked at because it cannot be, and what is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelpkg.configs.picker import compile_picker
from kernelpkg.errors import PackError
from kernelpkg.manifest.spec import Rule
from kernelpkg.packs.casecheck import _finds_itself
from kernelpkg.packs.read import read_kernel

GOOD = Path(__file__).parents[1] / "golden" / "good"
RULES = st.builds(
    Rule,
    axis=st.just("?"),
    match=st.sampled_from(["exact", "nearest", "ceil", "floor", "pow2", "ranges", "ignore"]),
    distance=st.sampled_from(["abs", "log"]),
    max=st.sampled_from([None, 0.0, 0.5]),
    over=st.sampled_from(["largest", "miss"]),
    under=st.sampled_from(["smallest", "miss"]),
    bounds=st.sampled_from([(), (0,), (4, 9)]),
)
NUMBERS = st.one_of(st.integers(-2, 20), st.sampled_from([0.5, 2.5]))


@given(st.lists(RULES.filter(_finds_itself), min_size=1, max_size=3), st.data())
def test_rules_that_are_not_looked_at_lose_no_case(rules, data):
    """Where every rule finds its own tuned values, every case is reached by its own call."""
    rules = [Rule(axis=f"a{n}", match=r.match, max=r.max, over=r.over, under=r.under, bounds=r.bounds) for n, r in enumerate(rules)]  # fmt: skip  # noqa: E501
    rows = data.draw(st.sets(st.tuples(*(NUMBERS for _ in rules)), min_size=1, max_size=8))
    keys = [{rule.axis: value for rule, value in zip(rules, row, strict=True)} for row in rows]
    assert compile_picker(rules, keys, {}).unreachable() == ()


def read_edited(tmp_path, *edits):
    shutil.copytree(GOOD, tmp_path / "good")
    path = tmp_path / "good" / "kernels" / "x" / "kernel.toml"
    text = path.read_text()
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return read_kernel(tmp_path / "good", "x")


def test_sizes_that_a_ratio_or_a_power_cannot_reach_are_told(tmp_path):
    """Zero has no ratio to anything, so a case with it would be tuned for nobody."""
    grid = "num_tokens = [1, 16]"
    log = 'axis = "num_tokens"\nmatch = "nearest"\ndistance = "log"'
    with pytest.raises(PackError) as caught:
        read_edited(
            tmp_path,
            (grid, "num_tokens = [0, 1, 16]"),
            ('axis = "num_tokens"\nmatch = "ceil"', log),
        )
    assert str(caught.value) == (
        "kernels/x/kernel.toml:46: KP143 case num_tokens=0, hidden_size=64, group=4, "
        "dtype=bfloat16, has_residual=true would be tuned, and no call could reach it "
        "(nor 3 others); change the case or the rules"
    )


def test_cases_for_tests_alone_need_not_be_reachable(tmp_path):
    """What is not tuned has no key."""
    log = 'axis = "num_tokens"\nmatch = "pow2"'
    spec = read_edited(tmp_path, ('axis = "num_tokens"\nmatch = "ceil"', log))
    assert spec.grids[1].axes["num_tokens"] == (0, 3)


def test_a_kernel_with_a_generator_makes_its_own_arguments(tmp_path):
    """[args] is for calls alone then, and its sizes are not computed for cases."""
    edits = [
        ("[inputs]\n", '[inputs]\ngenerator = "host.py:inputs"\n'),
        ('"hidden_size // group", "group"]', '"hidden_size // (num_tokens - 1)"]'),
    ]
    assert read_edited(tmp_path, *edits).generator is not None
