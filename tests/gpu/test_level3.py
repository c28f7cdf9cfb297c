"""Level 3 of `check` on a GPU: the first pack is fine, and faults that only a GPU shows are found.

With KERNELPKG_GPU_DRY_RUN=1 the interpreter runs the clean half; the faults need a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kernelpkg.check.level3 import check_runs
from kernelpkg.errors import Checked
from kernelpkg.packs import find
from kernelpkg.packs.read import kernel_names, read_kernel, read_pack

ROOT = find.own_root()
DRY_RUN = os.environ.get("KERNELPKG_GPU_DRY_RUN") == "1"
NAMES = kernel_names(ROOT)[:1] if DRY_RUN else kernel_names(ROOT)

CONFIGS = """\
{
  "edition": 1,
  "kernel": "NAME",
  "platform": "PLATFORM",
  "tuned_with": {},
  "configs": [{"block_sizes": [16], "num_warps": 4}, {"block_sizes": [64], "num_warps": 4}],
  "cases": [
    {"key": {"num_tokens": 16}, "config": 0},
    {"key": {"num_tokens": 64}, "config": 1}
  ]
}
"""
TIMES_TWO = "input[tile] * 2"
FAULTS = {
    "clean": ("kernel.py", TIMES_TWO, TIMES_TWO),
    "block_size": ("kernel.py", TIMES_TWO, "input[tile] * (2 + (tile.block_size - 16))"),
    "poisons": (
        "host.py",
        "input * 2",
        "input.new_zeros(4)[torch.tensor([7 * (len(input) == 64)], device=input.device)] * 2",
    ),
}


def test_the_first_pack_is_fine(device: str) -> None:
    """Every tuned case and all that is run beside them agree with their references."""
    pack = read_pack(ROOT, "kernelpkg")
    found = check_runs(pack, [read_kernel(ROOT, name) for name in NAMES], device=device)
    assert [str(finding) for finding in found.findings if finding.severity == "error"] == []
    if not DRY_RUN:
        assert found.counts["tuned_runs"] >= 600
        assert found.counts["runs_left_out"] == 0
        assert {finding.code for finding in found.findings} <= {"KP267"}


def test_views_of_one_column_are_fine_beside_wider_ones(device: str) -> None:
    """Helion takes for granted what is true of the call at hand; other calls get other code."""
    root = Path(__file__).parents[1] / "packs" / "kinds"
    found = check_runs(read_pack(root, "kinds"), [read_kernel(root, "silu_mul")], device=device)
    assert [str(finding) for finding in found.findings if finding.severity == "error"] == []
    assert found.counts["runs"] > 20


@pytest.fixture(scope="module")
def planted(
    new_pack: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory, device: str
) -> Checked:
    """What is found in a pack of faulty kernels with configs for this GPU."""
    from kernelpkg.runtime.torch_ops import detect

    demo = new_pack(tmp_path_factory.mktemp("planted"))
    platform = detect().platform.name
    for name, (file, old, new) in FAULTS.items():
        demo.kernel(name)
        demo.configs(name, CONFIGS.replace("PLATFORM", platform), platform)
        demo.edit(f"kernels/{name}/kernel.toml", "[1, 4]", "[16, 64]")
        demo.edit(f"kernels/{name}/{file}", old, new)
    pack = read_pack(demo.root, "demo")
    return check_runs(pack, [read_kernel(demo.root, name) for name in FAULTS], device=device)


def _errors(found: Checked, name: str) -> list[str]:
    return [str(f) for f in found.findings if f.severity == "error" and f"/{name}/" in f.path]


needs_gpu = pytest.mark.skipif(DRY_RUN, reason="the interpreter uses no configs")


@needs_gpu
def test_a_kernel_without_a_fault(planted: Checked) -> None:
    assert _errors(planted, "clean") == []


@needs_gpu
def test_one_config_gives_wrong_numbers(planted: Checked) -> None:
    """The case is named with its line and its config; the case of the other config is fine."""
    cases = [line for line in _errors(planted, "block_size") if " KP260 " in line]
    assert len(cases) == 1
    assert ".json:9: KP260 case num_tokens=64 with config " in cases[0]
    assert '{"block_sizes": [64], "num_warps": 4}: return[' in cases[0]


@needs_gpu
def test_a_poisoned_context(planted: Checked) -> None:
    """An error that ends all later calls of a process is one case's alone."""
    lines = _errors(planted, "poisons")
    assert any(".json:9: KP26" in line and "num_tokens=64" in line for line in lines), lines
    assert not [f for f in planted.findings if f.code == "KP268"]
