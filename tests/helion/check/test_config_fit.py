"""A config against bindings that say what they want: no kernel is bound here."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from helion.autotuner.config_fragment import (
    BooleanFragment,
    EnumFragment,
    IntegerFragment,
    PowerOfTwoFragment,
)

from kernelpkg.check.causes import once_each
from kernelpkg.check.config_fit import fit, overfull
from kernelpkg.compile.bind import Refused, Target
from kernelpkg.compile.helion import HELION_VERSION
from kernelpkg.compile.variants import FiledConfig, Variant
from kernelpkg.configs import platforms
from kernelpkg.manifest.cases import Case

H200 = platforms.resolve("nvidia_h200")
MI300X = platforms.resolve("amd_instinct_mi300x")
LABEL = "c.json:3: {}config 0 (case n=16): "


def variant(**facts):
    case = Case(values={"n": 16}, use=("tune",), grid=0)
    return Variant(facts=tuple(facts.items()), cases=(case,))


def bound(made=None, *, target=(9, 0), **members):
    """What a kernel with one tile and two loads binds to; `made` is what Helion makes of it."""

    def normalised(config):
        if isinstance(made, Exception):
            raise made
        return {**config, **(made or {})}

    wanted = {
        "lengths": {"block_sizes": (1,), "indexing": (2,), "range_flattens": (1, 0)},
        "choices": {"indexing": ("pointer", "block_ptr"), "pid_type": ("flat", "xyz")},
        "limits": (64,),
        "fields": frozenset({"block_sizes", "indexing", "pid_type", "num_warps", "range_flattens"}),
        "target": Target(capability=target),
        "normalised": normalised,
        "tunables": {},
    }
    return SimpleNamespace(**{**wanted, **members})


def found(config, *pairs, platform=H200, place=0):
    pairs = pairs or ((variant(), bound()),)
    filed = FiledConfig(
        path="c.json",
        place=place,
        lines={"": 3},
        platform=platform.name,
        config=config,
        variants=tuple(one for one, _ in pairs),
    )
    return [str(finding) for finding in once_each(fit(filed, platform, pairs))]


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"block_sizes": [64], "indexing": ["pointer", "block_ptr"]}, id="lists"),
        pytest.param({"block_sizes": 64}, id="a number for a list of one"),
        pytest.param({"indexing": "pointer"}, id="a text for all entries"),
        pytest.param({"indexing": []}, id="a list that is Helion's own"),
        pytest.param({"range_flattens": [True]}, id="the entry of a newer release"),
        pytest.param({"pid_type": "xyz", "num_warps": 32}, id="the largest"),
    ],
)
def test_what_fits_is_not_told(config):
    assert found(config) == []


REGISTERED = {
    "split_k": PowerOfTwoFragment(1, 256),
    "depth": IntegerFragment(2, 5),
    "mode": EnumFragment((1, 3)),
    "flip": BooleanFragment(),
}


@pytest.mark.parametrize(
    ("name", "good", "bad", "wanted"),
    [
        ("split_k", 64, (0, 48, 512, True, "4", [4]), "a power of two from 1 to 256"),
        ("depth", 3, (1, 6, 2.5, None), "a whole number from 2 to 5"),
        ("mode", 3, (2, "1"), "one of 1, 3"),
        ("flip", True, (1, "true"), "true or false"),
    ],
)
def test_fields_that_a_kernel_registers_have_their_values(name, good, bad, wanted):
    """Helion looks at none of them before a search."""
    fields = frozenset({"block_sizes", *REGISTERED})
    binding = bound(tunables=REGISTERED, fields=fields)
    assert found({name: good}, (variant(), binding)) == []
    for value in bad:
        told = f"{name} is {json.dumps(value)}; as the kernel registers it, it must be {wanted}"
        assert found({name: value}, (variant(), binding)) == [LABEL.format("KP242 ") + told]


def test_a_field_that_no_variant_registers():
    binding = bound(case=variant().cases[0])
    assert found({"split_k": 4}, (variant(), binding)) == [
        LABEL.format("KP244 ")
        + "field 'split_k' is not registered by the kernel for n=16; remove it"
    ]


UNFIT = {
    "too short": (
        {"indexing": ["pointer"]},
        "KP241 @indexing has 1 entry, and the kernel has 2; tune it again",
    ),
    "block beyond its dimension": (
        {"block_sizes": [128]},
        "KP242 @block_sizes[0] is 128, and the dimension fills 64 at most; tune it again",
    ),
    "entry that is none": (
        {"indexing": ["pointer", "tensor_descriptor"]},
        "KP242 @indexing[1] is \"tensor_descriptor\", and must be one of 'pointer', 'block_ptr'",
    ),
    "stages": (
        {"num_stages": 12},
        "KP248 unverified: @num_stages is 12, above the 8 that Helion tunes; only a GPU can tell",
    ),
}


@pytest.mark.parametrize(("config", "line"), UNFIT.values(), ids=UNFIT)
def test_what_does_not_fit(config, line):
    """Each with the whole line, at that of the config."""
    told = found(config, (variant(), bound(fields=frozenset({*bound().fields, "num_stages"}))))
    assert told == [f"c.json:3: {line.replace('@', 'config 0 (case n=16): ')}"]


def test_a_refusal_names_the_variant():
    """Helion's own words stand behind the variant that they are of."""
    pair = (variant(dtype="int8"), bound(Refused("InvalidConfig: no")))
    assert found({"num_warps": 4}, pair) == [
        LABEL.format("KP243 ") + f"Helion {HELION_VERSION} refuses it for dtype=int8: "
        "InvalidConfig: no"
    ]


def test_a_refusal_without_the_gpu_is_unverified():
    """It may be for lack of the GPU, so it is not an error."""
    pair = (variant(), bound(Refused("InvalidConfig: no"), target=None))
    assert found({"num_warps": 4}, pair, platform=MI300X) == [
        LABEL.format("KP248 unverified: ")
        + f"Helion {HELION_VERSION} refuses it without the GPU: InvalidConfig: no"
    ]


@pytest.mark.parametrize(
    ("given", "made", "told"),
    [
        pytest.param([2], [0], True, id="unrolling that is lost"),
        pytest.param([2], None, True, id="dropped"),
        pytest.param([0], None, False, id="nothing that is dropped"),
        pytest.param([None], [], False, id="no value in a list"),
        pytest.param([True], [1], False, id="equal values"),
    ],
)
def test_what_helion_changes_in_silence(given, made, told):
    """A value that says nothing may go; any other may not."""
    lines = found({"range_flattens": given}, (variant(), bound({"range_flattens": made})))
    assert [line.split()[1] for line in lines] == ["KP245"] * told


def test_what_is_wrong_for_sure_is_not_asked_of_helion():
    """A list of a wrong length would be refused for it a second time."""
    pair = (variant(), bound(Refused("InvalidConfig: no")))
    assert [line.split()[1] for line in found({"indexing": ["pointer"]}, pair)] == ["KP241"]


def test_a_list_that_fits_one_of_two_variants():
    """Both are named, with what is right for each."""
    other = bound(lengths={"indexing": (3,)})
    pairs = ((variant(scale=True), bound()), (variant(scale=False), other))
    assert found({"indexing": ["pointer"] * 2}, *pairs) == [
        LABEL.format("KP246 ") + "indexing has 2 entries, as is right for scale=true, and 3 are "
        "for scale=false; give each a config of its own"
    ]


def test_a_default_serves_all_sizes():
    """A block that is too large for one of them is cut down, and none is wrong."""
    assert found({"block_sizes": [4096]}, place=-1) == []


def test_overfull_blocks():
    """Only where the code knows the size of the dimension."""
    binding = bound(limits=(64, None))
    assert overfull({"block_sizes": [128, 4096]}, binding) == [(0, 128, 64)]
    assert overfull({"block_sizes": ["128", True]}, binding) == []
    assert overfull({}, binding) == []


def test_whether_an_unknown_gpu_specialises_warps_cannot_be_told():
    """Helion wants no entries where a GPU cannot, and one for each loop where it can."""
    lengths = {"range_warp_specializes": (0,)}
    fields = frozenset({"range_warp_specializes"})
    config = {"range_warp_specializes": [True]}
    pair = (variant(), bound(target=None, lengths=lengths, fields=fields))
    (line,) = found(config, pair, platform=platforms.resolve("some_gpu"))
    assert line.endswith(
        "range_warp_specializes has 1 entry, and the kernel has 0 on GPUs that do not specialise "
        "warps; only a GPU can tell"
    )
    assert "KP248 unverified: " in line
    assert "KP241 " in found(config, (variant(), bound(lengths=lengths, fields=fields)))[0]
