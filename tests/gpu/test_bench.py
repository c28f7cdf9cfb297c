"""The command `bench` on a GPU: cold times, the copy of as many bytes, agreement, and history."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kernelpkg.packs import find

DRY_RUN = os.environ.get("KERNELPKG_GPU_DRY_RUN") == "1"
OP = "silu_mul_fp8"
CASES = ("--axis", "num_tokens=1,256", "--axis", "intermediate_size=4096")

pytestmark = pytest.mark.skipif(DRY_RUN, reason="timing needs a GPU")


def bench(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Time the op; returns the status and the document."""
    words = [sys.executable, "-m", "kernelpkg", "bench", OP, "--quick", "--json", *arguments]
    root = ["--root", str(find.own_root())]
    done = subprocess.run([*words, *root], capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.fixture(scope="module")
def history(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("bench") / "runs.jsonl"


@pytest.fixture(scope="module")
def document(history) -> dict[str, Any]:
    status, found = bench(*CASES, "--history", str(history))
    assert status == 0, found
    return found


def test_each_case_has_cold_times_a_floor_and_agreement(document):
    assert document["interpreted"] is False
    assert "driver" in document["versions"]
    assert [row["axes"]["num_tokens"] for row in document["rows"]] == [1, 256]
    for row in document["rows"]:
        assert row["failed"] is None
        sides = row["sides"]
        assert sides["ours"]["agrees"] is True
        for name in ("ours", "compile", "eager", "copy"):
            time = sides[name]["gpu_us"]
            assert 0 < time["low"] <= time["median"] <= time["high"], sides[name]
        assert sides["compile"]["agrees"] is not None
        assert sides["native"]["reason"] == "pack 'kernelpkg' has no route that names one"


def test_bytes_are_those_of_inputs_and_results(document):
    tokens, width = 256, 4096
    row = document["rows"][1]
    assert row["bytes"] == {"read": 2 * width * tokens * 2 + 4, "written": width * tokens}


def test_ours_is_no_faster_than_a_copy_of_its_bytes_where_they_count():
    """16 MiB are far more than a launch takes; half is left for the noise of few rounds."""
    status, found = bench("--axis", "num_tokens=1024", "--axis", "intermediate_size=4096",
                          "--baseline", "copy", "--no-history")  # fmt: skip
    assert status == 0, found
    (row,) = found["rows"]
    assert row["sides"]["copy"]["gpu_ratio"]["median"] > 0.5


def test_a_second_run_is_held_against_the_first(document, history):
    status, found = bench(*CASES, "--history", str(history), "--against", "last",
                          "--threshold", "99")  # fmt: skip
    assert status == 0, found
    assert found["against"]["run"] == document["run"]
    cases = [change for change in found["against"]["changes"] if change["what"] == "gpu"]
    assert [change["base"] for change in cases] == ["copy", "copy"]
    assert len(history.read_text().splitlines()) == 2
