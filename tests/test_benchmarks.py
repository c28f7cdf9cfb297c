"""Every benchmark of the CPU runs, in tiny sizes: its keys are there, and both sides agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = sorted(path.stem for path in (ROOT / "benchmarks").glob("bench_*.py"))


def run(name, folder, *options):
    """Return the document that a benchmark writes."""
    file = folder / "result.json"
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--quick"]
    done = subprocess.run(
        [*command, *options, "--json", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text(encoding="utf-8"))


def check(document, *keys):
    """Hold a document against what all have, and against the keys of its results."""
    assert list(document) == ["benchmark", "machine", "results", "targets"]
    assert list(document["machine"]) == ["python", "cores", "load", "torch", "helion", "triton"]
    for row in document["results"]:
        assert list(row) == list(keys)
    for found in document["targets"]:
        assert list(found) == ["target", "got", "most", "unit", "met"]


PROCESS = ("process", "least", "median", "over_pass")
LOAD = ("side", "kernels", "seconds", "seconds_median", "cpu_seconds")
LOAD += ("ms_per_kernel", "kb_per_kernel")
CALL = ("what", "side", "least", "median", "over_first", "unit")
SIDES = ["original", "by when", "by the table", "by eager", "ours"]

# The keys of a result, what one of them is in all results, and how many targets there are.
RUNS = {
    "load": (LOAD, "side", ["ours", "locked", "floor", "vllm"], 4),
    "check": (PROCESS, "process", ["pass", "import torch", "list", "check", "check of one op"], 1),
    "check_helion": (["level", "of", "seconds", "cores"],
        "of", ["3 variants", "40 sources", "a build"], 3),
    "cli": (PROCESS,
        "process", ["pass", "import torch", "explain", "list", "coverage", "schema", "check",
                    "--help", "explain a code"], 7),
    "plugin": (CALL, "side", ["routes: none", "routes: all", *SIDES * 6], 3),
    "routes_gpu": (CALL, "side", SIDES * 6, 1),
    "vendor": (PROCESS, "process", ["pass", "import torch", "first", "again", "check"], 3),
}  # fmt: skip
ON_A_GPU = {f"bench_{name}" for name in ("engine_gpu", "gpu", "native_gpu", "startup_gpu")}


def test_every_benchmark_is_run_here():
    """A benchmark that is added is added here too."""
    assert set(BENCHMARKS) == {f"bench_{name}" for name in (*RUNS, "dispatch", "picker")} | ON_A_GPU


@pytest.mark.parametrize("name", RUNS)
def test_a_benchmark_runs(name, tmp_path):
    """What needs routes on a GPU runs on a CPU too, with ops that do nothing."""
    keys, key, values, targets = RUNS[name]
    options = ("--device", "cpu") if name == "routes_gpu" else ()
    document = run(f"bench_{name}", tmp_path, *options)
    check(document, *keys)
    assert [row[key] for row in document["results"]] == values
    assert len(document["targets"]) == targets
    assert name != "load" or {row["kernels"] for row in document["results"]} == {3}


def test_dispatch(tmp_path):
    """All seven ops of the first pack are called on both sides."""
    document = run("bench_dispatch", tmp_path)
    heads = ("op_name", "arguments", "tensors", "op", "floor", "over_floor", "implementation")
    heads += ("op_median", "floor_median", "python_over_floor", "c_over_floor", "c_without_grad")
    heads += ("backward_without_grad", "pytorch_without_grad")
    check(document, *heads)
    assert len(document["results"]) == 7
