"""The command `doctor`: what runs on this machine, and why not more."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal

from attrs import frozen
from packaging.version import Version

from kernelpkg.cli.console import FINE, FOUND, ProgressBar, print_json, print_table
from kernelpkg.cli.options import Shared, command
from kernelpkg.configs.directories import CONFIGS_VARIABLE
from kernelpkg.errors import PackError, UsageError, suggestion
from kernelpkg.packs import find
from kernelpkg.packs.find import Root
from kernelpkg.packs.lock import read_lock

_NEEDS: Final = {"torch": "2.11", "helion": "1.4", "triton": "3.6"}
"""The oldest versions that kernelpkg is tested with."""

_VARIABLES: Final = (
    "HELION_INTERPRET",
    CONFIGS_VARIABLE,
    "KERNELPKG_BUILDS",
    "KERNELPKG_DISABLE",
    "KERNELPKG_LAUNCHER",
    "KERNELPKG_NO_PROGRESS",
    "KERNELPKG_PATH",
    "KERNELPKG_VLLM_ROUTES",
)
"""What changes where and how ops run."""

_OF_TESTS: Final = ("KERNELPKG_GPU_DRY_RUN", "KERNELPKG_VLLM_DIR", "KERNELPKG_VLLM_LIBRARY")
"""What our own tests and benchmarks read."""

_COMPILERS: Final = ("cc", "gcc", "clang")
"""Triton compiles its launchers with one of them, unless CC names another."""


@frozen(kw_only=True)
class Finding:
    """One fact of the machine: whether it is as needed, and what to do where it is not."""

    name: str
    status: Literal["ok", "missing", "limited"]
    text: str


@command(pack=False)
def run(shared: Shared) -> int:
    """Print what was found; 1 where something is missing."""
    findings = examine(find.roots(shared.root, os.environ, shared.here), os.environ)
    if shared.as_json:
        document = [{"name": f.name, "status": f.status, "text": f.text} for f in findings]
        print_json({"findings": document})
    else:
        print_table([(f.name, f.status, f.text) for f in findings])
    return FOUND if any(finding.status == "missing" for finding in findings) else FINE


def examine(
    roots: Iterable[Root | PackError], environment: Mapping[str, str]
) -> tuple[Finding, ...]:
    """Look at Python, the packages, the packs, the GPU, and the modes that ops can run in."""
    findings = [Finding(name="python", status="ok", text=platform.python_version())]
    packages = [_package(name, oldest) for name, oldest in _NEEDS.items()]
    findings += packages
    for root in roots:
        findings += [_packs(root), *_locks(root)]
    findings += [_variable(name, environment[name]) for name in _VARIABLES if environment.get(name)]
    ours = [name for name in sorted(environment) if name.startswith("KERNELPKG_")]
    findings += [_unread(name) for name in ours if name not in (*_VARIABLES, *_OF_TESTS)]
    if any(finding.status == "missing" for finding in packages):
        text = "no op runs here until the packages above are installed"
        return (*findings, Finding(name="run", status="missing", text=text))
    return (*findings, *_modes(environment))


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


def _packs(root: Root | PackError) -> Finding:
    try:
        if isinstance(root, PackError):
            raise root
        names = root.packs()
    except PackError as error:
        return Finding(name="packs", status="missing", text=str(error))
    text = f"{', '.join(names) or 'none'} in {root.path} (from {root.origin})"
    return Finding(name="packs", status="ok" if names else "limited", text=text)


def _locks(root: Root | PackError) -> Iterator[Finding]:
    """Yield which packs are locked, or what is wrong with their lock."""
    if isinstance(root, PackError):
        return
    try:
        lock = read_lock(root.path)
    except PackError as error:
        yield Finding(name="lock", status="limited", text=f"in {root.path}: {error.problems[0]}")
        return
    if lock is not None:
        when = "whenever they are loaded" if root.installed else "by 'load --locked'"
        text = f"{', '.join(sorted(lock.packs)) or 'none'} in {root.path}, verified {when}"
        yield Finding(name="lock", status="ok", text=text)


def _variable(name: str, value: str) -> Finding:
    """Say what a variable is; no pack loads with directories of configs that are not there."""
    text = f"{name} is '{value}'"
    parts = value.split(os.pathsep) if name == CONFIGS_VARIABLE else []
    gone = [part for part in parts if part and not os.path.isdir(part)]
    if not gone:
        return Finding(name="environment", status="ok", text=text)
    text += f"; no pack loads, because {gone[0]} is not a directory; correct it"
    return Finding(name="environment", status="limited", text=text)


def _unread(name: str) -> Finding:
    """Say that nothing reads a variable, which may be a mistake in its name."""
    text = f"{name} is not a variable that kernelpkg reads{suggestion(name, _VARIABLES)}"
    return Finding(name="environment", status="limited", text=text)


def _modes(environment: Mapping[str, str]) -> tuple[Finding, ...]:
    """Say what ops do with tensors on the CPU and on the GPU."""
    try:
        # They import torch, whose failure is a finding here.
        with ProgressBar("importing") as progress:
            progress.step("importing PyTorch")
            import torch

            from kernelpkg.launch import native
            from kernelpkg.runtime.torch_ops import detect

        found, launcher = detect("auto"), native.status()
    except UsageError as error:
        return (Finding(name="run", status="missing", text=str(error)),)
    except (ImportError, OSError, RuntimeError) as error:
        text = f"torch cannot be imported: {' '.join(str(error).split())}; install it again"
        return (Finding(name="run", status="missing", text=text),)
    quick: Literal["ok", "limited"] = "ok" if launcher.startswith("C ") else "limited"
    cpu = (
        Finding(name="launcher", status=quick, text=launcher),
        Finding(name="cpu", status="ok", text="ops run in Helion's interpreter, for tests"),
    )
    if found.device == "cpu":
        text = "PyTorch sees no GPU, so nothing is compiled"
        return (*cpu, Finding(name="gpu", status="limited", text=text))
    text = f"{found.gpu}, platform {found.platform.name}: "
    if not torch.cuda.is_available():
        text += "CUDA does not start on it; update the driver, or install another torch"
        return (*cpu, Finding(name="gpu", status="missing", text=text))
    if found.interpret:
        text += "HELION_INTERPRET is set, so nothing is compiled; unset it"
        return (*cpu, Finding(name="gpu", status="limited", text=text))
    if not any(map(shutil.which, (environment.get("CC") or "cc", *_COMPILERS))):
        text += "Triton needs a C compiler, and there is none; install gcc"
        return (*cpu, Finding(name="gpu", status="missing", text=text))
    text += "ops without a build are compiled at their first call"
    return (*cpu, Finding(name="gpu", status="ok", text=text))
