"""Level 2 apart from compilers: what is compiled, once, ahead, and what is said where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernelpkg.check.level2 import check_compiling
from kernelpkg.compile.bind import Binding, NoInputs, Refused
from kernelpkg.compile.helion import HELION_VERSION

SILU, H200 = "silu_mul_fp8", "nvidia_h200"
GOOD = {"block_sizes": [1024, 1], "num_warps": 4}
SMALL = {"in_dtype": "bfloat16", "intermediate_size": 2048, "num_tokens": 16}
START = (
    f"configs/{SILU}/{H200}.json:7: {{}}config 0 "
    "(case num_tokens=16, intermediate_size=2048, in_dtype=bfloat16): "
)


@pytest.fixture(autouse=True)
def stubs(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))


def lines(checked):
    return [str(finding) for finding in checked.findings]


def raising(error):
    def launch(*_):
        raise error

    return launch


def test_code_that_helion_cannot_make(plant, monkeypatch):
    """It is an error of the config, for Helion has accepted it before."""
    monkeypatch.setattr(Binding, "launch", raising(Refused("BackendUnsupported: no such op")))
    checked = check_compiling(*plant({SILU: {H200: [(SMALL, GOOD)]}}), jobs=1)
    assert lines(checked) == [
        START.format("KP251 ")
        + f"Helion {HELION_VERSION} makes no code of it: BackendUnsupported: no such op"
    ]
    assert checked.counts == {"sources": 0, "resources": []}


def test_code_that_helion_cannot_make_for_what_it_does_not_know(plant, monkeypatch):
    """For AMD's GPUs that may be for lack of one, so it is unverified."""
    monkeypatch.setattr(Binding, "launch", raising(Refused("KeyError: x")))
    pack, specs = plant({SILU: {"amd_instinct_mi300x": [(SMALL, GOOD)]}})
    assert [(f.code, f.severity) for f in check_compiling(pack, specs, jobs=1).findings] == [
        ("KP251", "unverified")
    ]


def test_calls_that_cannot_be_looked_at_here(plant, monkeypatch):
    """A host part that launches two kernels is compiled by a GPU's machine alone."""
    error = NoInputs("its host part launches 2 kernels, and one is looked at")
    monkeypatch.setattr(Binding, "launch", raising(error))
    checked = check_compiling(*plant({SILU: {H200: [(SMALL, GOOD)]}}), jobs=1)
    assert lines(checked) == [
        START.format("KP255 unverified: ") + f"it cannot be compiled here: {error}"
    ]


def test_compilers_that_do_not_start(plant):
    """Without any, nothing is told of configs but that."""
    pack, specs = plant({SILU: {H200: [(SMALL, GOOD)]}})
    (line,) = lines(check_compiling(pack, specs, jobs=1, perform="stub_compilers:no_such"))
    start = START.format("KP255 unverified: ") + "nothing compiles here: no device is left: cpu:0: "
    assert line.startswith(start)
    assert "no_such" in line


def test_equal_sources_are_compiled_once(plant):
    """Two platforms of one architecture with one config: one source, and a row for each."""
    pack, specs = plant({SILU: {name: [(SMALL, GOOD)] for name in (H200, "nvidia_h100")}})
    steps = []
    checked = check_compiling(
        pack,
        specs,
        progress=lambda *step: steps.append(step),
        jobs=1,
        perform="stub_compilers:fragile",
    )
    assert checked.findings == ()
    assert checked.counts["sources"] == 1
    assert [row["platform"] for row in checked.counts["resources"]] == ["nvidia_h100", H200]
    assert steps[-1] == ("compiled", 2, 2)


def test_nothing_to_compile_starts_nothing(plant):
    """An op without configs takes no time."""
    assert check_compiling(*plant({SILU: {}}), perform="no:where").counts["sources"] == 0
