"""Sizes that are 1 in some calls and larger in others, and the cases that both would reach."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from attrs import evolve

from kernelpkg.configs.picker import compile_picker
from kernelpkg.manifest.spec import Rule
from kernelpkg.packs.read import read_kernel, read_pack
from kernelpkg.vllm.vendor.op_sizes import FreeSizes, Unclassed, free_sizes, shared_case

ROOT = Path(__file__).parents[3]

FIX = "with hl.specialize in the kernel, and name what it fixes in [helion] specialize"


@pytest.fixture
def free(copied):
    """Returns the free sizes of a kernel that specialises some axes, with edits of its manifest."""

    def free(specialize, *edits):
        pack = copied("sizes")
        for old, new in [("[axes]", f"[helion]\nspecialize = {specialize}\n[axes]"), *edits]:
            pack.edit("kernels/k/kernel.toml", old, new)
        spec = read_kernel(pack.root, "k")
        return free_sizes(spec, function_of(spec))

    return free


def function_of(spec):
    tree = ast.parse((Path(spec.directory) / spec.source.file).read_text())
    return next(n for n in tree.body if getattr(n, "name", None) == spec.source.name)


def guard(text):
    return ("when = [", f'when = ["{text}", ')


OUT = 'out = { shape = ["tall"]'
FREE = {
    "all that is not specialised": (
        [], [guard("n < 2"), ("n = 2", "n = 1")], ("tall", "width"),
    ),
    "a number, and a size": (["width"], [], ("tall", "n")),
    "none": (["tall", "width", "n"], [], ()),
    "never 1": (
        ["n"], [guard("width in [64, 128]"), ("width = 4", "width = 64")], ("tall",)
    ),
    "never more than 1": (["n"], [guard("width == 1"), ("width = 4", "width = 1")], ("tall",)),
    "a multiple is never 1": (
        ["n", "width"], [(OUT, 'out = { shape = ["2 * tall"]'),
        ('x = { shape = ["tall", "width"]', 'x = { shape = ["2 * tall", "width"]'),
        ('"x.shape[0]"', '"x.shape[0] // 2"')], (),
    ),
    "made of what is specialised": (["n", "width"], [(OUT, 'out = { shape = ["width * n"]')],
                                    ("tall",)),
    "a product of two": (["n"], [(OUT, 'out = { shape = ["tall * width"]')], ("tall", "width")),
}  # fmt: skip


@pytest.mark.parametrize(("specialize", "edits", "want"), FREE.values(), ids=FREE)
def test_free_axes(free, specialize, edits, want):
    """Those of sizes that the manifest does not name, and that guards let be 1 and larger."""
    assert free(specialize, *edits) == FreeSizes(axes=want, spread=())


SPREAD = {
    "leading sizes": ('"*tall"', ("x",)),
    "a product that is specialised": ('"*width"', ("x",)),
    "ones alone": ('"*1"', ()),
}


@pytest.mark.parametrize(("size", "want"), SPREAD.values(), ids=SPREAD)
def test_sizes_that_are_spread_are_free_each(free, size, want):
    """That their product is known says nothing of which of them is 1."""
    edit = ('x = { shape = ["tall", "width"]', f'x = {{ shape = [{size}, "width"]')
    assert free(["width", "n"], edit, ('"x.shape[0]"', '"out.shape[0]"')).spread == want


UNCLASSED = {
    "a quotient": (
        ["n", "width"],
        [(OUT, 'out = { shape = ["tall // 2"]')],
        (
            "size 0 of 'out', tall // 2, may be 1 or larger, and whether it is does not follow "
            f"from tall being 1 (for instance with tall=4); fix it {FIX}"
        ),
    ),
    "three, for nothing is said": (
        [],
        [],
        (
            "tall, width, n may each be 1 or larger, and default configs are kept apart for 2 "
            f"axes at most; fix some of them {FIX}"
        ),
    ),
    "a size made of three": (
        [],
        [(OUT, 'out = { shape = ["tall * width * n"]')],
        f"size 0 of 'out', tall * width * n, is made from 3 free sizes; fix some {FIX}",
    ),
    "a number without an axis": (
        ["width"],
        [
            ('n = "n"\n', ""), ('"flag", "n"]', '"flag"]'), ("n = 2, ", ""),
            ("[args]", "[args]\nn = 2"),
        ],
        (
            "argument 'n' may be 1 or larger, and no axis is 'n'; give it an axis, and a rule, or "
            f"fix it {FIX}"
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("specialize", "edits", "want"), UNCLASSED.values(), ids=UNCLASSED)
def test_sizes_that_no_key_keeps_apart(free, specialize, edits, want):
    """What a size is 1 by has to be told by axes that are 1."""
    with pytest.raises(Unclassed) as caught:
        free(specialize, *edits)
    assert str(caught.value) == want


def test_a_number_that_the_kernel_never_reads_is_not_free():
    """The last argument of fused_qk_norm_rope is vLLM's, and ours does nothing with it."""
    spec = read_kernel(ROOT, "fused_qk_norm_rope")
    assert spec.schema.arg("forced_token_heads_per_warp").type == "int"
    assert free_sizes(spec, function_of(spec)).axes == ("num_tokens",)


@pytest.mark.parametrize("name", read_pack(ROOT, "kernelpkg").kernels)
def test_only_the_tokens_are_free_in_the_first_pack(name):
    """All other sizes are fixed; silu_mul_fp8 alone takes tensors of any rank."""
    spec = read_kernel(ROOT, name)
    spread = ("input",) if name == "silu_mul_fp8" else ()
    want = FreeSizes(axes=("num_tokens",), spread=spread)
    assert free_sizes(spec, function_of(spec)) == want


BASE = read_kernel(ROOT, "silu_mul_fp8")

SHARED = {
    "ceil without 1": (Rule(axis="tall", match="ceil"), [16, 32], (16, 2)),
    "ceil with 1": (Rule(axis="tall", match="ceil"), [1, 2, 4], None),
    "ceil with a gap": (Rule(axis="tall", match="ceil"), [1, 64], None),
    "ceil of 1 alone": (Rule(axis="tall", match="ceil"), [1], (1, 2)),
    "ceil of 1 alone, else a miss": (Rule(axis="tall", match="ceil", over="miss"), [1], None),
    "floor with a gap": (Rule(axis="tall", match="floor"), [1, 64], (1, 2)),
    "floor without": (Rule(axis="tall", match="floor"), [1, 2, 64], None),
    "floor above 1": (Rule(axis="tall", match="floor"), [4], (4, 2)),
    "floor above 1, else a miss": (Rule(axis="tall", match="floor", under="miss"), [4], None),
    "nearest far apart": (Rule(axis="tall", match="nearest"), [1, 64], (1, 2)),
    "nearest side by side": (Rule(axis="tall", match="nearest"), [1, 2], None),
    "nearest of a tie": (Rule(axis="tall", match="nearest"), [1, 3], (1, 2)),
    "nearest within a bound": (Rule(axis="tall", match="nearest", max=0.25), [1, 64], None),
    "nearest by ratio": (
        Rule(axis="tall", match="nearest", distance="log"), [1, 64], (1, 2)
    ),
    "powers of two": (Rule(axis="tall", match="pow2"), [1, 2, 4], None),
    "a power of two alone": (Rule(axis="tall", match="pow2"), [1], (1, 2)),
    "ranges apart": (Rule(axis="tall", match="ranges", bounds=(1, 32)), [1, 16, 64], None),
    "a range with both": (Rule(axis="tall", match="ranges", bounds=(32,)), [16, 64], (16, 2)),
    "a range with 1 tuned": (Rule(axis="tall", match="ranges", bounds=(32,)), [1, 16], None),
    "exact": (Rule(axis="tall", match="exact"), [1, 4], None),
    "ignored": (Rule(axis="tall", match="ignore"), [1, 4], (1, 2)),
}  # fmt: skip


@pytest.mark.parametrize(("rule", "tuned", "want"), SHARED.values(), ids=SHARED)
def test_shared_cases(rule, tuned, want):
    """The first case that a call of 1 and a larger one reach, and the smallest of the larger."""
    rules = (Rule(axis="width", match="exact"), rule)
    spec = evolve(BASE, rules=rules, guards=())
    keys = [{"width": 8, "tall": tall} for tall in tuned]
    found = shared_case(spec, keys, "tall")
    assert found == (None if want is None else ({"width": 8, "tall": want[0]}, want[1]))
    pick = compile_picker(rules, keys, {}).pick
    shared = [n for n in range(2, 300) if pick((8, n)).index == pick((8, 1)).index is not None]
    assert (shared[:1] or None) == (None if want is None else [want[1]])


def test_a_case_is_shared_where_no_rule_looks_at_the_size():
    spec = evolve(BASE, rules=(Rule(axis="width", match="exact"),), guards=())
    assert shared_case(spec, [{"width": 8}], "tall") == ({"width": 8}, 2)
    assert shared_case(spec, [], "tall") is None


def test_one_shared_case_among_many_is_found():
    """Each set of values of the axes before has a search of its own; one lacks a case of 1."""
    rules = (Rule(axis="width", match="nearest"), Rule(axis="tall", match="ceil"))
    spec = evolve(BASE, rules=rules, guards=())
    keys = [{"width": w, "tall": r} for w in (8, 16, 32) for r in (1, 4) if (w, r) != (16, 1)]
    assert shared_case(spec, keys, "tall") == ({"width": 16, "tall": 4}, 2)


def test_axes_behind_the_size_do_not_matter():
    """What comes after is narrowed for both calls alike."""
    rules = (Rule(axis="tall", match="nearest"), Rule(axis="width", match="exact"))
    spec = evolve(BASE, rules=rules, guards=())
    keys = [{"tall": r, "width": w} for r in (1, 64) for w in (8, 16)]
    assert shared_case(spec, keys, "tall") == ({"tall": 1, "width": 8}, 2)
