"""kernelpkg.lock: what the files of packs were when they were locked, and with which tools.

The file is written by `kernelpkg lock` alone. It holds the digest of its own text, so that an edit
by hand is found out, and it follows from the value alone.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import tomli_w
from attrs import NOTHING, Attribute, asdict, evolve, field, frozen
from packaging.version import Version

from kernelpkg import __version__
from kernelpkg.configs import directories
from kernelpkg.errors import PackError, Problem, pack_error
from kernelpkg.files import Files, digest_bytes, replace_text
from kernelpkg.manifest.decode import MapOf, Number, Text, optional, required, table
from kernelpkg.manifest.document import Document
from kernelpkg.manifest.keys import NAME
from kernelpkg.manifest.spec import PackSpec

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
    """One pack: its version, the digest of its manifest, the tools of then, and its kernels."""

    version: str
    manifest: str
    tools: Mapping[str, str]
    kernels: Mapping[str, LockedKernel]


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
_platforms = MapOf(_configs, key=Text("the name of a platform", r"[^/\\\x00-\x1f]+"))
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
        message = f"cannot be written: {error.strerror}; what was there is as it was"
        raise pack_error(FILE, "KP302", message) from None


_SHOWN: Final = len("sha256-") + 12
"""How many characters of a digest a message shows."""

LockState = Literal["locked", "overlaid", "modified", "unlocked"]
"""Of what was loaded: as the lock says; so, and an operator has put configs before it; not as the
lock says; of no lock."""

REMEDY: Final = "restore it, reinstall its package, or run 'kernelpkg lock' if this is meant"


@frozen(kw_only=True)
class Verifier:
    """What the lock says of one pack, or None without it, and whether the pack must be so.

    `notes` say why a lock that nothing depends on could not be read.
    """

    required: bool = False
    locked: LockedPack | None = None
    notes: tuple[Problem, ...] = ()

    def check_manifest(self, path: str, found: str) -> None:
        """Raise PackError where the manifest of the pack must be as it was locked, and is not."""
        if self.required and self.locked is not None and found != self.locked.manifest:
            raise PackError(problems=(differs(path, self.locked.manifest, found),))

    def check_kernel(self, pack: PackSpec, name: str, files: Files) -> LockedKernel | None:
        """Hold all files of a kernel against the lock, and return it where the lock vouches for it.

        Then its files, and the manifest of its pack, are those that `lock` checked, and by the
        rules of this version: another may check more. What depends on Python, torch or Helion is
        checked at each load, so their versions do not count. Raises PackError with all that is not
        as locked, where a kernel must be so.
        """
        ours = self.locked is not None and self.locked.tools.get("kernelpkg") == __version__
        if self.locked is None or not (self.required or ours):
            return None
        problems = self.verify(pack, name, files)
        if problems and self.required:
            raise PackError(problems=problems)
        whole = not problems and pack.digest == self.locked.manifest
        return self.locked.kernels[name] if whole and ours else None

    def verify(self, pack: PackSpec, name: str, files: Files) -> tuple[Problem, ...]:
        """Read all files of a kernel, run none, and return their `differences`."""
        locked = None if self.locked is None else self.locked.kernels.get(name)
        paths = set() if locked is None else {*locked.digests(name)}
        try:
            platforms = directories.platforms_of(pack, name, files)
        except PackError as error:
            return error.problems
        paths |= {config_path(name, platform) for platform in platforms}
        for path in paths - _hidden(pack, name):
            with contextlib.suppress(OSError):  # then it differs
                files.read(Path(pack.root, path))
        return self.differences(pack, name, files)

    def differences(self, pack: PackSpec, name: str, files: Files) -> tuple[Problem, ...]:
        """Return how the files that were read of a kernel differ from those that were locked.

        Configs that an operator put before the pack's are not the lock's business.
        """
        if self.locked is None:
            return ()
        kernel = self.locked.kernels.get(name)
        if kernel is None:
            return (difference(f"kernels/{name}/kernel.toml", None, ""),)
        wanted = kernel.digests(name)
        found = files.digests(Path(pack.root), (f"kernels/{name}", f"configs/{name}"))
        changes = [*changed(wanted, found)]
        hidden = _hidden(pack, name) if changes else ()
        return tuple(
            difference(path, before, now) for path, before, now in changes if path not in hidden
        )

    def state(self, pack: PackSpec, name: str, *, differs: bool) -> LockState:
        """Return what the row of a kernel says; `differs`: it has `differences`."""
        if self.locked is None or name not in self.locked.kernels:
            return "unlocked"
        if differs or pack.digest != self.locked.manifest:
            return "modified"
        return "overlaid" if _hidden(pack, name) else "locked"

    def gone(self, pack: PackSpec) -> Mapping[str, Problem]:
        """Return the kernels that a pack must have by its lock, and has no more."""
        if self.locked is None or not self.required:
            return {}
        return {
            name: difference(f"kernels/{name}/kernel.toml", "", None)
            for name in self.locked.kernels
            if name not in pack.kernels
        }


def make_verifier(root: Path, name: str, *, demanded: bool, installed: bool) -> Verifier:
    """Return the verifier of a pack.

    A pack that was `installed` as a package has to be as its lock says, if it came with one. Where
    locked packs are `demanded`, it needs one. Raises PackError where what is needed is not there.
    """
    try:
        lock = read_lock(root)
    except PackError as error:
        if demanded or installed:
            raise
        return Verifier(notes=error.problems)
    if lock is None and not demanded:
        return Verifier()
    locked = None if lock is None else lock.packs.get(name)
    if locked is None and (demanded or installed):
        what = "is not there" if lock is None else f"has no pack '{name}'"
        message = f"{what}, and the pack must be locked; run 'kernelpkg lock --pack {name}' where "
        raise pack_error(FILE, "KP303", f"{message}it is made")
    return Verifier(required=demanded or installed, locked=locked)


_Entry = TypeVar("_Entry")


def changed(
    before: Mapping[str, _Entry], now: Mapping[str, _Entry]
) -> Iterator[tuple[str, _Entry | None, _Entry | None]]:
    """Yield what is not the same on both sides, by name: what it was and is, None for nothing."""
    if before != now:  # else, as nearly always, there is nothing to sort
        for name in sorted({*before, *now}):
            was, is_ = before.get(name), now.get(name)
            if was != is_:
                yield name, was, is_


def difference(path: str, locked: str | None, found: str | None) -> Problem:
    """Say how a file differs from the one that was locked; None stands for no file."""
    if found is None:
        message = f"is in the lock, and is not there or cannot be read; {REMEDY}"
        return Problem(path=path, code="KP305", message=message)
    if locked is None:
        message = "is not in the lock; remove it, or run 'kernelpkg lock' if it is meant"
        return Problem(path=path, code="KP306", message=message)
    return differs(path, locked, found)


def differs(path: str, locked: str, found: str) -> Problem:
    """Say that a file is not the one that was locked."""
    message = f"is not as it was locked: {locked[:_SHOWN]}… is expected, got {found[:_SHOWN]}…"
    return Problem(path=path, code="KP304", message=f"{message}; {REMEDY}")


def _hidden(pack: PackSpec, name: str) -> frozenset[str]:
    """Return the config files of a pack's kernel in whose place an operator has others."""
    if not pack.overlays:
        return frozenset()
    platforms = directories.platforms_of(pack, name)
    places = ((platform, directories.locate(pack, name, platform)) for platform in platforms)
    return frozenset(config_path(name, p) for p, place in places if place and place.overlay)


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
