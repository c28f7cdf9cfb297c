"""The folder where vLLM keeps the config files of its Helion kernels, in a tree or alone."""

from __future__ import annotations

import ast
import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import frozen

from kernelpkg.errors import PackError, Problem, UsageError
from kernelpkg.vllm import tree as vllm_tree
from kernelpkg.vllm.tree import VllmTree, aliases_of, version_of

HELION: Final = vllm_tree.HELION.relative_to("vllm")
"""Where vLLM 0.33.0 and older releases keep what belongs to Helion, below the package."""

_VERSION: Final = re.compile(r"[0-9][0-9A-Za-z.+!-]{0,80}")


@frozen(kw_only=True)
class VllmFile:
    """A config file of vLLM's; `platform` is None for an old one that holds all platforms."""

    path: Path
    kernel: str
    platform: str | None


@frozen(kw_only=True)
class VllmFolder:
    """The folder of config files, and what is known of the vLLM around it."""

    path: Path
    around: VllmTree

    @property
    def origin(self) -> str:
        """Where its configs come from, as far as it is known."""
        version = self.around.version
        return f"vLLM {version}" if version and _VERSION.fullmatch(version) else "vLLM"

    def files(self) -> Iterator[VllmFile | PackError]:
        """Yield the config files by kernel, and the error for each directory that is unreadable."""
        for entry in self._listed(self.path):
            if isinstance(entry, PackError):
                yield entry
            elif entry.is_dir():
                for file in self._listed(entry):
                    if isinstance(file, PackError):
                        yield file
                    elif _is_json(file):
                        yield VllmFile(path=file, kernel=entry.name, platform=file.stem)
            elif _is_json(entry):
                yield VllmFile(path=entry, kernel=entry.stem, platform=None)

    def _listed(self, directory: Path) -> Iterator[Path | PackError]:
        try:
            names = sorted(os.listdir(directory))
        except FileNotFoundError:
            return
        except OSError as error:
            message = f"directory cannot be read: {error.strerror}; correct its permissions"
            problem = Problem(path=str(directory), code="KP820", message=message)
            yield PackError(problems=(problem,))
            return
        yield from (directory / name for name in names if not name.startswith("."))


def find_folder(directory: Path) -> VllmFolder:
    """Return the folder of config files that a directory is, or holds.

    The directory is that folder, a vLLM tree or what a wheel of it unpacks to, or the package in
    one of those. Raises UsageError where it does not exist, or is a vLLM without Helion kernels.
    """
    if not directory.is_dir():
        what = "is no directory" if os.path.lexists(directory) else "does not exist"
        raise UsageError(f"{directory} {what}; give a vLLM tree, or its folder of configs")
    for package in (directory / "vllm", directory):
        if (package / HELION).is_dir():
            return VllmFolder(path=package / HELION / "configs", around=_around(package))
        if package.name == "vllm" and (package / "__init__.py").is_file():
            raise UsageError(f"{directory} is a vLLM without {HELION}; later releases have it")
    full = directory.absolute()
    inside = full.parts[-3:] == (*HELION.parts, "configs")
    alone = VllmTree(path=directory, version=None, aliases={})
    return VllmFolder(path=directory, around=_around(full.parents[2]) if inside else alone)


def _is_json(path: Path) -> bool:
    return path.suffix == ".json" and (path.is_file() or path.is_symlink())


def _around(package: Path) -> VllmTree:
    """Read of vLLM's package what it says of itself, without running any of it."""
    tree = None
    with contextlib.suppress(OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        tree = ast.parse((package / HELION / "utils.py").read_bytes())
    path = package.absolute().parent
    return VllmTree(path=path, version=version_of(path), aliases=aliases_of(tree) or {})
