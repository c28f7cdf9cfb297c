"""GPUs and cores of this host that a process may use; torch is imported only where nothing else
tells."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_LINE: Final = re.compile(r"^ *(?:GPU (\d+)|MIG .*?Device +\d+):.*\(UUID: ([^)]+)\)", re.M)
"""A line of `nvidia-smi -L`: a GPU, or, indented, an instance of the GPU above it."""

_ASKING: Final = 60.0
"""Seconds that nvidia-smi may take; without its persistence daemon the driver loads first."""


def visible_devices(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the GPUs that a process with this environment may use, as CUDA_VISIBLE_DEVICES names
    them, one name each; nothing where there is none.

    What CUDA_VISIBLE_DEVICES says stands, in its order and up to the first name that is of no GPU,
    as CUDA reads it. Without it: the indices of all GPUs, or, where one is divided, the UUIDs of
    the instances and of the GPUs that are not. Other GPUs than NVIDIA's are counted by PyTorch.
    """
    listed = _listed(environment)
    if listed is None:
        return _counted(environment)
    indices, uuids, instances = listed
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return _chosen(chosen, len(indices), uuids)
    return tuple(instances or indices)


def driver(environment: Mapping[str, str]) -> str:
    """Return the version of NVIDIA's driver; nothing where it does not say."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return (_output(query, environment, _ASKING).split() or [""])[0]


def _listed(environment: Mapping[str, str]) -> tuple[list[str], list[str], list[str]] | None:
    """Ask nvidia-smi: the indices of GPUs, all UUIDs, and, if one is divided, those of the parts.

    None where it is not there or says nothing of GPUs.
    """
    found = _LINE.findall(_output(["nvidia-smi", "-L"], environment, _ASKING))
    indices = [index for index, _ in found if index]
    uuids = [uuid for _, uuid in found]
    parts = [place for place, (index, _) in enumerate(found) if not index]
    if not indices:
        return None
    divided = {place - 1 for place in parts} - set(parts)
    whole = [uuid for place, uuid in enumerate(uuids) if place not in divided]
    return indices, uuids, whole if parts else []


def _output(
    command: list[str], environment: Mapping[str, str], seconds: float | None = None
) -> str:
    """Return what a program prints; nothing where it is not there, fails, or takes too long."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=True,
            env=dict(environment),
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _chosen(text: str, count: int, uuids: list[str]) -> tuple[str, ...]:
    """Return what CUDA makes of a list of names: those before the first that is of no GPU."""
    found: list[str] = []
    for name in map(str.strip, text.split(",")):
        if name.isdecimal():
            known = int(name) < count
        else:
            # Of a UUID as much as tells it apart; older drivers write instances with slashes.
            near = sum(uuid.startswith(name) for uuid in uuids)
            known = name.startswith(("GPU-", "MIG-")) and (near == 1 or "/" in name)
        if not known or name in found:
            break
        found.append(name)
    return tuple(found)


def _counted(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Ask PyTorch how many GPUs there are, and name them as the environment does.

    In a process of its own: one that has asked has started the driver, and what it forks then
    cannot use a GPU. -P: a torch.py in the current directory is not PyTorch.
    """
    code = "import torch; print(torch.cuda.device_count())"
    try:
        count = int(_output([sys.executable, "-P", "-c", code], environment).split()[-1])
    except (LookupError, ValueError):
        return ()
    chosen = environment.get("HIP_VISIBLE_DEVICES", environment.get("CUDA_VISIBLE_DEVICES"))
    if chosen is None:
        return tuple(map(str, range(count)))
    return tuple(name.strip() for name in chosen.split(",") if name.strip())[:count]


def cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may keep busy, one or more: those that it is bound to, or
    fewer where the control groups that it is in, as a container, have a quota of less.

    `root` is the directory with `proc` and `sys`.
    """
    count = len(os.sched_getaffinity(0))
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return count
    for line in groups:
        number, _, path = line.partition("::")
        if number != "0":  # of cgroup v1
            continue
        group = root / "sys/fs/cgroup" / path.lstrip("/")
        for place in (group, *group.parents):
            count = min(count, _quota(place / "cpu.max"))
    return count


def _quota(file: Path) -> int:
    """Return the cores of a quota, rounded up; without one, more than there are."""
    try:
        quota, period = map(int, file.read_text().split())
    except (OSError, ValueError):  # not there, or "max"
        return sys.maxsize
    return max(1, math.ceil(quota / period))
