"""The benchmark of pickers runs, in tiny sizes, with vLLM's pickers out of its wheel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.vllm

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "bench_picker.py"


def test_both_sides_take_the_same_keys(vllm_wheel: Path, tmp_path: Path) -> None:
    """Ours and vLLM's pickers take the same key for every call that is timed, for all kernels."""
    file = tmp_path / "result.json"
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--quick", "--json", str(file)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "KERNELPKG_VLLM_DIR": str(vllm_wheel)},
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(file.read_text(encoding="utf-8"))
    assert len(document["results"]) == 14
    assert {row["same_picks"] for row in document["results"]} == {"40/40"}
    assert [found["unit"] for found in document["targets"]] != []
