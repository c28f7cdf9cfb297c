"""Every benchmark of the CPU runs, in tiny sizes: its keys are there, and both sides agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BENCHMARKS = sorted(path.stem for path in (ROOT / "benchmarks").glob("bench_*.py"))


def run(name, folder):
    """Return the document that a benchmark writes."""
    file = folder / "result.json"
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--quick"]
    done = subprocess.run(
        [*command, "--json", str(file)], capture_output=True, text=True, check=False
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


def test_every_benchmark_is_run_here():
    """A benchmark that is added is added here too."""
    here = {"bench_cli", "bench_dispatch", "bench_load", "bench_picker"}
    assert set(BENCHMARKS) == here | {"bench_gpu"}  # the last needs a GPU


def test_load(tmp_path):
    """All sides register every kernel of the pack that is made, ours with all its tuned cases."""
    document = run("bench_load", tmp_path)
    heads = ("side", "kernels", "seconds", "seconds_median", "cpu_seconds", "ms_per_kernel")
    check(document, *heads, "kb_per_kernel")
    sides = [(row["side"], row["kernels"]) for row in document["results"]]
    assert sides == [("ours", 3), ("floor", 3), ("vllm", 3)]
    assert len(document["targets"]) == 3


def test_cli(tmp_path):
    """Every command that is timed ends without an error."""
    document = run("bench_cli", tmp_path)
    check(document, "process", "least", "median", "over_pass")
    names = [row["process"] for row in document["results"]]
    assert names == ["pass", "import torch", "explain", "list", "schema"]
    assert len(document["targets"]) == 3


def test_dispatch(tmp_path):
    """All seven ops of the first pack are called on both sides."""
    document = run("bench_dispatch", tmp_path)
    heads = ("op_name", "arguments", "tensors", "op", "floor", "over_floor", "implementation")
    check(document, *heads, "op_median", "floor_median")
    assert len(document["results"]) == 7
