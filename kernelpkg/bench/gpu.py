"""The GPU that ops run on, asked without starting CUDA where that works.

What has started CUDA cannot use it in processes that it forks.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Mapping
from ctypes import byref, c_int, c_uint, c_void_p
from typing import Final

import torch
from attrs import frozen

from kernelpkg.configs import platforms

NVML: Final = "libnvidia-ml.so.1"
"""What tells of NVIDIA's GPUs, and starts nothing in the process that asks."""

_BYTES: Final = 96  # NVML_DEVICE_NAME_V2_BUFFER_SIZE, and that of UUIDs

_ASK: Final = """
import json, torch
found = torch.cuda.is_available() and torch.cuda.get_device_properties(0)
arch = found and (found.gcnArchName if torch.version.hip else f"sm_{found.major}{found.minor}")
print(json.dumps({"name": found.name if found else "", "arch": arch.split(":")[0] if arch else ""}))
"""
"""For a process of its own; `current_gpu` asks the same."""


@frozen(kw_only=True)
class GpuFacts:
    """A GPU: the name that its driver has for it, which may be empty, and its architecture."""

    name: str
    arch: str

    @property
    def called(self) -> str:
        """Its name, else its architecture: ROCm may give it no name."""
        return self.name if any(map(str.isalnum, self.name)) else self.arch or platforms.UNNAMED


def current_gpu() -> GpuFacts:
    """Return the GPU that this process uses, which starts CUDA."""
    found = torch.cuda.get_device_properties(torch.cuda.current_device())
    arch = found.gcnArchName if torch.version.hip else f"sm_{found.major}{found.minor}"
    return GpuFacts(name=found.name, arch=arch.split(":")[0])


def first_gpu(environment: Mapping[str, str]) -> GpuFacts:
    """Return the GPU that this process uses, or will use first, without starting CUDA for it.

    Where NVML does not tell, as on AMD's hosts and of GPUs that are divided, PyTorch is asked in a
    process of its own.
    """
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # PyTorch's own
        return current_gpu()
    return _told_by_nvml(environment) or _told_by_process(environment) or current_gpu()


def _told_by_process(environment: Mapping[str, str]) -> GpuFacts | None:
    """Return what PyTorch says in a process of its own, None where that does not run.

    -P: a torch.py in the current directory is not PyTorch.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _ASK],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            env=dict(environment),
        )
        return GpuFacts(**json.loads(done.stdout))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _told_by_nvml(environment: Mapping[str, str]) -> GpuFacts | None:
    """Return what NVML says of the GPU that CUDA takes first, None where it does not tell."""
    chosen = environment.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    gpus = _listed()
    # CUDA has an order of its own for GPUs of several kinds, unless it is told to take NVML's.
    alike = len({gpu.name for gpu in gpus.values()}) == 1
    if chosen.isdecimal() and (alike or environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"):
        found = list(gpus.values())[int(chosen) :][:1]
    else:
        found = [gpu for uuid, gpu in gpus.items() if chosen and uuid.startswith(chosen)]
    return found[0] if len(found) == 1 else None


def _listed() -> dict[str, GpuFacts]:
    """Return all GPUs by their UUIDs; nothing without NVML, or where one is divided."""
    try:
        nvml = ctypes.CDLL(NVML)
        if nvml.nvmlInit_v2():
            return {}
        try:
            count = c_uint()
            nvml.nvmlDeviceGetCount_v2(byref(count))
            return dict(_gpu(nvml, index) for index in range(count.value))
        finally:
            nvml.nvmlShutdown()
    except (OSError, AttributeError, LookupError):  # not there, too old, or it does not say
        return {}


def _gpu(nvml: ctypes.CDLL, index: int) -> tuple[str, GpuFacts]:
    """Return the UUID of a GPU, and the GPU; raises LookupError for one that is divided."""
    gpu, major, minor, divided, pending = c_void_p(), c_int(), c_int(), c_uint(), c_uint()
    name, uuid = (ctypes.create_string_buffer(_BYTES) for _ in range(2))
    failed = (
        nvml.nvmlDeviceGetHandleByIndex_v2(c_uint(index), byref(gpu))
        or nvml.nvmlDeviceGetName(gpu, name, c_uint(_BYTES))
        or nvml.nvmlDeviceGetUUID(gpu, uuid, c_uint(_BYTES))
        or nvml.nvmlDeviceGetCudaComputeCapability(gpu, byref(major), byref(minor))
    )
    nvml.nvmlDeviceGetMigMode(gpu, byref(divided), byref(pending))  # fails where none can be
    if failed or divided.value:
        raise LookupError(index)
    arch = f"sm_{major.value}{minor.value}"
    return uuid.value.decode(), GpuFacts(name=name.value.decode(errors="replace"), arch=arch)
