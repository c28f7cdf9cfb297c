"""What level 3 would run, on GPUs and in the interpreter, and what it says that it does not."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from kernelpkg.check.run_plan import Planned, Run, plan_runs
from kernelpkg.configs.platforms import CPU, Platform, resolve
from kernelpkg.manifest.spec import PackSpec
from kernelpkg.packs.read import kernel_names, read_kernel, read_pack

ROOT = Path(__file__).parents[2]
NAMES = kernel_names(ROOT)
H200, A100, HERE = resolve("nvidia_h200"), resolve("nvidia_a100"), resolve(CPU)

CONFIGS = """\
{
  "edition": 1,
  "kernel": "twice",
  "platform": "PLATFORM",
  "tuned_with": {},
  "configs": [{"block_sizes": [16], "num_warps": 4}, {"block_sizes": [64], "num_warps": 8}],
  "cases": [{"key": {"num_tokens": 1}, "config": 0}, {"key": {"num_tokens": 64}, "config": 1}]
}
"""
SMALL = 'with config {"block_sizes": [16], "num_warps": 4}'


@pytest.fixture
def twice(demo: Any) -> Any:
    """The demo pack with configs of two platforms."""
    for platform in ("nvidia_h200", "nvidia_a100"):
        demo.configs("twice", CONFIGS.replace("PLATFORM", platform), platform)
    return demo


def planned(demo: Any, here: Platform = H200, **members: Any) -> Planned:
    pack = members.pop("pack", None) or read_pack(demo.root, "demo")
    members = {"interpret": here is HERE, **members}
    return plan_runs(pack, read_kernel(demo.root, "twice"), here, **members)


def texts(found: Planned, kind: str) -> list[str]:
    return [run.text for run in found.runs if run.kind == kind]


def lines(found: Planned) -> list[str]:
    return list(map(str, found.findings))


def test_on_a_gpu(twice):
    """Tuned cases with their configs in their places, and calls with those that they are given."""
    found = planned(twice)
    large = 'with config {"block_sizes": [64], "num_warps": 8}'
    assert texts(found, "tuned") == [f"case num_tokens=1 {SMALL}", f"case num_tokens=64 {large}"]
    assert [(run.file, run.case) for run in found.runs if run.kind == "tuned"] == [
        ("configs/twice/nvidia_h200.json", 0),
        ("configs/twice/nvidia_h200.json", 1),
    ]
    assert f"call num_tokens=4 {large} (bucketed case num_tokens=64)" in texts(found, "call")
    assert f"call num_tokens=65 {large} (extrapolated case num_tokens=64)" in texts(found, "call")
    one = f"{SMALL} (exact case num_tokens=1)"
    four = f"{large} (bucketed case num_tokens=64)"
    assert texts(found, "orders") == [
        f"calls num_tokens=1 and then 4 {one} and then {four.removeprefix('with config ')}",
        f"calls num_tokens=4 and then 1 {four} and then {one.removeprefix('with config ')}",
    ]
    assert texts(found, "opcheck") == [f"call num_tokens={n}" for n in (0, 1, 4)]
    (line,) = lines(found)
    assert line == (
        "configs/twice/nvidia_a100.json: KP267 unverified: its configs are not run on nvidia_h200; "
        "check them on a GPU of this platform"
    )
    assert found.left == 0


def test_in_the_interpreter(twice):
    """The cases of all platforms are run once each, and that their configs are not is said."""
    found = planned(twice, HERE)
    assert texts(found, "tuned") == [f"case num_tokens={n}, interpreted" for n in (1, 64)]
    assert lines(found) == [
        f"configs/twice/{name}.json: KP267 unverified: the interpreter does not run its 2 configs, "
        f"only the calls of its 2 cases; run 'check --level 3' on {name}"
        for name in ("nvidia_a100", "nvidia_h200")
    ]


def test_what_is_too_large_for_the_interpreter(twice):
    """One line per op and platform counts the cases, and one the calls beside them."""
    twice.edit("configs/twice/nvidia_h200.json", ": 64}", ": 6000001}")
    found = planned(twice, HERE, platforms=["nvidia_h200"])
    assert texts(found, "tuned") == ["case num_tokens=1, interpreted"]
    why = (
        "is not run: more than 6 million elements are too many for the interpreter; run "
        "'check --level 3' on a GPU"
    )
    assert lines(found)[1:] == [
        f"configs/twice/nvidia_h200.json: KP266 unverified: 1 of 2 cases {why}",
        f"kernels/twice/kernel.toml: KP266 unverified: 1 of 12 calls beside them {why}",
    ]
    assert found.left == 2


def test_one_is_not_several(twice):
    """One config, one case and one call without a config are told in the singular."""
    one = CONFIGS.replace("PLATFORM", "nvidia_h200")
    for second in (
        ', {"block_sizes": [64], "num_warps": 8}',
        ', {"key": {"num_tokens": 64}, "config": 1}',
    ):
        one = one.replace(second, "")
    twice.configs("twice", one, "nvidia_h200")
    found = planned(twice, HERE, platforms=["nvidia_h200"])
    (line,) = lines(found)
    assert line == (
        "configs/twice/nvidia_h200.json: KP267 unverified: the interpreter does not run its "
        "1 config, only the calls of its 1 case; run 'check --level 3' on nvidia_h200"
    )
    twice.edit(
        "kernels/twice/kernel.toml",
        'match = "ceil"\n',
        'match = "ceil"\nover = "miss"\n[miss]\naction = "error"\n',
    )
    assert lines(planned(twice))[1] == (
        "kernels/twice/kernel.toml: KP268 unverified: 1 case of the grids is not run: "
        "nvidia_h200 has no config for it, and [miss] action is 'error'; tune it"
    )


def test_another_platform_is_asked_for(twice):
    """Nothing is run on a GPU that the wanted configs are not for."""
    found = planned(twice, platforms=["nvidia_a100"])
    assert found.runs == ()
    assert [line.split(" ")[0] for line in lines(found)] == ["configs/twice/nvidia_a100.json:"]


def test_borrowed_configs(twice):
    """Without a file of its own, an op is run with what it borrows."""
    (twice.root / "configs" / "twice" / "nvidia_h200.json").unlink()
    found = planned(twice)
    assert texts(found, "tuned") == []
    (text,) = [text for text in texts(found, "call") if text.startswith("call num_tokens=1 ")]
    assert text == (
        f"call num_tokens=1 {SMALL} (nvidia_h200 has no config; borrowed from nvidia_a100: exact "
        "case num_tokens=1)"
    )


def test_without_configs(demo):
    """The grid is run with the default."""
    found = planned(demo)
    assert texts(found, "call")[0] == (
        "call num_tokens=0 with config Helion's default (nothing is tuned; Helion's own default)"
    )
    assert lines(found) == []


def test_an_overlay_wins(twice, tmp_path):
    """The file that calls get is the one that is run, under its own name."""
    other = tmp_path / "mine" / "twice" / "nvidia_h200.json"
    other.parent.mkdir(parents=True)
    text = CONFIGS.replace("PLATFORM", "nvidia_h200").replace('": 64}', '": 128}')
    other.write_text(text)
    pack = evolve(read_pack(twice.root, "demo"), overlays=(str(tmp_path / "mine"),))
    runs = [run for run in planned(twice, pack=pack).runs if run.kind == "tuned"]
    assert [run.cases[0].values["num_tokens"] for run in runs] == [1, 128]
    assert {run.file for run in runs} == {str(other)}


def test_a_broken_file_is_not_run(twice):
    """What is wrong with it is told in the words of who reads it."""
    twice.edit("configs/twice/nvidia_h200.json", '"config": 1', '"config": 7')
    found = planned(twice)
    assert found.runs == ()
    (line,) = lines(found)
    assert line == (
        "configs/twice/nvidia_h200.json:7: KP503 case 1: config index 7 is out of range; the file "
        "has 2 configs (0 to 1)"
    )


@pytest.mark.parametrize("value", ["64", "5.5", '"x"', "null", "-3"])
def test_a_tuned_case_without_inputs(twice, value):
    """A key that a guard refuses, or that is of no size, is told of, and not run."""
    twice.edit(
        "kernels/twice/kernel.toml", "[[key]]", '[guard]\nwhen = ["num_tokens < 60"]\n[[key]]'
    )
    twice.edit("configs/twice/nvidia_h200.json", '": 64}', f'": {value}}}')
    found = planned(twice)
    assert texts(found, "tuned") == [f"case num_tokens=1 {SMALL}"]
    shown = value.strip('"').replace("null", "none")
    assert lines(found)[1] == (
        f"configs/twice/nvidia_h200.json: KP268 unverified: case num_tokens={shown}: [args] and "
        "[guard] allow no inputs for it; tune it again"
    )


def test_where_a_miss_is_an_error(twice):
    """Calls without a config are not a mistake of the kernel; those of its grid are counted."""
    twice.edit(
        "kernels/twice/kernel.toml",
        'match = "ceil"\n',
        'match = "ceil"\nover = "miss"\n[miss]\naction = "error"\n',
    )
    twice.edit("kernels/twice/kernel.toml", "= [1, 4]", "= [1, 4, 100, 200]")
    found = planned(twice)
    assert max(run.cases[0].values["num_tokens"] for run in found.runs) == 64
    assert lines(found)[1] == (
        "kernels/twice/kernel.toml: KP268 unverified: 2 cases of the grids are not run: "
        "nvidia_h200 has no config for them, and [miss] action is 'error'; tune them"
    )


def test_a_picker_of_the_kernels_own(twice):
    """Its choice is not known before the call, and not told."""
    path = twice.root / "kernels" / "twice" / "host.py"
    path.write_text(f"{path.read_text()}\n\ndef pick(args, keys):\n    return keys[0]\n")
    twice.edit(
        "kernels/twice/kernel.toml", "version = 1\n", 'version = 1\npicker = "host.py:pick"\n'
    )
    found = planned(twice)
    assert texts(found, "tuned") == ["case num_tokens=1", "case num_tokens=64"]


def _pack() -> PackSpec:
    return read_pack(ROOT, "kernelpkg")


@pytest.mark.parametrize("name", NAMES)
def test_the_first_pack(name):
    """Each tuned case has its run, with the config of its own entry, and nothing is left out."""
    spec = read_kernel(ROOT, name)
    found = plan_runs(_pack(), spec, H200, interpret=False)
    assert (found.findings, found.left) == ((), 0)
    tuned: list[Run] = [run for run in found.runs if run.kind == "tuned"]
    assert sorted(run.case for run in tuned if run.case is not None) == list(range(len(tuned)))
    assert 80 < len(found.runs) < 320
    assert all(run.bytes < 80 << 30 for run in found.runs)


@pytest.mark.parametrize("name", NAMES)
def test_runs_that_share_code_are_neighbours(name):
    """A group of runs is never interrupted by another."""
    found = plan_runs(_pack(), read_kernel(ROOT, name), H200, interpret=False)
    groups = [run.group for run in found.runs]
    starts = sum(before != after for before, after in itertools.pairwise(groups))
    assert starts + 1 == len(set(groups))


def test_a_grid_for_the_interpreter(twice):
    """It stands for tuned cases and for the grid of tests, on a CPU alone."""
    use = """[[inputs.grid]]
use = ["test"]
num_tokens = [5000]
[[inputs.grid]]
use = ["interpret"]
num_tokens = [6, 3]
"""
    twice.edit("kernels/twice/kernel.toml", "num_tokens = [1, 4]\n", f"num_tokens = [1, 4]\n{use}")
    found = planned(twice, HERE, platforms=["nvidia_h200"])
    assert texts(found, "tuned") == []
    assert {"call num_tokens=3, interpreted", "call num_tokens=6, interpreted"} <= {
        *texts(found, "call")
    }
    assert max(case.values["num_tokens"] for run in found.runs for case in run.cases) < 10
    assert lines(found)[0] == (
        "configs/twice/nvidia_h200.json: KP267 unverified: the interpreter does not run its 2 "
        "configs, nor the calls of its 2 cases; run 'check --level 3' on nvidia_h200"
    )
    on_gpu = planned(twice)
    assert len(texts(on_gpu, "tuned")) == 2
    calls = {case.values["num_tokens"] for run in on_gpu.runs for case in run.cases}
    assert 5000 in calls
