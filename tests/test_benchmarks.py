"""Every benchmark of the CPU runs, in tiny sizes: its keys are there, and both sides agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = sorted(path.stem for path in (ROOT / "benchmarks").glob("bench_*.py"))


def run(name, folder):
    """Return the document that a benchmark writes."""
    file = folder / "result.json"
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--quick"]
    done = subprocess.run(
        [*command, "--json", str(file)], capture_output=True, text=True, check=False
    )
    if "set KERNELPKG_VLLM_DIR" in done.stderr:
        pytest.skip("vLLM's wheel is not unpacked; set KERNELPKG_VLLM_DIR")
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


def test_picker(tmp_path):
    """Ours and vLLM's pickers take the same key for every call that is timed, for all kernels."""
    document = run("bench_picker", tmp_path)
    heads = ("kernel", "keys", "shape", "theirs", "axes+pick", "pick", "resolve/look-up")
    check(document, *heads, "ratio", "medians", "same_picks")
    assert len(document["results"]) == 14
    assert {row["same_picks"] for row in document["results"]} == {"40/40"}
    assert len(document["targets"]) == 6


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
