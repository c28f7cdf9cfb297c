"""A short real tuning of one op: interrupted, resumed, correct, and checked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from kernelpkg.bench import timing
from kernelpkg.packs import find

DRY_RUN = os.environ.get("KERNELPKG_GPU_DRY_RUN") == "1"
OP = "silu_mul_fp8"
WIDTH = ("--axis", "intermediate_size=4096")
CASES = (*WIDTH, "--axis", "num_tokens=1,256")
ONE = (*WIDTH, "--axis", "num_tokens=256")
SHORT = ("--effort", "quick", "--budget", "20")

pytestmark = pytest.mark.skipif(DRY_RUN, reason="searching and timing need a GPU")


def run(command: str, root: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run a command on a pack; returns its status and its document."""
    done = subprocess.run(
        [sys.executable, "-m", "kernelpkg", command, OP, *arguments, "--root", root, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """The first pack with one config that was tuned here."""
    place = tmp_path_factory.mktemp("pack")
    for part in ("manifests", "kernels"):
        shutil.copytree(find.own_root() / part, place / part)
    status, first = run("autotune", place, *SHORT, *ONE)
    assert status == 0, first
    return place


def test_two_cases_are_tuned_resumed_and_pass_the_checks(root):
    status, second = run("autotune", root, *SHORT, *CASES)
    assert status == 0
    (op,) = second["ops"]
    assert (op["cases"], op["before"], op["left"]) == (2, 1, 0)
    for result in op["results"]:
        assert result["outcome"] in ("tuned", "kept"), result  # the first case lends its config
        assert result["ms"] <= 1.05 * result["default_ms"]
    status, found = run("check", root)
    errors = [one["message"] for one in found["findings"] if one["severity"] == "error"]
    assert errors == []
    (file,) = root.glob(f"configs/{OP}/*.json")
    facts = json.loads(file.read_text())["tuned_with"]
    assert {"helion", "triton", "torch", "driver", "gpu", "source", "effort", "date"} <= set(facts)


def test_a_config_that_is_tuned_again_is_kept(root):
    """Or the default is faster now, as where others use the GPU too, and then it is taken."""
    status, document = run("autotune", root, "--effort", "none", "--again", *ONE)
    assert status == 0, document
    (result,) = document["ops"][0]["results"]
    faster = result["default_ms"] < result["old_ms"]
    assert result["outcome"] == "kept" or (result["outcome"], faster) == ("tuned", True)


def test_a_portfolio_of_one_serves_two_cases(root):
    status, document = run(
        "autotune", root, "--portfolio", "1", "--effort", "none", *CASES, "--within", "50"
    )
    assert status == 0, document
    assert document["ops"][0]["left"] == 0


def test_twins_are_as_fast_as_each_other_and_twice_the_work_is_slower():
    small, large = (torch.ones(1 << size, device="cuda") for size in (22, 26))
    rounds = timing.time_cold([lambda: small.add_(1), lambda: large.add_(1), lambda: small.add_(1)])
    times = timing.summarised(rounds, base=0, twin=2)
    assert 0.8 < times.ratios[2] < 1.25
    assert times.ratios[1] > 4
