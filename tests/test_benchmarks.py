"""Every benchmark of the CPU runs, in tiny sizes: its keys are there, and both sides agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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


def test_every_benchmark_is_run_here():
    """A benchmark that is added is added here too."""
    here = {"bench_cli", "bench_dispatch", "bench_load", "bench_picker", "bench_plugin"}
    here |= {"bench_check", "bench_check_helion", "bench_vendor"}
    on_a_gpu = {"bench_gpu", "bench_native_gpu", "bench_routes_gpu"}
    assert set(BENCHMARKS) == here | on_a_gpu


def test_load(tmp_path):
    """All sides register every kernel of the pack that is made, ours with all its tuned cases."""
    document = run("bench_load", tmp_path)
    heads = ("side", "kernels", "seconds", "seconds_median", "cpu_seconds", "ms_per_kernel")
    check(document, *heads, "kb_per_kernel")
    sides = [(row["side"], row["kernels"]) for row in document["results"]]
    assert sides == [("ours", 3), ("locked", 3), ("floor", 3), ("vllm", 3)]
    assert len(document["targets"]) == 4


def test_check(tmp_path):
    """Level 0 of the first pack finds nothing, which is what makes it exit with 0."""
    document = run("bench_check", tmp_path)
    check(document, "process", "least", "median", "over_pass")
    names = [row["process"] for row in document["results"]]
    assert names == ["pass", "import torch", "list", "check", "check of one op"]
    assert len(document["targets"]) == 1


def test_check_helion(tmp_path):
    """One op is bound and compiled."""
    document = run("bench_check_helion", tmp_path)
    check(document, "level", "of", "seconds", "cores")
    assert [row["of"] for row in document["results"]] == ["3 variants", "6 configs"]
    assert len(document["targets"]) == 2


def test_cli(tmp_path):
    """Every command that is timed ends without an error."""
    document = run("bench_cli", tmp_path)
    check(document, "process", "least", "median", "over_pass")
    names = [row["process"] for row in document["results"]]
    assert names == ["pass", "import torch", "explain", "list", "coverage", "schema"]
    assert len(document["targets"]) == 4


def test_dispatch(tmp_path):
    """All seven ops of the first pack are called on both sides."""
    document = run("bench_dispatch", tmp_path)
    heads = ("op_name", "arguments", "tensors", "op", "floor", "over_floor", "implementation")
    check(document, *heads, "op_median", "floor_median")
    assert len(document["results"]) == 7


def test_plugin(tmp_path):
    """A process with and without routes, and a call of each routed op on every way it can take."""
    document = run("bench_plugin", tmp_path)
    check(document, "what", "side", "least", "median", "over_first", "unit")
    rows = [(row["what"], row["side"]) for row in document["results"]]
    assert rows[:2] == [("process", "routes: none"), ("process", "routes: all")]
    sides = ["original", "by when", "by the table", "by eager", "ours"]
    assert [side for _, side in rows[2:]] == sides * 6
    assert len(document["targets"]) == 3


def test_routes_on_a_gpu(tmp_path):
    """What needs a GPU runs on a CPU too, with ops that do nothing."""
    document = run("bench_routes_gpu", tmp_path, "--device", "cpu")
    check(document, "what", "side", "least", "median", "over_first", "unit")
    assert len(document["results"]) == 6 * 5
    assert len(document["targets"]) == 1


def test_vendor(tmp_path):
    """The command ends well in each of its states."""
    document = run("bench_vendor", tmp_path)
    check(document, "process", "least", "median", "over_pass")
    names = [row["process"] for row in document["results"]]
    assert names == ["pass", "import torch", "first", "again", "check"]
    assert len(document["targets"]) == 3
