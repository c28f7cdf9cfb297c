"""Level 1 over kernels whose configs are right."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from kernelpkg.check import level1
from kernelpkg.check.level1 import check_bindings, perform, specialised_axes
from kernelpkg.jobs.pool import JobOutcome
from kernelpkg.manifest.cases import Case
from kernelpkg.packs.read import read_kernel, read_pack

ROOT = Path(__file__).parents[3]
NAME, OTHER = "silu_mul_fp8", "dynamic_per_token_scaled_fp8_quant"
KEY = {"in_dtype": "bfloat16", "intermediate_size": 2048, "num_tokens": 16}


def test_the_first_pack_has_no_findings(specs):
    """One kernel of it here; the rest takes half a minute, and is in the benchmark."""
    steps = []
    pack = read_pack(ROOT, "kernelpkg")
    checked = check_bindings(pack, [specs[NAME]], progress=lambda *step: steps.append(step))
    assert checked.findings == ()
    assert checked.counts == {"variants": 3, "bindings": 9, "normalised": 9}
    assert steps == [(f"binding {NAME}", 0, 1), ("bound", 1, 1)]


def test_a_process_of_its_own_says_the_same(plant):
    """What is sent to a process and back is JSON, and holds every finding."""
    config = {"block_sizes": [64, 1], "num_warps": 4, "indexing": ["pointer"]}
    pack, specs = plant({NAME: {"nvidia_h200": [(KEY, config)]}})
    here = {"root": pack.root, "pack": pack.name, "overlays": []}
    answer = perform({**here, "kernel": NAME, "platforms": None})
    checked = check_bindings(pack, specs)
    assert answer["findings"] == [finding.to_json() for finding in checked.findings]
    assert len(answer["findings"]) == 1
    assert answer["counts"] == checked.counts


def test_processes_say_the_same_as_one(plant):
    """Two kernels in two processes: findings of both, in their order, and all counts."""
    other = {"hidden_size": 4096, "num_tokens": 16, "in_dtype": "bfloat16"}
    config = {"block_sizes": [1, 1, 1], "num_warps": 4}
    pairs = {NAME: (KEY, config), OTHER: (other, config)}
    pack, specs = plant({name: {"nvidia_h200": [pair]} for name, pair in pairs.items()})
    steps = []
    spread = check_bindings(pack, specs, progress=lambda *step: steps.append(step), jobs=2)
    assert spread == check_bindings(pack, specs, jobs=1)
    assert {finding.path.split("/")[1] for finding in spread.findings} == {NAME, OTHER}
    assert [step[1:] for step in steps] == [(0, 2), (1, 2), (2, 2), (2, 2)]


def test_a_process_that_is_lost_is_told_at_the_function(plant, monkeypatch):
    """What Helion does to a process is a finding of its kernel, and hides no other."""

    def run_jobs(jobs, *_):
        why = "lost twice, on cpu:0: its process was ended by SIGSEGV"
        return [JobOutcome(job=job, status="lost", reason=why, device="cpu:0") for job in jobs]

    monkeypatch.setattr(level1, "run_jobs", run_jobs)
    pack, specs = plant({NAME: {}, OTHER: {}})
    checked = check_bindings(pack, specs, jobs=2)
    assert [str(finding) for finding in checked.findings] == [
        f"kernels/{name}/kernel.py:7: KP240 binding it ended in 'lost': lost twice, on cpu:0: "
        "its process was ended by SIGSEGV; correct the function"
        for name in (OTHER, NAME)
    ]
    assert checked.counts == {"variants": 0, "bindings": 0, "normalised": 0}


SPECIALISED = {
    "a size": ('"tall"', {"x": (False, True)}, {"width"}),
    "a number": ('"tall"', {"n": (True,)}, {"n"}),
    "in another tensor": ('"tall"', {"out": (True,)}, {"tall"}),
    "through a multiple": ('"2 * tall"', {"out": (True,)}, {"tall"}),
    "through a negated sum": ('"-(1 - tall)"', {"out": (True,)}, {"tall"}),
    "through a product, the other known": (
        '"width * n"', {"n": (True,), "out": (True,)}, {"n", "width"},
    ),
    "not through a product of two unknown": ('"width * n"', {"out": (True,)}, set()),
    "not through a quotient": ('"tall // 2"', {"out": (True,)}, set()),
    "not within sizes that are spread": ('"*tall", "width"', {"out": (True, False, False)}, set()),
    "before and behind those": (
        '"n", "*tall", "width"', {"out": (True, False, False, True)}, {"n", "width"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("shape", "fixed", "want"), SPECIALISED.values(), ids=SPECIALISED)
def test_which_axes_a_binding_specialises(copied, shape, fixed, want):
    """Those that follow by [args] from what is part of Helion's key."""
    pack = copied("sizes")
    pack.edit("kernels/k/kernel.toml", 'out = { shape = ["tall"]', f"out = {{ shape = [{shape}]")
    values = {"tall": 2, "width": 4, "n": 2, "flag": True, "dtype": "float32"}
    case = Case(values=values, use=("tune",), grid=0)
    binding = SimpleNamespace(specialised=fixed, case=case)
    assert specialised_axes(read_kernel(pack.root, "k"), binding) == want
