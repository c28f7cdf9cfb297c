"""What `lock` writes for a pack, and what `lock --check` says of it.

Both take structural fingerprints anew only where nothing vouches for those of the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from attrs import evolve, frozen

from kernelpkg.errors import KernelpkgError, PackError, Problem
from kernelpkg.files import Files
from kernelpkg.manifest.spec import KernelSpec, PackSpec
from kernelpkg.packs import lockcheck
from kernelpkg.packs.inventory import Inventory, take_inventory
from kernelpkg.packs.lock import FILE, Lock, LockedPack, read_lock, write_lock
from kernelpkg.packs.lockcheck import Drift
from kernelpkg.packs.seal import Seal

Take = Callable[[KernelSpec], Mapping[str, str]]
"""Returns the fingerprints of a kernel by variant; raises KernelpkgError where it cannot."""

_NEWER = "KP002"


@frozen(kw_only=True)
class LockPlan:
    """The lock that a run leaves; `remarks` say what it lacks, and what became of others."""

    pack: PackSpec
    lock: Lock
    action: Literal["write", "unchanged"]
    remarks: tuple[str, ...]

    def carry_out(self) -> None:
        """Write the lock, if it changes; raises PackError where it cannot be written."""
        if self.action == "write":
            write_lock(Path(self.pack.root), self.lock)

    def counts(self) -> dict[str, int]:
        """How many kernels, files, config files and fingerprints are locked."""
        kernels = self.lock.packs[self.pack.name].kernels.values()
        return {
            "kernels": len(kernels),
            "files": sum(len(kernel.files) for kernel in kernels),
            "configs": sum(len(kernel.configs) for kernel in kernels),
            "fingerprints": sum(len(kernel.fingerprints) for kernel in kernels),
        }

    def lines(self) -> tuple[str, ...]:
        """Return what was done, for people."""
        counts = self.counts()
        told = [
            _count(counts["kernels"], "kernel"),
            _count(counts["files"], "file"),
            _count(counts["configs"], "config file"),
            _count(counts["fingerprints"], "fingerprint"),
        ]
        word = "wrote" if self.action == "write" else "unchanged:"
        path = Path(self.pack.root, FILE)
        return (f"{word} {path} (pack {self.pack.name}: {', '.join(told)})",)

    def to_json(self) -> dict[str, Any]:
        """Return the document of `lock --json`."""
        return {
            "path": str(Path(self.pack.root, FILE)),
            "action": self.action,
            "pack": self.pack.name,
            "version": self.pack.version,
            **self.counts(),
            "remarks": list(self.remarks),
        }


@frozen(kw_only=True)
class LockCheck:
    """What has drifted; `remarks` say what was not compared, `problems` what cannot be read."""

    pack: PackSpec
    drift: tuple[Drift, ...]
    remarks: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether everything is as it was locked."""
        return not self.drift and not self.problems

    def lines(self) -> tuple[str, ...]:
        """Return what has drifted, and a summary, for people."""
        told = f"{_count(len(self.drift), 'change')} since it was locked"
        what = told if self.drift else "nothing has drifted" if self.ok else "it is broken"
        summary = f"pack {self.pack.name} {self.pack.version}: {what}"
        return (*map(str, self.drift), summary)

    def to_json(self) -> dict[str, Any]:
        """Return the document of `lock --check --json`."""
        return {
            "pack": self.pack.name,
            "version": self.pack.version,
            "drift": [found.to_json() for found in self.drift],
            "remarks": list(self.remarks),
        }


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def plan_lock(
    pack: PackSpec, packs: Iterable[str], tools: Mapping[str, str], take: Take | str
) -> LockPlan:
    """Work out the lock of a pack; the parts of the other `packs` of its root stay as they are.

    `take` is why fingerprints cannot be taken, where they cannot. Raises PackError for a pack that
    is broken, for one has to load before it is locked, and for a lock of a newer edition.
    """
    remarks: list[str] = []
    try:
        old = read_lock(Path(pack.root))
    except PackError as error:
        if any(problem.code == _NEWER for problem in error.problems):
            raise
        old = None
        others = [name for name in packs if name != pack.name]
        again = f"; lock {', '.join(others)} again too" if others else ""
        remarks.append(f"{error.problems[0]} (it is written anew{again})")
    found = take_inventory(pack, tools)
    if found.problems:
        raise PackError(problems=found.problems)
    parts = {} if old is None else dict(old.packs)
    for name in sorted({*parts} - {*packs}):
        del parts[name]
        remarks.append(f"pack '{name}' is not there any more, and its part of the lock is removed")
    taken, missing = _with_fingerprints(parts.get(pack.name), found, take)
    parts[pack.name] = taken
    lock = Lock(packs=parts)
    return LockPlan(
        pack=pack,
        lock=lock,
        action="unchanged" if lock == old else "write",
        remarks=(*remarks, *missing),
    )


def check_lock(
    pack: PackSpec, packs: Iterable[str], tools: Mapping[str, str], take: Take | str
) -> LockCheck:
    """Compare a pack with its lock.

    Arguments are those of `plan_lock`. Raises PackError where there is no lock of the pack, or one
    that cannot be read.
    """
    lock = read_lock(Path(pack.root))
    locked = None if lock is None else lock.packs.get(pack.name)
    if lock is None or locked is None:
        what = "is not there" if lock is None else f"has no pack '{pack.name}'"
        message = f"{what}; run 'kernelpkg lock' to write it"
        raise PackError(problems=(Problem(path=FILE, code="KP303", message=message),))
    found = take_inventory(pack, tools)
    recorded = {name for name, kernel in locked.kernels.items() if kernel.fingerprints}
    wanted = evolve(
        found, specs={name: spec for name, spec in found.specs.items() if name in recorded}
    )
    now, missing = _with_fingerprints(locked, wanted, take)
    broken = [name for name in pack.kernels if name not in found.specs]
    drift = [*lockcheck.drift(pack.name, locked, now, broken)]
    drift += [entry for name in broken for entry in _broken(pack, name, locked)]
    for name in sorted({*lock.packs} - {*packs}):
        message = f"has pack '{name}', which is not there any more; run 'kernelpkg lock'"
        problem = Problem(path=FILE, code="KP307", message=message)
        drift.append(Drift(problem=problem, change="manifest"))
    if not recorded:
        missing = ("structural fingerprints are not in the lock, and not compared",)
    return LockCheck(
        pack=pack, drift=tuple(sorted(drift)), remarks=missing, problems=found.problems
    )


def _broken(pack: PackSpec, name: str, locked: LockedPack) -> Iterable[Drift]:
    """Say of a kernel that cannot be read which of its files are not as they were locked."""
    seal = Seal(required=True, locked=locked)
    try:
        seal.check_kernel(evolve(pack, overlays=()), name, Files())
    except PackError as error:
        return [lockcheck.of_file(problem) for problem in error.problems]
    return ()


def _with_fingerprints(
    locked: LockedPack | None, found: Inventory, take: Take | str
) -> tuple[LockedPack, tuple[str, ...]]:
    """Fill in the fingerprints; those that nothing has changed for are taken over."""
    kernels = dict(found.pack.kernels)
    needed = lockcheck.needs_fingerprints(locked, found.pack)
    failed: dict[str, str] = {}
    for name, spec in found.specs.items():
        taken: Mapping[str, str] = {}
        if name not in needed and locked is not None:
            taken = locked.kernels[name].fingerprints
        elif isinstance(take, str):
            failed[name] = take
        else:
            try:
                taken = take(spec)
            except KernelpkgError as error:
                failed[name] = str(error).split("\n", maxsplit=1)[0]
        kernels[name] = evolve(kernels[name], fingerprints=taken)
    remarks = []
    for why in dict.fromkeys(failed.values()):
        names = [name for name, reason in failed.items() if reason == why]
        whose = ", ".join(names) if len(names) < len(kernels) else "all kernels"
        remarks.append(f"no structural fingerprints of {whose}: {why}")
    return evolve(found.pack, kernels=kernels), tuple(remarks)
