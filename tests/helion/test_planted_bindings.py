"""Faults of levels 1 and 2 that are planted into copies of the first pack's kernels.

Each is passed by level 0, found at its own level, and told with the whole line.
"""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from kernelpkg.check.level0 import check_static
from kernelpkg.check.level1 import check_bindings
from kernelpkg.check.level2 import check_compiling
from kernelpkg.compile.helion import HELION_VERSION

HERE = str(Path(__file__).parent)
SILU, H200 = "silu_mul_fp8", "nvidia_h200"
GOOD = {"block_sizes": [1024, 1], "num_warps": 4}
FITTING = {
    **GOOD,
    "num_stages": 2,
    "pid_type": "persistent_blocked",
    "num_sm_multiplier": 2,
    "maxnreg": 64,
    "indexing": ["pointer", "tensor_descriptor", "pointer", "block_ptr"],
    "load_eviction_policies": ["", "first", "last"],
    "loop_orders": [[1, 0]],
    "l2_groupings": [4],
    "range_unroll_factors": [2],
    "range_multi_buffers": [None],
    "range_flattens": [True],
    "atomic_indexing": [],
}


LENGTHS = {
    "block sizes too many": ("block_sizes", [64, 1, 1], 2),
    "block sizes too few": ("block_sizes", [64], 2),
    "indexing too long": ("indexing", ["pointer"] * 5, 4),
    "indexing too short": ("indexing", ["pointer"] * 3, 4),
    "policies too long": ("load_eviction_policies", ["first"] * 4, 3),
    "policies too short": ("load_eviction_policies", ["first"], 3),
    "atomics that are not there": ("atomic_indexing", ["pointer"], 0),
    "modifiers that are not there": ("store_cache_modifiers", [""], 0),
    "loop orders too long": ("loop_orders", [[0, 1], [1, 0]], 1),
    "groupings too long": ("l2_groupings", [2, 2], 1),
    "reductions that are not there": ("reduction_loops", [64], 0),
    "unroll factors too long": ("range_unroll_factors", [2, 2], 1),
    "static ranges that are not there": ("static_ranges", [True], 0),
}
"""Lists of a wrong length: the field, what it is given, and how many entries the kernel has."""

ENTRIES = "KP241 @: {} has {} {}, and the kernel has {}, for in_dtype=bfloat16; tune it again"
INDEXING = "and must be one of 'pointer', 'block_ptr', 'tensor_descriptor'; did you mean"
REFUSED = f"KP243 @: Helion {HELION_VERSION} refuses it for in_dtype=bfloat16: InvalidConfig: "
PERSISTENT = "persistent pid_type ('persistent_blocked' or 'persistent_interleaved')"

# What is changed of a config, and the line of it; "@" stands for the config and its case.
FAULTS = {
    fault: (
        {name: given},
        ENTRIES.format(name, len(given), "entry" if len(given) == 1 else "entries", has),
    )
    for fault, (name, given, has) in LENGTHS.items()
} | {
    "indexing misspelt": (
        {"indexing": ["pointer", "pionter", "pointer", "pointer"]},
        f"KP242 @: indexing[1] is \"pionter\", {INDEXING} 'pointer'?",
    ),
    "one indexing for all misspelt": (
        {"indexing": "tensor_descriptors"},
        f"KP242 @: indexing is \"tensor_descriptors\", {INDEXING} 'tensor_descriptor'?",
    ),
    "block beyond its dimension": (
        {"block_sizes": [4096, 1]},
        "KP242 @: block_sizes[0] is 4096, and the dimension fills 2048 at most; tune it again",
    ),
    "field of another vendor": (
        {"waves_per_eu": 2},
        f"KP244 @: field 'waves_per_eu' is not known to Helion {HELION_VERSION}; tune it again",
    ),
    "order that is none": (
        {"loop_orders": [[0, 0]]},
        f"{REFUSED}config[loop_orders][0] must be permutation, got [0, 0]",
    ),
    "grouping that is not a power of two": (
        {"l2_groupings": [3]},
        f"{REFUSED}config[l2_groupings][0] must be a power of two, got 3",
    ),
    "registers of a kernel that is not persistent": (
        {"maxnreg": 64},
        f"{REFUSED}maxnreg=64 can only be used with {PERSISTENT}, got pid_type='flat'",
    ),
    "unrolling of a loop that is not there": (
        {"range_unroll_factors": [2], "pid_type": "flat"},
        "KP245 @: range_unroll_factors is [2], and in Helion becomes [0]; write what it does",
    ),
    "more stages than are tuned": (
        {"num_stages": 9},
        "KP248 unverified: @: num_stages is 9, above the 8 that Helion tunes; only a GPU can tell",
    ),
}


def lines(checked):
    return [str(finding) for finding in checked.findings]


def level_0(pack, specs):
    """The codes of level 0, without those that say what is not tuned and with what it was."""
    today = datetime.datetime.now(datetime.UTC).date()
    names = [str(spec.name) for spec in specs]
    checked, _ = check_static(pack, names, (), today, lambda *_: None)
    return {finding.code for finding in checked.findings} - {"KP207", "KP208", "KP226"}


def key(place):
    """A case key of the grid for each place of a file."""
    return {"in_dtype": "bfloat16", "intermediate_size": 2048, "num_tokens": 2**place}


@pytest.fixture(scope="module")
def planted(plant):
    """Files with a fault in each config, and one with none."""
    changes = [change for change, _ in FAULTS.values()]
    good = [(key(0), GOOD), (key(1), FITTING)]
    found = []
    for start in range(0, len(changes), 14):
        part = changes[start : start + 14]
        pairs = [(key(place), {**GOOD, **change}) for place, change in enumerate(part)]
        found.append(plant({SILU: {H200: pairs, "nvidia_h100": good}}))
    return found


@pytest.fixture(scope="module")
def told(planted):
    """The lines of all files, in the order of the faults."""
    return [lines(check_bindings(pack, specs)) for pack, specs in planted]


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_of_a_config(fault, told):
    """A fault of a config is told at its line, and nothing else is."""
    file, place = divmod(list(FAULTS).index(fault), 14)
    start = f"configs/{SILU}/{H200}.json:{7 + place}: "
    case = f"(case num_tokens={2**place}, intermediate_size=2048, in_dtype=bfloat16)"
    found = [line for line in told[file] if line.startswith(start)]
    assert found == [start + FAULTS[fault][1].replace("@", f"config {place} {case}")]


def test_level_0_passes_them(planted):
    """None of the faults could have been found lower."""
    assert [level_0(*pack) for pack in planted] == [set()] * len(planted)


def test_what_fits_is_not_told(told):
    """A config with a right value in every list, beside all the wrong ones, has no finding."""
    assert [line for found in told for line in found if "nvidia_h100" in line] == []


SMALL = {"in_dtype": "bfloat16", "intermediate_size": 2048, "num_tokens": 16}
LABEL = "config 0 (case num_tokens=16, intermediate_size=2048, in_dtype=bfloat16)"


def test_a_list_that_fits_one_variant_and_not_another(plant):
    """The slots of a list shift where an optional tensor is absent; both variants are named."""
    kernel = "dynamic_per_token_scaled_fp8_quant"
    config = {"block_sizes": [1], "num_warps": 4, "indexing": ["pointer"] * 7}
    keys = [
        {"hidden_size": 4096, "num_tokens": 16, "in_dtype": "bfloat16", "has_scale_ub": given}
        for given in (True, False)
    ]
    pack, specs = plant({kernel: {H200: [(key, config) for key in keys]}})
    assert level_0(pack, specs) == set()
    (line,) = lines(check_bindings(pack, specs))
    assert line == (
        f"configs/{kernel}/{H200}.json:7: KP246 config 0 (case num_tokens=16, hidden_size=4096, "
        "in_dtype=bfloat16, has_scale_ub=true): indexing has 7 entries, as is right for "
        "in_dtype=bfloat16, has_scale_ub=true, and 6 are for in_dtype=bfloat16, "
        "has_scale_ub=false; give each a config of its own"
    )


def test_a_kernel_that_does_not_bind(plant):
    """It is told at the line that Helion names, with its text."""
    edits = [
        (f"kernels/{SILU}/kernel.py", "torch.sigmoid(a)", "torch.sigmoid(a, b)"),
        (f"kernels/{SILU}/kernel.toml", 'in_dtype = ["bfloat16", "float16", "float32"]', ""),
    ]
    pack, specs = plant({SILU: {}}, edits)
    assert level_0(pack, specs) == set()
    (line,) = lines(check_bindings(pack, specs))
    assert line.startswith(
        f"kernels/{SILU}/kernel.py:28: KP240 does not bind for num_tokens=8192, "
        "intermediate_size=14336, in_dtype=bfloat16: "
    )
    assert line.endswith("; correct the function")


MANIFEST = f"kernels/{SILU}/kernel.toml"
OF_MANIFEST = {
    "unknown setting": (
        "settings = { no_such = 1 }",
        f"KP153 kernel '{SILU}': Helion {HELION_VERSION} has no setting 'no_such'",
    ),
    "setting of a wrong value": (
        'settings = { ignore_warnings = ["NoSuchWarning"] }',
        (
            f"KP153 kernel '{SILU}': ignore_warnings names 'NoSuchWarning', which helion.exc does "
            "not have"
        ),
    ),
    "default with too few blocks": (
        "default = { block_sizes = [64] }",
        (
            "KP241 [helion] default: block_sizes has 1 entry, and the kernel has 2, for "
            "in_dtype=bfloat16; tune it again"
        ),
    ),
    "release that is not here": (
        'requires = ">=99"',
        (
            "KP248 unverified: requires Helion >=99, and "
            f"{HELION_VERSION} is installed, so its code and configs cannot be checked"
        ),
    ),
}


@pytest.mark.parametrize("fault", OF_MANIFEST)
def test_fault_of_a_manifest(fault, plant):
    """What is wrong with [helion] is told at its line; level 0 cannot know."""
    text, start = OF_MANIFEST[fault]
    default = "default = { block_sizes = [1024, 1], num_warps = 4 }"
    pack, specs = plant({SILU: {}}, [(MANIFEST, default, text)])
    assert level_0(pack, specs) == set()
    (line,) = lines(check_bindings(pack, specs))
    assert line.startswith(f"{MANIFEST}:14: {start}")


SPECIALIZE = 'specialize = ["intermediate_size"]'
KERNEL = f"kernels/{SILU}/kernel.py"
WIDTH = "    width = hl.specialize(input.shape[-1])\n"
FOR_SOME = (
    "    width = input.shape[-1]\n    if input.dtype == torch.bfloat16:\n"
    "        hl.specialize(width)\n"
)
NOT_FOR = (
    f"{MANIFEST}:15: KP247 specialize names axis '{{}}', and Helion specialises no size that tells "
    "it for in_dtype={}; remove it, or call hl.specialize in the kernel, whatever the call"
)
NOT_NAMED = "which specialize does not name; write"
OF_SPECIALIZE = {
    "named, and not specialised": (
        (MANIFEST, SPECIALIZE, 'specialize = ["intermediate_size", "num_tokens"]'),
        NOT_FOR.format("num_tokens", "bfloat16"),
    ),
    "no longer specialised": (
        (KERNEL, "hl.specialize(input.shape[-1])", "input.shape[-1]"),
        NOT_FOR.format("intermediate_size", "bfloat16"),
    ),
    "specialised, and not named": (
        (MANIFEST, f"{SPECIALIZE}\n", ""),
        f"{MANIFEST}:13: KP247 Helion specialises intermediate_size, {NOT_NAMED} {SPECIALIZE}",
    ),
    "specialised for some dtypes": (
        (KERNEL, WIDTH, FOR_SOME),
        NOT_FOR.format("intermediate_size", "float16"),
    ),
}


@pytest.mark.parametrize(("edit", "line"), OF_SPECIALIZE.values(), ids=OF_SPECIALIZE)
def test_fault_of_specialize(edit, line, plant):
    """What the manifest says is specialised is what Helion specialises, for every variant."""
    pack, specs = plant({SILU: {}}, [edit])
    assert level_0(pack, specs) == set()
    assert lines(check_bindings(pack, specs)) == [line]


def test_what_cannot_be_told_without_the_gpu_is_unverified(plant):
    """AMD's GPUs and unknown ones: lists are errors, refusals are not, and each file says why."""
    amd = {**GOOD, "num_warps": 32, "waves_per_eu": 2, "indexing": ["pointer"]}
    files = {"amd_instinct_mi300x": [(SMALL, amd)], "some_gpu": [(SMALL, GOOD)]}
    place = f"configs/{SILU}/amd_instinct_mi300x.json"
    assert lines(check_bindings(*plant({SILU: files}))) == [
        (
            f"{place}: KP248 unverified: what Helion makes of configs for amd_instinct_mi300x "
            "(gfx942) cannot be checked without the GPU"
        ),
        (
            f"{place}:7: KP241 {LABEL}: indexing has 1 entry, and the kernel has 4, for "
            "in_dtype=bfloat16; tune it again"
        ),
        (
            f"{place}:7: KP242 {LABEL}: num_warps is 32, and a block of gfx942 has 16 waves at "
            "most; tune it again"
        ),
        (
            f"{place}:7: KP248 unverified: {LABEL}: field 'waves_per_eu' is nothing that Helion "
            f"{HELION_VERSION} takes without the GPU; only a GPU can tell"
        ),
        (
            f"configs/{SILU}/some_gpu.json: KP248 unverified: what Helion makes of configs for "
            "some_gpu cannot be checked, because its architecture is not known"
        ),
    ]


ONE_SIZE = [
    (MANIFEST, "[2048, 2880, 4096, 8192, 11008, 14336]", "[2048]"),
    (MANIFEST, "[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192]", "[16, 32]"),
]
"""The grid cut down, for every size of it is compiled for."""

AT = f"configs/{SILU}/{{}}.json:7: {{}}config 0 (case {{}})"
ONE, MORE = (f"num_tokens={n}, intermediate_size=2048, in_dtype=bfloat16" for n in (1, 2))


def test_faults_that_only_compilers_find(plant, monkeypatch, tmp_path):
    """Spills, and code that a GPU cannot run; levels 0 and 1 pass them.

    One token has code of its own, and is a second case of both.
    """
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    wide = {
        "block_sizes": [1024, 1],
        "num_warps": 1,
        "maxnreg": 32,
        "pid_type": "persistent_blocked",
    }
    files = {H200: [(SMALL, wide)], "nvidia_a100": [(SMALL, GOOD)], "some_gpu": [(SMALL, GOOD)]}
    pack, specs = plant({SILU: files}, ONE_SIZE)
    assert level_0(pack, specs) - {"KP202"} == set()
    assert {f.code for f in check_bindings(pack, specs).findings} == {"KP248"}
    checked = check_compiling(pack, specs, jobs=1)
    one, more = checked.counts["resources"]
    assert [row["case"]["num_tokens"] for row in (one, more)] == [1, 2]
    assert one["registers"] == more["registers"] == 32
    assert min(one["spills"], more["spills"]) > 0
    worst = max((one, more), key=lambda row: row["spills"])
    cases = f"{MORE if worst is more else ONE}, and 1 more"
    assert lines(checked) == [
        AT.format("nvidia_a100", "KP250 ", f"{ONE}, and 1 more") + ": it does not compile for "
        'sm_80: CompilationError: ValueError("type fp8e4nv not supported in this architecture. '
        "The supported fp8 dtypes are ('fp8e4b15', 'fp8e5')\")",
        AT.format(H200, "KP256 unverified: ", cases) + f": {worst['spills']} bytes of each "
        f"thread do not fit into registers on {H200}; only a GPU can tell what that costs",
        (
            f"configs/{SILU}/some_gpu.json: KP255 unverified: the architecture of some_gpu is not "
            "known; nothing is compiled"
        ),
    ]


def test_fp8_is_compiled_from_sm_89_on(plant):
    """docs/reference/platforms.md and the README say so; an A100 is among the faults above."""
    pack, specs = plant({SILU: {"nvidia_l40s": [(SMALL, GOOD)]}}, ONE_SIZE)
    checked = check_compiling(pack, specs, jobs=1)
    assert lines(checked) == []
    assert checked.counts["resources"][0]["registers"] > 0


STUBS = {
    "too much shared memory": (
        "hungry",
        "KP252 ",
        f"a block needs 300000 bytes of shared memory, and {H200} has 232448; tune it again",
    ),
    "compiler hangs": (
        "endless",
        "KP254 ",
        "compiling it for sm_90 took longer than 1 s, and was ended",
    ),
    "compiler fails": (
        "confused",
        "KP250 ",
        "it does not compile for sm_90: LookupError: no such pass",
    ),
}


@pytest.mark.parametrize("fault", STUBS)
def test_fault_of_a_compiler(fault, plant, monkeypatch):
    """Whatever a compiler does over a config is one finding of that config."""
    monkeypatch.syspath_prepend(HERE)
    name, code, text = STUBS[fault]
    pack, specs = plant({SILU: {H200: [(SMALL, GOOD)]}}, ONE_SIZE)
    perform = f"stub_compilers:{name}"
    checked = check_compiling(pack, specs, jobs=1, perform=perform, timeout=1)
    found = [line for line in lines(checked) if code in line]
    assert found == [AT.format(H200, code, f"{ONE}, and 1 more") + f": {text}"]


def test_a_compiler_that_crashes_keeps_no_other_config_from_compiling(plant, monkeypatch):
    """The config is told, with the signal; the next one is compiled by a new process."""
    monkeypatch.syspath_prepend(HERE)
    pairs = [(SMALL, {**GOOD, "num_warps": 8}), ({**SMALL, "num_tokens": 32}, GOOD)]
    pack, specs = plant({SILU: {H200: pairs}}, ONE_SIZE)
    checked = check_compiling(pack, specs, jobs=1, perform="stub_compilers:fragile")
    (line,) = lines(checked)
    start = AT.format(H200, "KP253 ", f"{ONE}, and 1 more") + ": the compiler crashed for sm_90: "
    assert line.startswith(start)
    assert "SIGSEGV" in line
    assert [row["config"] for row in checked.counts["resources"]] == [1]
