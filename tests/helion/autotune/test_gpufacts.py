"""What a worker says of its GPU, here where there is none."""

from __future__ import annotations

import pytest
import torch

from kernelpkg.autotune import gpufacts
from kernelpkg.jobs import jobcall


def test_without_a_gpu_a_worker_says_that_its_device_is_gone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="no CUDA-capable device is detected"):
        gpufacts.facts()
    assert jobcall._kind(RuntimeError("CUDA error: no CUDA-capable device is detected")) == "gone"


def test_facts_are_the_gpu_and_the_public_versions_of_the_tools(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    monkeypatch.setenv("PATH", "")
    found = gpufacts.perform({})
    assert found["gpu"] == "NVIDIA H200" and found["driver"] == ""
    assert {"torch", "triton", "helion"} <= found.keys()
    assert "+" not in found["torch"]
