"""vLLM's own tests of its Helion ops: on its tree as it is, and with the pack vendored into it.

On a CPU: what needs a GPU is skipped in both. These are the tests that a pull request has to pass.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytestmark = pytest.mark.vllm

HERE = Path(__file__).parent

Outcomes = dict[str, str]
"""What became of each test, by its module, class and name."""

LOST = {
    # vLLM has configs for a B200 and looks into them; the pack has none, so that the GPU is lost.
    (
        "test_rms_norm_per_block_quant.TestRmsNormPerBlockQuantConfigPicker"
        ".test_b200_configs_disable_reduction_warp_specialization"
    )
}
"""The tests that a pull request has to change: docs/guide/vendor.md names them."""


def run(tree: Path, sources: Path, work: Path) -> Outcomes:
    """Run the tests of vLLM's sources with the vLLM of a tree."""
    for name in ("tests", "tools"):
        shutil.copytree(sources / name, work / name)
    (work / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "vllms", "-p", "no:cacheprovider"]
    command += ["-p", "no:logging", "-W", "ignore", "--junitxml=report.xml", "tests/kernels/helion"]
    paths = [str(tree), str(HERE / "inside"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTEST_ADDOPTS": ""}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=work, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    cases = ElementTree.parse(work / "report.xml").getroot().iter("testcase")
    return {
        f"{case.attrib['classname']}.{case.attrib['name']}".removeprefix("tests.kernels.helion."): (
            next((part.tag for part in case), "passed")
        )
        for case in cases
    }


@pytest.fixture(scope="module")
def untouched(vllm_wheel: Path, vllm_tests: Path, tmp_path_factory) -> Outcomes:
    return run(vllm_wheel, vllm_tests.parents[2], tmp_path_factory.mktemp("untouched"))


@pytest.fixture(scope="module")
def ours(vendored: tuple[Path, list[str]], vllm_tests: Path, tmp_path_factory) -> Outcomes:
    return run(vendored[0], vllm_tests.parents[2], tmp_path_factory.mktemp("ours"))


def test_no_test_fails_that_passes_with_vllms_own_ops(untouched, ours):
    """Those of the framework and of the seven ops; each is run, or skipped, in both trees."""
    assert ours.keys() == untouched.keys()
    assert len({name.partition(".")[0] for name in ours}) == 15
    changed = {name for name in ours if ours[name] != untouched[name]}
    assert {name: ours[name] for name in changed} == dict.fromkeys(LOST, "failure")
    assert "failure" not in untouched.values()
    assert "error" not in untouched.values()


def test_pickers_of_all_ops_pass(ours):
    """vLLM's keys name no more than sizes, by names of its own."""
    picked = {name: outcome for name, outcome in ours.items() if "ConfigPicker" in name}
    assert len({name.partition(".")[0] for name in picked}) == 7
    assert {name for name, outcome in picked.items() if outcome != "passed"} == LOST
    assert len(picked) == 34
