"""What `lock` writes for a pack, and what `lock --check` says of it.

Both take structural fingerprints anew only where nothing vouches for those of the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from attrs import evolve, frozen

from kernelpkg.configs import directories
from kernelpkg.errors import KernelpkgError, PackError, Problem, counted, pack_error
from kernelpkg.files import Files
from kernelpkg.manifest.spec import KernelSpec, PackSpec
from kernelpkg.packs.builds import FOLDER, INDEX, own_directories, read_build
from kernelpkg.packs.lock import (
    FILE,
    Lock,
    LockedConfigs,
    LockedKernel,
    LockedPack,
    config_path,
    read_lock,
    write_lock,
)
from kernelpkg.packs.read import read_kernel
from kernelpkg.packs.sources import source_digest
from kernelpkg.packs.verify import Verifier, changed

Take = Callable[[KernelSpec], Mapping[str, str]]
"""Returns the fingerprints of a kernel by variant; raises KernelpkgError where it cannot."""

_CHANGES: Final = {
    "KP307": "manifest",
    "KP310": "kernels",
    "KP311": "manifest",
    "KP312": "source",
    "KP313": "schema",
    "KP314": "comments",
    "KP315": "configs",
    "KP317": "fingerprint",
    "KP318": "builds",
}
"""Whose change it is, by code: a manifest; which kernels there are; what a source does, or only its
comments, layout and docstrings; the schema of an op; config files; the structure of a kernel; what
was compiled ahead."""
_TOOLS: Final = ("torch", "helion", "triton")
"""The tools that compiled kernels depend on; those of another Python or kernelpkg are the same."""


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
        """How many kernels, files, config files, fingerprints and builds are locked."""
        pack = self.lock.packs[self.pack.name]
        kernels = pack.kernels.values()
        parts = ("files", "configs", "fingerprints")
        counts = {part: sum(len(getattr(kernel, part)) for kernel in kernels) for part in parts}
        return {"kernels": len(kernels), **counts, "builds": len(pack.builds)}

    def lines(self) -> tuple[str, ...]:
        """Return what was done, for people."""
        nouns = ("kernel", "file", "config file", "fingerprint", "build")
        *told, builds = map(counted, self.counts().values(), nouns)
        told += [] if builds == "0 builds" else [builds]
        done = "wrote" if self.action == "write" else "unchanged:"
        done += f" {Path(self.pack.root, FILE)}"
        return (f"{done} (pack {self.pack.name}: {', '.join(told)})",)

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
    drift: tuple[Problem, ...]
    remarks: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether everything is as it was locked."""
        return not self.drift and not self.problems

    def lines(self) -> tuple[str, ...]:
        """Return what has drifted, and a summary, for people."""
        told = f"{counted(len(self.drift), 'change')} since it was locked"
        what = told if self.drift else "nothing has drifted" if self.ok else "it is broken"
        return (*map(str, self.drift), f"pack {self.pack.name} {self.pack.version}: {what}")

    def to_json(self) -> dict[str, Any]:
        """Return the document of `lock --check --json`."""
        return {
            "pack": self.pack.name,
            "version": self.pack.version,
            "drift": [
                {"path": p.path, "change": change_of(p), "code": p.code, "message": p.message}
                for p in self.drift
            ],
            "remarks": list(self.remarks),
        }


def plan_lock(
    pack: PackSpec, packs: Iterable[str], tools: Mapping[str, str], take: Take | str
) -> LockPlan:
    """Work out the lock of a pack; the parts of the other `packs` of its root stay as they are.

    `take` is why fingerprints cannot be taken, where they cannot. Raises PackError for a pack that
    is broken, for the lock vouches for it, and for a lock of a newer edition.
    """
    remarks: list[str] = []
    try:
        old = read_lock(Path(pack.root))
    except PackError as error:
        if any(problem.code == "KP002" for problem in error.problems):
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
        remarks.append(f"pack '{name}' no longer exists; its part of the lock is removed")
    parts[pack.name], missing = _with_fingerprints(parts.get(pack.name), found, take)
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
        raise pack_error(FILE, "KP303", message)
    found = take_inventory(pack, tools)
    recorded = {name for name, kernel in locked.kernels.items() if kernel.fingerprints}
    specs = {name: spec for name, spec in found.specs.items() if name in recorded}
    wanted = evolve(found, specs=specs)
    now, missing = _with_fingerprints(locked, wanted, take)
    broken = [name for name in pack.kernels if name not in found.specs]
    drift = [*compare(pack.name, locked, now, broken)]
    verifier, own = Verifier(locked=locked), evolve(pack, overlays=())
    for name in broken:  # of a kernel that cannot be read, its files are compared
        drift += verifier.verify(own, name, Files())
    for other in {*lock.packs} - {*packs}:
        message = f"has pack '{other}', which no longer exists; run 'kernelpkg lock'"
        drift.append(Problem(path=FILE, code="KP307", message=message))
    if not recorded:
        missing = ("structural fingerprints are not in the lock, and not compared",)
    told = tuple(sorted(drift))
    return LockCheck(pack=pack, drift=told, remarks=missing, problems=found.problems)


def _with_fingerprints(
    locked: LockedPack | None, found: Inventory, take: Take | str
) -> tuple[LockedPack, tuple[str, ...]]:
    """Fill in the fingerprints; those that nothing has changed for are taken over."""
    kernels = dict(found.pack.kernels)
    needed = needs_fingerprints(locked, found.pack)
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


def compare(
    pack: str, locked: LockedPack, found: LockedPack, broken: Collection[str] = ()
) -> tuple[Problem, ...]:
    """Return what differs between a pack as it was locked and as it is, in order of places.

    Fingerprints are compared where both have them. Kernels that `found` lacks are gone, except for
    those that are broken, of which nothing is said here.
    """
    drift = []
    if locked.manifest != found.manifest:
        versions = _versions(locked.version, found.version)
        message = f"the manifest of the pack changed; {versions}"
        drift.append(Problem(path=f"manifests/{pack}.toml", code="KP311", message=message))
    tools = [tool for tool in _TOOLS if locked.tools.get(tool) != found.tools.get(tool)]
    for tool in tools:
        before, now = locked.tools.get(tool), found.tools.get(tool)
        if before is not None and now is not None:
            message = f"version {before} was locked, and {now} is installed; what was tuned with "
            message += "one may be slow or refused with the other"
            drift.append(Problem(path=tool, code="KP316", message=message))
    python = locked.tools.get("python") == found.tools.get("python")
    drift += _builds(pack, locked, found)
    for name, was, is_ in changed(locked.kernels, found.kernels):
        if name in broken:
            continue
        if was is None or is_ is None:
            what = "was added after the pack was locked"
            what = what if was is None else "was locked, and no longer exists"
            path, message = f"kernels/{name}/kernel.toml", f"kernel '{name}' {what}"
            drift.append(Problem(path=path, code="KP310", message=message))
        else:
            drift += _kernel(name, was, is_, tools, python=python)
    return tuple(sorted(drift))


def _builds(pack: str, locked: LockedPack, found: LockedPack) -> Iterator[Problem]:
    """Yield how the builds of a pack differ from those that were locked."""
    for platform, was, is_ in changed(locked.builds, found.builds):
        message = "this is not the build that was locked"
        if was is None:
            message = "this build was added after the pack was locked"
        elif is_ is None:
            message = "this build was locked, and no longer exists"
        path = f"{FOLDER}/{pack}/{platform}/{INDEX}"
        yield Problem(path=path, code="KP318", message=message)


def change_of(problem: Problem) -> str:
    """Return whose change it is that `lock --check` tells; a tool is its own."""
    if problem.code in _CHANGES or problem.path in _TOOLS:
        return _CHANGES.get(problem.code, problem.path)
    if problem.path.startswith("configs/"):  # a file of a kernel that is broken
        return "configs"
    return "manifest" if problem.path.endswith(".toml") else "source"


def needs_fingerprints(locked: LockedPack | None, found: LockedPack) -> tuple[str, ...]:
    """Return the kernels whose fingerprints have to be taken anew, for nothing can vouch for them.

    A fingerprint follows from the kernel's files and the tools; where these are as they were when
    it was taken, it stands.
    """
    if locked is None or any(locked.tools.get(t) != found.tools.get(t) for t in _TOOLS):
        return tuple(found.kernels)
    before = {name: kernel.files for name, kernel in locked.kernels.items() if kernel.fingerprints}
    return tuple(name for name, now in found.kernels.items() if before.get(name) != now.files)


def _versions(before: object, now: object) -> str:
    if before == now:
        return f"its version is {now} as before"
    return f"its version was {before} and is {now}"


def _kernel(
    name: str, before: LockedKernel, now: LockedKernel, tools: Iterable[str], *, python: bool
) -> Iterator[Problem]:
    """Yield what has changed of a kernel; `tools` have too, and it was locked by this `python`."""
    versions = _versions(before.version, now.version)
    files = [file for file, _, _ in changed(before.files, now.files)]
    for file in files:
        code, message = _file(file, before, now, versions, python=python)
        yield Problem(path=f"kernels/{name}/{file}", code=code, message=message)
    if before.schema != now.schema:
        message = f"the op's schema changed from '{before.schema}' to '{now.schema}'; {versions}"
        yield Problem(path=f"kernels/{name}/kernel.toml", code="KP313", message=message)
    for platform, was, is_ in changed(before.configs, now.configs):
        message = _configs_text(was, is_)
        yield Problem(path=config_path(name, platform), code="KP315", message=message)
    if not before.fingerprints or not now.fingerprints:
        return
    here = [file for file in files if file in now.files]
    cause = ", ".join([*here, *tools]) or "an installed package that was edited"
    for variant, had, has in changed(before.fingerprints, now.fingerprints):
        message = f"variant {variant or 'of all calls'} "
        if had is not None and has is not None:
            message += f"has another structure than was locked, by a change of {cause}; "
            message += "lists in its configs may not fit"
        else:
            what = "came in" if had is None else "is none any more"
            message += f"{what} since the kernel was locked"
        yield Problem(path=f"kernels/{name}", code="KP317", message=message)


def _file(
    file: str, before: LockedKernel, now: LockedKernel, versions: str, *, python: bool
) -> tuple[str, str]:
    """Return the code and what is to be said of a file that changed."""
    if file not in now.files or file not in before.files:
        what = "is no longer named by the manifest" if file not in now.files else "came in"
        return "KP312", f"{what} since the kernel was locked"
    if file not in now.sources:
        return "KP311", f"the kernel's manifest changed; {versions}"
    if not python:  # a tree is written out in another way by another Python
        message = "the source changed; whether its behaviour did cannot be told, "
        return "KP312", f"{message}because it was locked with another Python"
    if before.sources.get(file) == now.sources[file]:
        return "KP314", "only comments, layout or docstrings of the source changed"
    return "KP312", "the behaviour of the source changed"


def _configs_text(before: LockedConfigs | None, now: LockedConfigs | None) -> str:
    there = [locked for locked in (before, now) if locked is not None]
    told = [f"{counted(c.cases, 'case')}, {counted(c.configs, 'config')}" for c in there]
    if before is None:
        return f"these configs were added after the pack was locked ({told[0]})"
    if now is None:
        return f"these configs were locked ({told[0]}), and no longer exist"
    if told[0] == told[1]:
        return f"the configs changed ({told[0]} as before)"
    return f"the configs changed (locked: {told[0]}; now: {told[1]})"


@frozen(kw_only=True)
class Inventory:
    """A pack as it is, without fingerprints; kernels that are broken have problems instead."""

    pack: LockedPack
    specs: Mapping[str, KernelSpec]
    problems: tuple[Problem, ...]


def take_inventory(pack: PackSpec, tools: Mapping[str, str]) -> Inventory:
    """Read all that belongs to a pack: what `load` reads of it, and nothing of an operator's.

    Those are the manifests, the Python files that they name, the config files of all platforms, and
    builds, of which the index names the binaries. What else lies beside them is not read by
    kernelpkg, and so not locked either.
    """
    own = evolve(pack, overlays=())
    kernels: dict[str, LockedKernel] = {}
    specs: dict[str, KernelSpec] = {}
    problems: list[Problem] = []
    for name in pack.kernels:
        try:
            specs[name], kernels[name] = _read_kernel(own, name)
        except PackError as error:
            problems += error.problems
    builds: dict[str, str] = {}
    for platform, directory in own_directories(pack).items():
        try:
            build = read_build(directory)
            builds[platform] = build.digest
            build.check_binaries()  # the index has their digests, and is locked by its own
        except PackError as error:
            builds.setdefault(platform, "")  # is not as it was locked
            problems += error.problems
    found = LockedPack(
        version=pack.version,
        manifest=pack.digest,
        tools=dict(tools),
        kernels=kernels,
        builds=builds,
    )
    return Inventory(pack=found, specs=specs, problems=tuple(problems))


def _read_kernel(pack: PackSpec, name: str) -> tuple[KernelSpec, LockedKernel]:
    files, root = Files(), Path(pack.root)
    spec = read_kernel(root, name, files)
    directory = Path(spec.directory)
    found = files.digests(directory)
    python = [file for file in found if file.endswith(".py")]
    sources = {file: source_digest(files.tree(directory / file, file)) for file in python}
    stored: dict[str, LockedConfigs] = {}
    problems: list[Problem] = []
    for platform in directories.platforms_of(pack, name):
        try:
            content = directories.read_configs(pack, spec, platform, files)
        except PackError as error:
            problems += error.problems
        else:
            cases, configs = content.counts()
            stored[platform] = LockedConfigs(
                file=files.digest(root / config_path(name, platform)),
                cases=cases,
                configs=configs,
                source=content.content().tuned_with.get("source", ""),
            )
    if problems:
        raise PackError(problems=tuple(problems))
    return spec, LockedKernel(
        version=spec.version, schema=spec.schema.text, files=found, sources=sources, configs=stored
    )
