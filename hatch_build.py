"""The build hook: compiles kernelpkg/launch/_native.c where a C compiler is there.

The wheel then fits CPython 3.11 and later on this kind of machine. Elsewhere it is pure, and the
launcher in Python is used, with equal results. `CC=false` makes a pure wheel anywhere.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("kernelpkg/launch/_native.c")
TARGET = SOURCE.with_name("_native.abi3.so")
FLAGS = ("-std=c11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra")


def compile_extension(source: Path, target: Path, *flags: str) -> str:
    """Compile the launcher; return "", or in one line why it cannot be done here."""
    if sys.platform != "linux" or sys.implementation.name != "cpython":
        return "the launcher in C is for CPython on Linux"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "the launcher in C needs the GIL, for the limited API does"
    include = sysconfig.get_path("include")
    if not (Path(include) / "Python.h").is_file():
        return f"there is no Python.h in {include}; install the headers of Python"
    compiler = shlex.split(os.environ.get("CC") or "cc")
    asked = shlex.split(os.environ.get("CFLAGS", ""))
    files = ["-o", str(target), str(source), "-ldl"]
    command = [*compiler, *FLAGS, f"-I{include}", *asked, *flags, *files]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return f"there is no C compiler: {error}"
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        told = next((line for line in lines if "error" in line), lines[-1])
        return f"'{shlex.join(compiler)}' cannot compile the launcher in C: {told}"
    return ""


class NativeHook(BuildHookInterface[Any]):
    """Adds the compiled launcher to a wheel, or to the source tree of an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before files are gathered."""
        root = Path(self.root)
        editable = version == "editable"
        self._directory = tempfile.TemporaryDirectory()
        compiled = Path(self._directory.name) / TARGET.name
        problem = compile_extension(root / SOURCE, compiled)
        if problem:
            self.app.display_warning(f"{problem}; this wheel is pure: its launcher is in Python")
            return
        build_data["pure_python"] = False
        machine = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"cp311-abi3-{machine}"
        if editable:
            # A process that has the old one open keeps it: the new one takes its name.
            beside = root / TARGET.with_suffix(".new")
            beside.write_bytes(compiled.read_bytes())
            beside.replace(root / TARGET)
        else:
            build_data["force_include"][str(compiled)] = str(TARGET)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled beside the tree."""
        self._directory.cleanup()
