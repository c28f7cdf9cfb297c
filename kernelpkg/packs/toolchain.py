"""The tools of this machine that configs and compiled kernels depend on, by their versions."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Final

from packaging.version import Version

from kernelpkg import __version__

_PACKAGES: Final = ("torch", "helion", "triton")


def toolchain() -> dict[str, str]:
    """Return the versions of what is installed; imports none of it.

    Builds of one release count as one (`2.13.0+cpu` is 2.13.0), as do patch releases of Python.
    """
    found = {"kernelpkg": __version__, "python": ".".join(platform.python_version_tuple()[:2])}
    for name in _PACKAGES:
        try:
            found[name] = Version(importlib.metadata.version(name)).public
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
