"""Level 1 over kernels whose configs are right."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from kernelpkg.check import level1
from kernelpkg.check.level1 import check_bindings, perform, specialised_axes
from kernelpkg.errors import Checked
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
    assert checked.counts == {"variants": 3, "bindings": 7, "normalised": 7}
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


def test_processes_say_the_same_as_one(demo):
    """Two kernels in two processes: findings of both, in their order, and all counts."""
    names = ("twice", "thrice")
    demo.kernel("thrice")
    for name in names:
        demo.configs(name)
        demo.edit(f"configs/{name}/nvidia_h200.json", "[16]", "[16, 1]")
    pack, specs = read_pack(demo.root, "demo"), [read_kernel(demo.root, name) for name in names]
    steps = []
    spread = check_bindings(pack, specs, progress=lambda *step: steps.append(step), jobs=2)
    assert spread == check_bindings(pack, specs, jobs=1)
    assert {finding.path.split("/")[1] for finding in spread.findings} == {*names}
    assert [step[1:] for step in steps] == [(0, 2), (1, 2), (2, 2), (2, 2)]


@pytest.mark.parametrize(
    ("kernels", "jobs", "started"),
    [(1, 8, 0), (3, None, 0), (2, 2, 2), (3, 8, 3), (4, None, 2), (7, None, 3), (99, None, 4)],
    ids=["one", "few", "few, asked for", "fewer than asked for", "four", "seven", "many"],
)
def test_processes_are_started_for_two_kernels_each(specs, monkeypatch, kernels, jobs, started):
    """Importing Helion in one takes as long as binding those; `jobs` has its way."""
    devices, nothing = [], dict.fromkeys(("variants", "bindings", "normalised"), 0)
    monkeypatch.setattr(level1, "cores", lambda: 4)
    monkeypatch.setattr(level1, "check_kernel", lambda *_: Checked(findings=(), counts=nothing))
    monkeypatch.setattr(level1, "run_jobs", lambda *args: devices.extend(args[2]) or ())
    check_bindings(read_pack(ROOT, "kernelpkg"), [specs[NAME]] * kernels, jobs=jobs)
    assert len(devices) == started


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


FAULTY = {
    "a generator that raises": (
        'generator = "host.py:make"',
        "def make(axes, generator, device):\n    return (torch.ones(4).to(str(axes)),)\n",
        "kernels/twice/host.py:9: KP249 no inputs are made for num_tokens=1 and 1 more: ",
    ),
    "a generator of other inputs": (
        'generator = "host.py:make"',
        "def make(axes, generator, device):\n    return (torch.ones(4),)\n",
        "kernels/twice/kernel.toml:16: KP145 inputs of num_tokens=1: its inputs have num_tokens=4",
    ),
    "a generator that asks for a GPU": (
        'generator = "host.py:make"',
        "def make(axes, generator, device):\n    raise RuntimeError('No CUDA GPUs are there')\n",
        "kernels/twice/host.py:9: KP248 unverified: no inputs are made for num_tokens=1 and 1 more",
    ),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_what_functions_of_a_kernel_raise_is_their_fault(demo, fault):
    """At the line that raises it, once for all cases; nothing is unverified for it."""
    keys, function, line = FAULTY[fault]
    demo.edit("kernels/twice/kernel.toml", "[inputs]\n", f"[inputs]\n{keys}\n")
    with (demo.root / "kernels/twice/host.py").open("a") as host:
        host.write(f"\n\n{function}")
    pack = read_pack(demo.root, "demo")
    (found,) = check_bindings(pack, [read_kernel(demo.root, "twice")]).findings
    assert str(found).startswith(line)


def test_inputs_that_need_data_keep_nothing_from_being_bound(demo):
    """Shape and dtype are those of [args]."""
    demo.edit("kernels/twice/kernel.toml", '"float32" }', '"float32", init = "host.py:made" }')
    with (demo.root / "kernels/twice/host.py").open("a") as host:
        host.write(
            "\n\ndef made(axes, args, generator):\n    counts = torch.bincount(torch.arange(9))\n"
            "    return torch.ones(axes['num_tokens']) * counts.max().item()\n"
        )
    checked = check_bindings(read_pack(demo.root, "demo"), [read_kernel(demo.root, "twice")])
    assert checked.findings == ()
    assert checked.counts["bindings"] == 1


def test_a_kernel_that_does_not_bind_is_told_once_where_it_is_wrong(demo):
    """Helion names the line; the text is its own, without its pages."""
    edits = (
        ('shape[0]"\n', 'shape[0]"\ndtype = "input.dtype"\n'),
        ("[[key]]\n", '[[key]]\naxis = "dtype"\nmatch = "exact"\n[[key]]\n'),
        ("num_tokens = [1, 4]\n", 'num_tokens = [1, 4]\ndtype = ["float32", "bfloat16"]\n'),
        ('dtype = "float32" }', 'dtype = "dtype" }'),
    )
    for old, new in edits:
        demo.edit("kernels/twice/kernel.toml", old, new)
    demo.edit("kernels/twice/kernel.py", "input[tile] * 2", "torch.sigmoid(input[tile], 2)")
    checked = check_bindings(read_pack(demo.root, "demo"), [read_kernel(demo.root, "twice")])
    (line,) = map(str, checked.findings)
    assert line.startswith(
        "kernels/twice/kernel.py:8: KP240 does not bind for num_tokens=4, dtype=float32 and 1 "
        "more: TorchOpTracingError: TypeError: "
    )
    assert line.endswith("(at 'torch.sigmoid(input[tile], 2)'); correct the function")


@pytest.mark.parametrize(
    ("name", "finding"),
    [
        ("concat", None),
        (
            "moving_sum",
            (
                "KP246 [helion] default has a list in 'loop_orders', and code of window=5, "
                "causal=false has other parts than that of window=3, causal=true; leave it out, "
                "because a default serves both"
            ),
        ),
    ],
)
def test_lists_of_a_default_are_for_code_of_the_same_parts(tmp_path, name, finding):
    """A window of three positions has three loads, and one of five has five."""
    kinds = Path(__file__).parents[2] / "packs" / "kinds"
    shutil.copytree(kinds / "kernels" / name, tmp_path / "kernels" / name)
    shutil.copytree(kinds / "manifests", tmp_path / "manifests")
    path = tmp_path / "kernels" / name / "kernel.toml"
    lists = "[helion]\ndefault = { block_sizes = [1, 64], loop_orders = [[1, 0]] }\n\n[axes]"
    path.write_text(path.read_text().replace("[axes]", lists))
    pack, spec = read_pack(tmp_path, "kinds"), read_kernel(tmp_path, name)
    found = [str(one).partition(": ")[2] for one in check_bindings(pack, [spec], jobs=1).findings]
    assert found == ([] if finding is None else [finding])
