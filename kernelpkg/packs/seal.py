"""The lock of a pack while the pack is loaded: what is as it was locked, and what has to be.

What is compared are the bytes that the pack is loaded from, read once; where a pack must be as it
was locked, they are compared before any of them is run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import frozen

from kernelpkg.configs import search_path
from kernelpkg.errors import PackError, Problem
from kernelpkg.files import Files
from kernelpkg.manifest.spec import PackSpec
from kernelpkg.packs.lock import FILE, LockedPack, config_path, read_lock
from kernelpkg.runtime.report import LockState

_SHOWN: Final = 12
"""How many hexadecimal digits of a digest a message shows."""

REMEDY: Final = "restore it, reinstall its package, or run 'kernelpkg lock' if this is meant"


@frozen(kw_only=True)
class Seal:
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

    def check_kernel(self, pack: PackSpec, name: str, files: Files) -> None:
        """Raise PackError with all that is not as locked, where a kernel must be so.

        All its files are read for that, and none is run.
        """
        if self.locked is None or not self.required:
            return
        kernel = self.locked.kernels.get(name)
        paths = set() if kernel is None else {*kernel.digests(name)}
        paths |= {config_path(name, platform) for platform in search_path.platforms_of(pack, name)}
        for path in paths - _hidden(pack, name):
            with contextlib.suppress(OSError):  # then it differs
                files.read(Path(pack.root, path))
        problems = self.differences(pack, name, files)
        if problems:
            raise PackError(problems=problems)

    def differences(self, pack: PackSpec, name: str, files: Files) -> tuple[Problem, ...]:
        """Return how the files that were read of a kernel differ from those that were locked.

        Configs that an operator put before the pack's are not the lock's business.
        """
        if self.locked is None:
            return ()
        kernel = self.locked.kernels.get(name)
        if kernel is None:
            return (_stranger(name),)
        wanted = kernel.digests(name)
        hidden = _hidden(pack, name)
        folders = (f"kernels/{name}", f"configs/{name}")
        found = files.digests_below(Path(pack.root), folders)
        return tuple(
            difference(path, wanted.get(path), found.get(path))
            for path in sorted({*wanted, *found} - hidden)
            if wanted.get(path) != found.get(path)
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
        return {name: _gone(name) for name in self.locked.kernels if name not in pack.kernels}


def open_seal(root: Path, name: str, *, demanded: bool, installed: bool) -> Seal:
    """Return the seal of a pack.

    A pack that was `installed` as a package has to be as its lock says, if it came with one. Where
    locked packs are `demanded`, it needs one. Raises PackError where what is needed is not there.
    """
    try:
        lock = read_lock(root)
    except PackError as error:
        if demanded or installed:
            raise
        return Seal(notes=error.problems)
    if lock is None and not demanded:
        return Seal()
    locked = None if lock is None else lock.packs.get(name)
    if locked is None and (demanded or installed):
        what = "is not there" if lock is None else f"has no pack '{name}'"
        message = f"{what}, and the pack must be locked; run 'kernelpkg lock --pack {name}' where "
        raise PackError(
            problems=(Problem(path=FILE, code="KP303", message=f"{message}it is made"),)
        )
    return Seal(required=demanded or installed, locked=locked)


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
    message = f"is not as it was locked: {_short(locked)} is expected, got {_short(found)}"
    return Problem(path=path, code="KP304", message=f"{message}; {REMEDY}")


def _short(digest: str) -> str:
    kind, _, digits = digest.partition("-")
    return f"{kind}-{digits[:_SHOWN]}…"


def _stranger(name: str) -> Problem:
    return difference(f"kernels/{name}/kernel.toml", None, "")


def _gone(name: str) -> Problem:
    return difference(f"kernels/{name}/kernel.toml", "", None)


def _hidden(pack: PackSpec, name: str) -> frozenset[str]:
    """Return the config files of a pack's kernel in whose place an operator has others."""
    if not pack.overlays:
        return frozenset()
    platforms = search_path.platforms_of(pack, name)
    places = {platform: search_path.locate(pack, name, platform) for platform in platforms}
    return frozenset(
        config_path(name, platform)
        for platform, place in places.items()
        if place is not None and place.overlay
    )
