"""The pack, vendored into vLLM 0.33.0: imported, asked, called, and tuned by vLLM itself.

What vLLM registers is global and stays, so that each state of it has a process of its own, which
runs the tests of a file below inside/.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernelpkg.configs.directories import platforms_of
from kernelpkg.packs.read import read_pack

pytestmark = pytest.mark.vllm

HERE = Path(__file__).parent
ROOT = Path(__file__).parents[3]
PACK = read_pack(ROOT, "kernelpkg")
NAMES = PACK.kernels
SHARED = "kernelpkg_rules.py"


@pytest.fixture
def tree(vendored: tuple[Path, list[str]]) -> Path:
    """The sources of vLLM with the pack in them."""
    return vendored[0]


def test_the_command_line_says_what_it_wrote(vendored):
    """A line for each file, and one in the end; vLLM's configs for other GPUs are gone."""
    tree, lines = vendored
    folder = "vllm/kernels/helion"
    tuned = [(name, platform) for name in NAMES for platform in platforms_of(PACK, name)]
    wrote = [f"{folder}/configs/{name}/{platform}.json" for name, platform in tuned]
    wrote.append(f"{folder}/{SHARED}")
    wrote += [f"{folder}/ops/{name}.py" for name in NAMES]
    wrote.append(f"{folder}/kernelpkg.vendored.json")
    assert [line.split()[1] for line in lines if line.startswith("wrote ")] == wrote
    removed = [line.split()[1] for line in lines if line.startswith("removed ")]
    assert not [path for path in removed if (tree / path).exists()]
    assert all((tree / path).is_file() for path in wrote)
    assert lines[-1] == (
        f"vendored pack kernelpkg {PACK.version} into {tree} (vLLM 0.33.0): "
        f"{len(wrote)} written, {len(removed)} removed, 0 kept"
    )
    assert len(lines) == len(wrote) + len(removed) + 1


def run_inside(tree: Path, file: str, *options: str, **environment: str) -> None:
    """Run the tests of a file with the tree's vLLM, and fail with what they print."""
    paths = [str(tree), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short"]
    command += ["-p", "no:cacheprovider", "-p", "no:logging", "-W", "ignore"]  # vLLM's own warnings
    command += [*options, str(HERE / "inside" / file)]
    environment |= {"PYTHONPATH": os.pathsep.join(paths), "VLLM_TREE": str(tree)}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTEST_ADDOPTS": ""}
    kept = {key: value for key, value in os.environ.items() if key != "HELION_INTERPRET"}
    done = subprocess.run(
        command, env=kept | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


def test_vllm_runs_the_ops_where_they_are_tuned(tree):
    """Registration, inputs, picks, results, fake implementations and torch.compile."""
    run_inside(tree, "interpreted.py", HELION_INTERPRET="1")


def test_vllm_tunes_the_ops_where_they_are_not(tree, vllm_wheel):
    """Without configs for the platform, and without kernelpkg: elements, rows and heads."""
    names = "silu_mul_fp8,rms_norm_per_block_quant,fused_qk_norm_rope"
    run_inside(tree, "tuning.py", "--noconftest", VLLM_OPS=names, VLLM_WHEEL=str(vllm_wheel))
