"""What a shell completes: names of ops and of platforms, for the pack that a command line names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kernelpkg.configs import platforms
from kernelpkg.configs.directories import tuned_platforms
from kernelpkg.errors import KernelpkgError
from kernelpkg.manifest.spec import PackSpec
from kernelpkg.packs.find import open_pack


def ops(given: Mapping[str, Any], begun: str) -> list[str]:
    """Return the ops that begin like this, with their namespace where it was begun."""
    names = [
        f"{pack.namespace}::{kernel}" if "::" in begun else kernel
        for pack in _pack(given)
        for kernel in pack.kernels
    ]
    return [name for name in names if name.startswith(begun)]


def platform_names(given: Mapping[str, Any], begun: str) -> list[str]:
    """Return platforms that begin like what stands behind the last comma: the pack's, then all."""
    names = [name for pack in _pack(given) for name in tuned_platforms(pack)]
    before, comma, last = begun.rpartition(",")
    known = dict.fromkeys((*names, *platforms.known(), platforms.CPU))
    return [f"{before}{comma}{name}" for name in known if name.startswith(last)]


def _pack(given: Mapping[str, Any]) -> Iterator[PackSpec]:
    """Yield the pack that the options so far name, if there is one."""
    pack, root, configs = (given.get(name) for name in ("pack", "root", "configs"))
    try:
        yield open_pack(pack, root, configs or (), os.environ, Path.cwd())
    except (KernelpkgError, OSError):
        return
