"""Tests that need an NVIDIA GPU; without one they are not collected.

KERNELPKG_GPU_DRY_RUN=1 runs them on the CPU, in Helion's interpreter, to find mistakes in the tests
themselves; of those that are made for each op, for two ops.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import kernelpkg

DRY_RUN = os.environ.get("KERNELPKG_GPU_DRY_RUN") == "1"
DEVICE = "cpu" if DRY_RUN else "cuda"
ROOT = Path(__file__).parents[2]

collect_ignore_glob = [] if DRY_RUN or torch.cuda.is_available() else ["test_*.py"]
if torch.cuda.device_count() < 2:
    collect_ignore_glob.append("test_devices.py")
if "KERNELPKG_VLLM_LIBRARY" not in os.environ and find_spec("vllm") is None:
    collect_ignore_glob.append("test_native.py")  # nothing to route
if "KERNELPKG_VLLM_DIR" not in os.environ:
    collect_ignore_glob.append("test_vendored.py")


DRY_OPS = (None, "silu_mul_fp8", "rms_norm_per_block_quant")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    own = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in own:
        item.add_marker("gpu")
    left = [item for item in own if DRY_RUN and _op(item) not in DRY_OPS]
    items[:] = [item for item in items if item not in left]
    config.hook.pytest_deselected(items=left)


def _op(item: pytest.Item) -> str | None:
    """The op that a test is made for, if it is made for each."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    return params.get("name")


@pytest.fixture(scope="session")
def device() -> str:
    return DEVICE


@pytest.fixture(scope="session", autouse=True)
def pack() -> kernelpkg.LoadReport:
    """The first pack, loaded for this GPU."""
    return kernelpkg.load(root=ROOT, device=DEVICE, strict=True)
