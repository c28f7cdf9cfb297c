"""What was locked held against what is there: at load, where a pack has to be as its lock says.

`drift` says the same to whoever makes the pack, with what each change means.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, TypeVar

from attrs import frozen

from kernelpkg import __version__
from kernelpkg.configs import directories
from kernelpkg.errors import PackError, Problem, pack_error
from kernelpkg.files import Files
from kernelpkg.manifest.spec import PackSpec
from kernelpkg.packs.lock import FILE, LockedKernel, LockedPack, config_path, read_lock

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

    @property
    def builds(self) -> Mapping[str, str]:
        """The digests of the pack's own builds, by platform, as they were locked."""
        return {} if self.locked is None else self.locked.builds

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
        message = f"is in the lock, but is missing or cannot be read; {REMEDY}"
        return Problem(path=path, code="KP305", message=message)
    if locked is None:
        message = "is not in the lock; remove it, or run 'kernelpkg lock' if it is meant"
        return Problem(path=path, code="KP306", message=message)
    return differs(path, locked, found)


def differs(path: str, locked: str, found: str) -> Problem:
    """Say that a file is not the one that was locked."""
    message = f"differs from the lock: {locked[:_SHOWN]}… was expected, got {found[:_SHOWN]}…"
    return Problem(path=path, code="KP304", message=f"{message}; {REMEDY}")


def _hidden(pack: PackSpec, name: str) -> frozenset[str]:
    """Return the config files of a pack's kernel in whose place an operator has others."""
    if not pack.overlays:
        return frozenset()
    platforms = directories.platforms_of(pack, name)
    places = ((platform, directories.locate(pack, name, platform)) for platform in platforms)
    return frozenset(config_path(name, p) for p, place in places if place and place.overlay)
