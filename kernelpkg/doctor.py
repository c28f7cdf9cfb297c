"""What runs on this machine, and why not more."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Final, Literal

from attrs import frozen
from packaging.version import Version

_NEEDS: Final = {"torch": "2.11", "helion": "1.4", "triton": "3.6"}
"""The oldest versions that kernelpkg is tested with."""


@frozen(kw_only=True)
class Finding:
    """One fact of the machine: whether it is as needed, and what to do where it is not."""

    name: str
    status: Literal["ok", "missing", "limited"]
    text: str


def examine() -> tuple[Finding, ...]:
    """Look at Python, the packages, the GPU, and the modes that ops can run in."""
    findings = [Finding(name="python", status="ok", text=f"{platform.python_version()}")]
    findings += [_package(name, oldest) for name, oldest in _NEEDS.items()]
    if any(f.status == "missing" for f in findings):
        text = "no op runs here before the packages above are there"
        return (*findings, Finding(name="interpret", status="missing", text=text))
    gpu = _gpu()
    findings.append(gpu)
    findings.append(
        Finding(
            name="interpret", status="ok", text="ops run on CPU tensors in Helion's interpreter"
        )
    )
    compiles = "ops compile for this GPU at first use" if gpu.status == "ok" else gpu.text
    findings.append(Finding(name="compile", status=gpu.status, text=compiles))
    return tuple(findings)


def _package(name: str, oldest: str) -> Finding:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        text = f"is not installed; pip install '{name}>={oldest}'"
        return Finding(name=name, status="missing", text=text)
    if Version(Version(version).base_version) < Version(oldest):
        text = f"{version} is older than {oldest}; pip install -U '{name}>={oldest}'"
        return Finding(name=name, status="missing", text=text)
    return Finding(name=name, status="ok", text=version)


def _gpu() -> Finding:
    from kernelpkg.machine import detect  # imports torch, which is known to be there by now

    machine = detect("auto")
    if machine.device == "cpu":
        text = "PyTorch sees no GPU, so nothing is compiled"
        return Finding(name="gpu", status="limited", text=text)
    if machine.interpret:
        text = f"{machine.gpu}, and HELION_INTERPRET is set, so nothing is compiled"
        return Finding(name="gpu", status="limited", text=text)
    return Finding(name="gpu", status="ok", text=f"{machine.gpu}, platform {machine.platform.name}")
