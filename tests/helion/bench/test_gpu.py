"""Which GPU a process will use, as NVML, PyTorch and the environment say it."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kernelpkg.bench import gpu
from kernelpkg.bench.gpu import GpuFacts, current_gpu, first_gpu
from kernelpkg.compile.helion import platform_here
from kernelpkg.runtime.torch_ops import detect

HERE = Path(__file__).parent
LAUNCH = SimpleNamespace(**runpy.run_path(str(HERE.parents[1] / "launch" / "conftest.py")))

H200 = GpuFacts(name="NVIDIA H200", arch="sm_90")
A100 = GpuFacts(name="NVIDIA A100-SXM4-40GB", arch="sm_80")
ASKED = GpuFacts(name="what PyTorch says", arch="sm_70")

HOSTS = {
    "alike": ("9 0 0 GPU-aa11 NVIDIA H200", "9 0 0 GPU-ab22 NVIDIA H200"),
    "mixed": ("9 0 0 GPU-aa11 NVIDIA H200", "8 0 0 GPU-bb22 NVIDIA A100-SXM4-40GB"),
    "divided": ("8 0 1 GPU-bb22 NVIDIA A100-SXM4-40GB",),
    "old": ("7 0 0 GPU-cc33 Tesla V100-SXM2-32GB",),
    "none": (),
}


@pytest.fixture(scope="module")
def nvml(tmp_path_factory) -> str:
    target = tmp_path_factory.mktemp("nvml") / "stub.so"
    return str(LAUNCH.compile_c(HERE / "stub_nvml.c", target))


@pytest.fixture
def host(nvml, monkeypatch):
    """Gives this process the GPUs of a host; PyTorch in a process of its own says `ASKED`."""

    def host(name: str) -> None:
        monkeypatch.setattr(gpu, "NVML", nvml)
        monkeypatch.setattr(gpu, "_told_by_process", lambda environment: ASKED)
        for index, text in enumerate(HOSTS[name]):
            monkeypatch.setenv(f"STUB_GPU_{index}", text)

    return host


@pytest.mark.parametrize(
    ("name", "variables", "found"),
    [
        ("alike", {}, H200),
        ("alike", {"CUDA_VISIBLE_DEVICES": "1, 0"}, H200),
        ("alike", {"CUDA_VISIBLE_DEVICES": "GPU-ab"}, H200),
        ("alike", {"CUDA_VISIBLE_DEVICES": "GPU-a"}, ASKED),
        ("alike", {"CUDA_VISIBLE_DEVICES": "2"}, ASKED),
        ("alike", {"CUDA_VISIBLE_DEVICES": ""}, ASKED),
        ("mixed", {}, ASKED),
        ("mixed", {"CUDA_VISIBLE_DEVICES": "1"}, ASKED),
        ("mixed", {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, A100),
        ("mixed", {"CUDA_VISIBLE_DEVICES": "GPU-bb22"}, A100),
        ("divided", {}, ASKED),
        ("divided", {"CUDA_VISIBLE_DEVICES": "MIG-d1"}, ASKED),
        ("old", {}, GpuFacts(name="Tesla V100-SXM2-32GB", arch="sm_70")),
        ("none", {}, ASKED),
        ("alike", {"STUB_NO_DRIVER": "1"}, ASKED),
    ],
)
def test_nvml_tells_where_it_can(host, monkeypatch, name, variables, found):
    """Nothing of CUDA is asked; what NVML does not tell for sure, a process of its own does."""
    host(name)
    monkeypatch.setattr(gpu, "current_gpu", lambda: pytest.fail("CUDA was started"))
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert first_gpu({"CUDA_VISIBLE_DEVICES": "0"} | variables) == found
    if "CUDA_VISIBLE_DEVICES" not in variables:
        assert first_gpu(variables) == found


def test_without_nvml_and_another_process_pytorch_is_asked(monkeypatch):
    """As in a program that has Python inside it."""
    monkeypatch.setattr(gpu, "NVML", "/nonexistent")
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    monkeypatch.setattr(gpu, "current_gpu", lambda: H200)
    assert first_gpu(os.environ) == H200


def with_torch(place: Path, found: str) -> dict[str, str]:
    """The variables of a process whose PyTorch has a GPU of these properties, or none."""
    (place / "torch.py").write_text(
        "from types import SimpleNamespace as N\n"
        f"found = {found}\nversion = N(hip='6.4' if 'gcnArchName' in vars(found) else None)\n"
        "cuda = N(is_available=lambda: vars(found), get_device_properties=lambda at: found)\n"
    )
    return {"PYTHONPATH": str(place)}


@pytest.mark.parametrize(
    ("properties", "found"),
    [
        ("N(name='NVIDIA H200', major=9, minor=0)", H200),
        ("N(name='', gcnArchName='gfx942:sramecc+:xnack-')", GpuFacts(name="", arch="gfx942")),
        ("N()", GpuFacts(name="", arch="")),
    ],
    ids=["cuda", "rocm", "none"],
)
def test_a_process_of_its_own_says_what_pytorch_sees(tmp_path, monkeypatch, properties, found):
    monkeypatch.setattr(gpu, "NVML", "/nonexistent")
    assert first_gpu(with_torch(tmp_path, properties)) == found


def test_once_cuda_is_started_the_current_gpu_counts(monkeypatch):
    """Another one may have been chosen by then."""
    cuda = [
        SimpleNamespace(name="NVIDIA L4", major=8, minor=9),
        SimpleNamespace(name="NVIDIA H200", major=9, minor=0),
    ]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", cuda.__getitem__)
    assert first_gpu({}) == current_gpu() == H200
    monkeypatch.setattr(torch.version, "hip", "6.4")
    cuda[1] = SimpleNamespace(name="", gcnArchName="gfx950:sramecc+:xnack-")
    assert current_gpu() == GpuFacts(name="", arch="gfx950")


@pytest.mark.parametrize(
    ("found", "platform", "family"),
    [
        (GpuFacts(name="", arch="gfx942"), "gfx942", "cdna3"),
        (GpuFacts(name=" - ", arch=""), "unknown_gpu", None),
        (GpuFacts(name="ACME", arch="sm_90"), "acme", "hopper"),
    ],
    ids=["architecture", "nothing", "unheard-of"],
)
def test_a_gpu_without_a_name_has_a_platform(monkeypatch, found, platform, family):
    """A pack can name `unknown_gpu` in [platforms], as any other name.

    Kernels without a manifest are on the same platform, and CUDA is not started for them either.
    """
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", None)
    monkeypatch.setattr("kernelpkg.runtime.torch_ops.first_gpu", lambda environment: found)
    monkeypatch.setattr("kernelpkg.compile.helion.first_gpu", lambda environment: found)
    assert (detect().platform.name, detect().platform.family) == (platform, family)
    assert platform_here() == platform
    assert detect(extra={platform: "nvidia_h200"}).platform.name == "nvidia_h200"
