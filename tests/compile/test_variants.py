"""Cases by the facts that choose code, and the distinct configs of a file with what they serve."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kernelpkg.compile.variants import (
    case_of_key,
    facts_of,
    filed_configs,
    known_cases,
    variants_of,
)
from kernelpkg.manifest.cases import Case, is_empty
from kernelpkg.packs.read import read_kernel, read_pack

ROOT = Path(__file__).parents[2]
SPEC = read_kernel(ROOT, "silu_mul_fp8")


def case(tokens, size=2048, dtype="bfloat16"):
    values = {"num_tokens": tokens, "intermediate_size": size, "in_dtype": dtype}
    return Case(values=values, use=("tune",), grid=0)


def test_sizes_are_no_facts():
    """Two calls that differ in sizes alone need one piece of code."""
    assert facts_of(SPEC, case(1)) == facts_of(SPEC, case(4096, 8192))
    assert facts_of(SPEC, case(1)) == (("in_dtype", "bfloat16"),)


def test_cases_are_grouped_by_facts_in_their_order():
    """Empty calls launch nothing, and stand for no code."""
    found = variants_of(SPEC, [case(4), case(0), case(2, dtype="float16"), case(8)])
    assert [str(variant) for variant in found] == ["in_dtype=bfloat16", "in_dtype=float16"]
    assert [one.values["num_tokens"] for one in found[0].cases] == [4, 8]


def test_what_stands_for_a_variant_has_few_sizes_of_one():
    """A size of one has code of its own, so it stands for others only where there are none."""
    (both,) = variants_of(SPEC, [case(1, 8192), case(2), case(16)])
    assert both.largest.values["num_tokens"] == 16
    assert both.smallest.values["num_tokens"] == 2
    (one,) = variants_of(SPEC, [case(1, 8192), case(1)])
    assert one.largest.values["intermediate_size"] == 8192


@pytest.mark.parametrize(
    ("key", "values"),
    [
        pytest.param(
            {"in_dtype": "bfloat16", "intermediate_size": 2048, "num_tokens": 16},
            {"num_tokens": 16, "intermediate_size": 2048, "in_dtype": "bfloat16"},
            id="of the grid",
        ),
        pytest.param(
            {"num_tokens": 17, "intermediate_size": 96},
            {"num_tokens": 17, "intermediate_size": 96, "in_dtype": "bfloat16"},
            id="of no grid, with a default left out",
        ),
    ],
)
def test_the_case_of_a_key(key, values):
    """What a key does not name is as in the defaults; the order is that of the axes."""
    assert list(case_of_key(SPEC, key, known_cases(SPEC)).values.items()) == list(values.items())


@pytest.fixture
def planted(demo):
    """Write a config file of one kernel, and return what it has."""

    def filed(text):
        (demo.root / "kernels/silu_mul_fp8").symlink_to(ROOT / "kernels/silu_mul_fp8")
        demo.configs("silu_mul_fp8", text)
        return filed_configs(read_pack(demo.root, "demo"), SPEC, "nvidia_h200")

    return filed


def document(*cases):
    """A file with the same config twice, each config on two lines."""
    configs = [{"block_sizes": [64, 1], "num_warps": 4}, {"num_warps": 8}]
    return json.dumps(
        {
            "edition": 1,
            "kernel": "silu_mul_fp8",
            "platform": "nvidia_h200",
            "tuned_with": {},
            "configs": [configs[0], configs[1], dict(reversed(configs[0].items()))],
            "cases": [{"key": key, "config": config} for key, config in cases],
        },
        indent=1,
    )


def test_equal_configs_are_one_and_serve_the_cases_of_both(planted):
    """The config that no case has is left out, and each field has its line."""
    keys = [dict(case(tokens).values) for tokens in (1, 2)]
    (found,) = planted(document((keys[0], 0), (keys[1], 2)))
    assert (found.place, found.platform) == (0, "nvidia_h200")
    assert found.path == "configs/silu_mul_fp8/nvidia_h200.json"
    assert [one.values["num_tokens"] for one in found.variants[0].cases] == [1, 2]
    assert (found.line(), found.line("block_sizes"), found.line("num_warps")) == (7, 8, 12)
    assert found.line("num_stages") == found.line()


def test_the_case_without_a_key_stands_for_the_grid(planted):
    """It serves every call that no other case takes, of any size."""
    (found,) = planted(document(({}, 1)))
    tuned = [one for one in known_cases(SPEC) if "tune" in one.use and not is_empty(SPEC, one)]
    assert len(found.variants[0].cases) == len(tuned)


@pytest.mark.parametrize("text", ["", "{}", "[[", "\x00"])
def test_a_broken_file_has_none(planted, text):
    """Level 0 tells what is wrong with it."""
    assert planted(text) == ()
