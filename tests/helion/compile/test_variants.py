"""Structural fingerprints: equal for what Helion compiles alike, others where it does not."""

from __future__ import annotations

import re

from kernelpkg.compile.variants import fingerprints
from kernelpkg.packs.read import read_kernel


def take(demo):
    return fingerprints(read_kernel(demo.root, "twice"))


def test_they_follow_from_the_structure_and_not_from_comments_or_constants(demo):
    before = take(demo)
    assert len(before) == 1
    assert all(re.fullmatch("sha256-[0-9a-f]{64}", digest) for digest in before.values())
    demo.edit("kernels/twice/kernel.py", "* 2", "* 3  # three")
    assert take(demo) == before


def test_another_load_is_another_structure(demo):
    before = take(demo)
    demo.edit("kernels/twice/kernel.py", "input[tile] * 2", "input[tile] + input[tile] * 2")
    after = take(demo)
    assert after.keys() == before.keys()
    assert after != before


def test_each_variant_has_its_own(demo):
    for old, new in (
        ('"input.shape[0]"', '"input.shape[0]"\ndtype = "input.dtype"'),
        ('axis = "num_tokens"', 'axis = ["dtype", "num_tokens"]'),
        ('match = "ceil"', 'match = "exact"'),
        ("num_tokens = [1, 4]", 'num_tokens = [4]\ndtype = ["float32", "bfloat16"]'),
        ('dtype = "float32"', 'dtype = "dtype"'),
    ):
        demo.edit("kernels/twice/kernel.toml", old, new)
    assert len(take(demo)) == 2
