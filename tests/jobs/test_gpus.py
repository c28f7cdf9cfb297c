"""Which GPUs a process may use, by what nvidia-smi and the environment say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kernelpkg.jobs.gpus import cores, driver, visible_devices

WHOLE = """\
GPU 0: NVIDIA H200 (UUID: GPU-aa11)
GPU 1: NVIDIA H200 (UUID: GPU-ab22)
GPU 2: NVIDIA H100 80GB HBM3 (UUID: GPU-cc33)
"""
DIVIDED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aa11)
  MIG 3g.20gb     Device  0: (UUID: MIG-d1)
  MIG 3g.20gb     Device  1: (UUID: MIG-d2)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-ab22)
"""


def smi(folder: Path, text: str, status: int = 0, asked: str = "-L") -> dict[str, str]:
    """Return an environment with an nvidia-smi that prints a text where it is asked for it."""
    (folder / "text").write_text(text)
    tool = folder / "nvidia-smi"
    tool.write_text(f'#!/bin/sh\n[ "$1" = {asked} ] && cat "{folder}/text"\nexit {status}\n')
    tool.chmod(0o755)
    return {"PATH": f"{folder}:{os.defpath}"}


@pytest.mark.parametrize(
    ("text", "chosen", "found"),
    [
        (WHOLE, None, ("0", "1", "2")),
        (WHOLE, "2, 0", ("2", "0")),
        (WHOLE, "", ()),
        (WHOLE, "-1", ()),
        (WHOLE, "NoDevFiles", ()),
        (WHOLE, "1,-1,0", ("1",)),
        (WHOLE, "0,3,1", ("0",)),
        (WHOLE, "0,0", ("0",)),
        (WHOLE, "GPU-cc,GPU-ab22", ("GPU-cc", "GPU-ab22")),
        (WHOLE, "GPU-a", ()),
        (WHOLE, "GPU-dd,0", ()),
        (DIVIDED, None, ("MIG-d1", "MIG-d2", "GPU-ab22")),
        (DIVIDED, "MIG-d2,1", ("MIG-d2", "1")),
        (DIVIDED, "MIG-GPU-aa11/1/0", ("MIG-GPU-aa11/1/0",)),
    ],
    ids=[
        *("all", "order", "empty", "none", "word", "ends", "beyond", "twice", "uuid", "ambiguous"),
        *("unknown", "divided", "instance", "old-instance"),
    ],
)
def test_the_environment_is_read_as_cuda_reads_it(tmp_path, monkeypatch, text, chosen, found):
    """Names up to the first that is of no GPU; all of them where nothing is said."""
    environment = smi(tmp_path, text)
    monkeypatch.setenv("PATH", environment["PATH"])
    if chosen is not None:
        environment["CUDA_VISIBLE_DEVICES"] = chosen
    assert visible_devices(environment) == found


def test_the_version_of_the_driver_is_asked_for(tmp_path, monkeypatch):
    """Once per GPU, the first counts."""
    environment = smi(tmp_path, "570.1\n570.1\n", asked="--query-gpu=driver_version")
    monkeypatch.setenv("PATH", environment["PATH"])
    assert driver(environment) == "570.1"
    assert driver(smi(tmp_path, "570.1\n", 9)) == ""


def with_torch(place, count):
    """The variables of a process whose PyTorch sees so many GPUs, or cannot be imported."""
    text = "import types\ncuda = types.SimpleNamespace(device_count=lambda: {})\n"
    (place / "torch.py").write_text("raise ImportError" if count is None else text.format(count))
    return {"PYTHONPATH": str(place)}


@pytest.mark.parametrize(
    ("variables", "count", "found"),
    [
        ({}, 2, ("0", "1")),
        ({"HIP_VISIBLE_DEVICES": "3,1"}, 2, ("3", "1")),
        ({"HIP_VISIBLE_DEVICES": "3,9", "CUDA_VISIBLE_DEVICES": "0"}, 1, ("3",)),
        ({"CUDA_VISIBLE_DEVICES": "1"}, 1, ("1",)),
        ({}, 0, ()),
    ],
    ids=["all", "hip", "both", "cuda", "none"],
)
@pytest.mark.parametrize("status", [0, 9], ids=["says-nothing", "fails"])
def test_without_nvidia_smi_torch_counts(tmp_path, monkeypatch, status, variables, count, found):
    """As on an AMD host: as many names as PyTorch sees GPUs."""
    environment = smi(tmp_path, "No devices found.\n", status) | with_torch(tmp_path, count)
    monkeypatch.setenv("PATH", environment["PATH"])
    assert visible_devices({**environment, **variables}) == found


def test_without_any_tool_there_may_be_no_gpu(tmp_path, monkeypatch):
    """A laptop has no nvidia-smi at all."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_devices({"PATH": str(tmp_path), **with_torch(tmp_path, 0)}) == ()
    assert visible_devices({"PATH": str(tmp_path), **with_torch(tmp_path, None)}) == ()


def test_a_file_of_the_current_directory_is_not_run(tmp_path, monkeypatch):
    """What lies where a command is given may be named like PyTorch."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "torch.py").write_text("open('was-run', 'w')")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path / "here")
    assert visible_devices({"PATH": str(tmp_path), **with_torch(tmp_path, 1)}) == ("0",)
    assert not Path("was-run").exists()


def test_cores_are_those_of_the_affinity(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5})
    assert cores(tmp_path) == 3


@pytest.mark.parametrize(
    ("groups", "quotas", "expected"),
    [
        ("0::/\n", {"": "250000 100000"}, 3),
        ("0::/\n", {"": "max 100000"}, 8),
        ("0::/\n", {"": "1000 100000"}, 1),
        ("0::/\n", {"": "1600000 100000"}, 8),
        ("0::/pods/one\n", {"pods": "200000 100000", "pods/one": "max 100000"}, 2),
        ("0::/pods/one\n", {"pods": "max 100000", "pods/one": "400000 100000"}, 4),
        ("1:cpu:/pods\n0::/\n", {"pods": "100000 100000"}, 8),
        ("1:cpu:/pods\n", {"": "100000 100000", "pods": "100000 100000"}, 8),
        ("0::/\n", {"": "what is this"}, 8),
    ],
)
def test_cores_are_no_more_than_a_container_may_use(
    tmp_path, monkeypatch, groups, quotas, expected
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    for group, quota in quotas.items():
        place = tmp_path / "sys/fs/cgroup" / group
        place.mkdir(parents=True, exist_ok=True)
        (place / "cpu.max").write_text(f"{quota}\n")
    assert cores(tmp_path) == expected
