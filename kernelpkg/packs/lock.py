"""kernelpkg.lock: what the files of packs were when they were locked, and with which tools.

The file is written by `kernelpkg lock` alone. It holds the digest of its own text, so that an edit
by hand is found out, and it follows from the value alone.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import tomli_w
from attrs import NOTHING, Attribute, asdict, evolve, field, frozen
from packaging.version import Version

from kernelpkg import __version__
from kernelpkg.configs import directories
from kernelpkg.errors import PackError, Problem, pack_error
from kernelpkg.files import digest_bytes, replace_text
from kernelpkg.manifest.decode import MapOf, Number, Text, optional, required, table
from kernelpkg.manifest.document import Document
from kernelpkg.manifest.keys import NAME

FILE: Final = "kernelpkg.lock"
"""Where the lock of all packs below a root is."""

EDITION: Final = 1
"""The edition of locks that this version reads and writes."""

TOOLS: Final = ("kernelpkg", "python", "torch", "helion", "triton")
"""What a lock names the versions of."""

_HEAD: Final = """\
# What the packs beside this file were when `kernelpkg lock` was run. Lock again instead of editing.
edition = {edition}
"""
_DIGEST_LINE: Final = re.compile(rb'^digest = "([^"\n]*)"\n', re.MULTILINE)


@frozen(kw_only=True)
class LockedConfigs:
    """A config file: its digest, its counts, and the digest of the source it was tuned for."""

    file: str
    cases: int
    configs: int
    source: str = ""


@frozen(kw_only=True)
class LockedKernel:
    """One kernel: the digests of its files, by name, and what follows from them.

    `sources` are digests of what Python files do, without comments, layout and docstrings;
    `fingerprints` those of the structure that Helion finds, by variant, or nothing where they were
    not asked for.
    """

    version: int
    schema: str
    files: Mapping[str, str]
    sources: Mapping[str, str]
    fingerprints: Mapping[str, str] = field(factory=dict)
    configs: Mapping[str, LockedConfigs] = field(factory=dict)

    def digests(self, name: str) -> dict[str, str]:
        """Return the digests of all files, by their paths below the root."""
        files = {f"kernels/{name}/{file}": digest for file, digest in self.files.items()}
        files |= {config_path(name, platform): c.file for platform, c in self.configs.items()}
        return files

    def counts(self) -> directories.LockedCounts:
        """Return what is known of its config files without reading them again."""
        return {(platform, c.file): (c.cases, c.configs) for platform, c in self.configs.items()}


@frozen(kw_only=True)
class LockedPack:
    """One pack: its version, the digest of its manifest, the tools of then, and its kernels.

    `builds` are the digests of its own builds, by platform.
    """

    version: str
    manifest: str
    tools: Mapping[str, str]
    kernels: Mapping[str, LockedKernel]
    builds: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True)
class Lock:
    """All locked packs of a root, by name."""

    packs: Mapping[str, LockedPack] = field(factory=dict)


def config_path(kernel: str, platform: str) -> str:
    """Return where the configs of a kernel for a platform are, below the root."""
    return f"configs/{kernel}/{platform}.json"


_digest = Text("a digest, 'sha256-' and 64 hexadecimal digits", "sha256-[0-9a-f]{64}")
_count = Number(whole=True, least=0)
_digests = MapOf(_digest, key=Text("a path below its kernel", r"(?!/)(?!\.\./)[^\\\x00-\x1f]+"))
_configs = table(
    file=required(_digest, "The digest of the file"),
    cases=required(_count, "How many cases it has"),
    configs=required(_count, "How many distinct configs"),
    source=optional(Text(), "The digest of the source it was tuned for", ""),
)
_platform_name = Text("the name of a platform", r"[^/\\\x00-\x1f]+")
_platforms = MapOf(_configs, key=_platform_name)
_kernel = table(
    version=required(_count, "The version of the kernel"),
    schema=required(Text(), "The schema of its op"),
    files=required(_digests, "Digests of its files"),
    sources=required(_digests, "Digests of what they do"),
    configs=optional(_platforms, "Its config files, by platform", {}),
    fingerprints=optional(MapOf(Text()), "Structures, by variant", {}),
)
_kernels = MapOf(_kernel, key=Text("an identifier", NAME))
_pack = table(
    version=required(Text(), "The version of the pack"),
    manifest=required(_digest, "The digest of its manifest"),
    tools=required(MapOf(Text()), "Versions of tools"),
    kernels=optional(_kernels, "Its kernels", {}),
    builds=optional(MapOf(_digest, key=_platform_name), "Digests of its builds, by platform", {}),
)
_LOCK: Final = table(
    edition=required(Number(whole=True, least=EDITION, most=EDITION), ""),
    digest=required(_digest, "The digest of all but its line"),
    packs=optional(MapOf(_pack), "The packs", {}),
)


def dumps(lock: Lock) -> str:
    """Return the text of a lock: tables sorted by name, above them the digest of all else."""
    head = _HEAD.format(edition=EDITION)
    body = "\n" + tomli_w.dumps(asdict(lock, filter=_is_written, value_serializer=_sorted))
    return f'{head}digest = "{digest_bytes((head + body).encode())}"\n{body}'


def _is_written(attribute: Attribute[Any], value: object) -> bool:
    """Whether a lock says a value: one that need not be there is left out where it is empty."""
    return attribute.default is NOTHING or bool(value)


def _sorted(_: object, attribute: Attribute[Any], value: object) -> object:
    """Return a table in the order in which it is written; tools have one of their own."""
    if not isinstance(value, Mapping):
        return value
    names = TOOLS if attribute.name == "tools" else sorted(value)
    return {name: value[name] for name in names if name in value}


def has_lock(root: Path) -> bool:
    """Whether there is a lock below a root, be it readable or not."""
    return os.path.lexists(root / FILE)


def read_lock(root: Path) -> Lock | None:
    """Return the lock below a root, or None where there is none.

    Raises PackError where it cannot be read, is of a newer edition, or was edited by hand.
    """
    if not has_lock(root):
        return None
    try:
        document = Document(root / FILE, FILE, _LOCK, edition=EDITION)
        if not document.sound:
            raise PackError(problems=document.problems())
    except PackError as error:
        raise PackError(problems=tuple(map(_with_remedy, error.problems))) from None
    data = document.text.encode()
    line = _DIGEST_LINE.search(data)
    if line is None or line[1].decode() != digest_bytes(data[: line.start()] + data[line.end() :]):
        message = "was edited by hand, or damaged; restore it, or run 'kernelpkg lock'"
        raise pack_error(FILE, "KP301", message)
    packs = {name: _read_pack(table) for name, table in document.get("packs").items()}
    return Lock(packs=packs)


def _with_remedy(problem: Problem) -> Problem:
    """Say what to do about a lock that is broken; one that is newer needs a newer kernelpkg."""
    if problem.code == "KP002":
        return problem
    return evolve(problem, message=f"{problem.message}; restore it, or run 'kernelpkg lock'")


def _read_pack(table: Mapping[str, Any]) -> LockedPack:
    kernels = {name: _read_kernel(kernel) for name, kernel in table["kernels"].items()}
    return LockedPack(**{**table, "kernels": kernels})


def _read_kernel(table: Mapping[str, Any]) -> LockedKernel:
    configs = {platform: LockedConfigs(**found) for platform, found in table["configs"].items()}
    return LockedKernel(**{**table, "configs": configs})


def write_lock(root: Path, lock: Lock) -> None:
    """Put a lock in its place at once; raises PackError where it cannot be written."""
    try:
        replace_text(root / FILE, dumps(lock))
    except OSError as error:
        message = f"cannot be written: {error.strerror}; nothing was changed"
        raise pack_error(FILE, "KP302", message) from None


def toolchain() -> dict[str, str]:
    """Return the versions of what is installed; imports none of it.

    Builds of one release count as one (`2.13.0+cpu` is 2.13.0), as do patch releases of Python.
    """
    found = {"kernelpkg": __version__, "python": ".".join(platform.python_version_tuple()[:2])}
    for name in TOOLS[2:]:
        try:
            found[name] = Version(importlib.metadata.version(name)).public
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
