"""Which ops lack a file for which platform, and what their calls get instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernelpkg.check.missingfiles import missing_files
from kernelpkg.packs.read import read_kernel, read_pack

OPS = ("a", "b")


@pytest.fixture
def missing(demo):
    """Returns the findings of two ops, given which have files, as (path, what calls get)."""

    def run(there, wanted=(), manifest=None):
        if manifest is not None:
            demo.edit("kernels/twice/kernel.toml", *manifest)
        spec = read_kernel(Path(demo.root), "twice")
        pack = read_pack(demo.root, "demo")
        found = list(missing_files(pack, OPS, dict.fromkeys(OPS, spec), set(there), wanted))
        assert all((f.code, f.severity) == ("KP208", "unverified") for f in found)
        return {f.path.removeprefix("configs/"): f.message.split("; ")[1] for f in found}

    return run


def test_where_all_ops_are_tuned_nothing_is_missing(missing):
    assert missing([(op, name) for op in OPS for name in ("nvidia_h200", "nvidia_b200")]) == {}
    assert missing([]) == {}


def test_calls_borrow_from_what_fits(missing):
    """Newer GPUs first from their own family; none from one with more shared memory."""
    there = [("a", "nvidia_b200"), ("b", "nvidia_h100"), ("a", "nvidia_l4")]
    assert missing(there) == {
        "a/nvidia_h100.json": "calls on it borrow from nvidia_l4, nvidia_b200, then take Helion's "
        "own default",
        "b/nvidia_b200.json": "calls on it borrow from nvidia_h100, then take Helion's own default",
        "b/nvidia_l4.json": "calls on it take Helion's own default",
    }


def test_the_default_of_the_manifest_is_named(missing):
    manifest = ('requires = ">=1.4"', 'requires = ">=1.4"\ndefault = { num_warps = 4 }')
    assert missing([("a", "nvidia_h200")], manifest=manifest) == {
        "b/nvidia_h200.json": "calls on it take [helion] default"
    }


def test_a_miss_that_is_an_error_is_said(missing):
    manifest = ("[inputs]", '[miss]\naction = "error"\n[inputs]')
    assert missing([("a", "nvidia_h200")], manifest=manifest) == {
        "b/nvidia_h200.json": "calls on it raise, for [miss] action is 'error'"
    }


def test_platforms_that_are_asked_for_are_wanted_of_every_op(missing):
    """Though none has them; others are left out."""
    found = missing([("a", "nvidia_h200")], wanted=["nvidia_l4"])
    assert list(found) == ["a/nvidia_l4.json", "b/nvidia_l4.json"]


@pytest.mark.parametrize("name", ["cpu", "my_gpu", "nvidia_h200_nvl"])
def test_platforms_that_no_gpu_looks_up_are_wanted_of_none(missing, name):
    assert missing([("a", name)]) == {}
