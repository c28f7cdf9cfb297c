"""What the GPU of a process is, and the tools that compile for it; asked in the process itself."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import Any, Final

import torch

from kernelpkg.packs.toolchain import toolchain

_TOOLS: Final[tuple[str, ...]] = ("torch", "triton", "helion")


def facts() -> dict[str, str]:
    """Return the name of the GPU and the versions of the tools: results hold for these.

    Raises RuntimeError where there is no GPU.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("CUDA error: no CUDA-capable device is detected")
    versions = toolchain()
    tools = {name: versions[name] for name in _TOOLS if name in versions}
    return {"gpu": torch.cuda.get_device_name(), **tools}


def perform(payload: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts, and the version of the driver, as the answer to a job."""
    return {**facts(), "driver": _driver()}


def _driver() -> str:
    """Return the version of NVIDIA's driver; nothing where it does not say."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return (done.stdout.split() or [""])[0]
