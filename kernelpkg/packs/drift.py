"""What `lock` writes for a pack, and what `lock --check` says of it.

Both take structural fingerprints anew only where nothing vouches for those of the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from attrs import evolve, frozen

from kernelpkg.configs import search_path
from kernelpkg.configs.store import StoredFile
from kernelpkg.errors import KernelpkgError, PackError, Problem
from kernelpkg.files import Files
from kernelpkg.manifest.spec import KernelSpec, PackSpec
from kernelpkg.packs.lock import (
    FILE,
    Lock,
    LockedConfigs,
    LockedKernel,
    LockedPack,
    Verifier,
    config_path,
    read_lock,
    write_lock,
)
from kernelpkg.packs.read import read_kernel
from kernelpkg.packs.sources import source_digest

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
    drift = [*compare(pack.name, locked, now, broken)]
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
    verifier = Verifier(required=True, locked=locked)
    try:
        verifier.check_kernel(evolve(pack, overlays=()), name, Files())
    except PackError as error:
        return [of_file(problem) for problem in error.problems]
    return ()


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


Change = Literal[
    "source",
    "comments",
    "manifest",
    "schema",
    "configs",
    "kernels",
    "torch",
    "helion",
    "triton",
    "fingerprint",
]
"""Whose change it is: what a source does, or only its comments, layout and docstrings; a manifest;
the schema of an op; config files; which kernels there are; a tool; the structure of a kernel."""

_TOOLS: Final[tuple[Literal["torch", "helion", "triton"], ...]] = ("torch", "helion", "triton")
"""The tools that compiled kernels depend on; those of another Python or kernelpkg are the same."""


@frozen(kw_only=True, order=True)
class Drift:
    """One thing that is not as it was locked."""

    problem: Problem
    change: Change

    def __str__(self) -> str:
        return str(self.problem)

    def to_json(self) -> dict[str, Any]:
        """Return the entry of `lock --check --json`."""
        problem = self.problem
        return {
            "path": problem.path,
            "change": self.change,
            "code": problem.code,
            "message": problem.message,
        }


def compare(
    pack: str, locked: LockedPack, found: LockedPack, broken: Collection[str] = ()
) -> tuple[Drift, ...]:
    """Return what differs between a pack as it was locked and as it is, in order of places.

    Fingerprints are compared where both have them. Kernels that `found` lacks are gone, except for
    those that are broken, of which nothing is said here.
    """
    found_all = [*_manifest(pack, locked, found), *_tools(locked, found)]
    for name in sorted({*locked.kernels, *found.kernels} - {*broken}):
        before, now = locked.kernels.get(name), found.kernels.get(name)
        path = f"kernels/{name}/kernel.toml"
        if before is None:
            message = f"kernel '{name}' came in after the pack was locked"
            found_all.append(_drift(path, "KP310", "kernels", message))
        elif now is None:
            message = f"kernel '{name}' was locked, and is not there any more"
            found_all.append(_drift(path, "KP310", "kernels", message))
        else:
            found_all += _kernel(name, before, now, python=_same(locked, found, ("python",)))
            found_all += _fingerprints(name, before, now, _cause(before, now, locked, found))
    return tuple(sorted(found_all))


def of_file(problem: Problem) -> Drift:
    """Return a file of a broken kernel that is not as it was locked, by what kind it is."""
    if problem.path.startswith("configs/"):
        return Drift(problem=problem, change="configs")
    return Drift(problem=problem, change="manifest" if problem.path.endswith(".toml") else "source")


def needs_fingerprints(locked: LockedPack | None, found: LockedPack) -> tuple[str, ...]:
    """Return the kernels whose fingerprints have to be taken anew, for nothing can vouch for them.

    A fingerprint follows from the kernel's files and the tools; where these are as they were when
    it was taken, it stands.
    """
    return tuple(name for name, now in found.kernels.items() if not _stands(locked, found, name))


def _stands(locked: LockedPack | None, found: LockedPack, name: str) -> bool:
    before = None if locked is None else locked.kernels.get(name)
    return (
        locked is not None
        and before is not None
        and bool(before.fingerprints)
        and before.files == found.kernels[name].files
        and _same(locked, found, _TOOLS)
    )


def _same(locked: LockedPack, found: LockedPack, tools: Iterable[str]) -> bool:
    return all(locked.tools.get(name) == found.tools.get(name) for name in tools)


def _drift(path: str, code: str, change: Change, message: str) -> Drift:
    return Drift(problem=Problem(path=path, code=code, message=message), change=change)


def _manifest(pack: str, locked: LockedPack, found: LockedPack) -> Iterator[Drift]:
    if locked.manifest != found.manifest:
        versions = _versions(locked.version, found.version)
        message = f"the manifest of the pack changed; {versions}"
        yield _drift(f"manifests/{pack}.toml", "KP311", "manifest", message)


def _versions(before: object, now: object) -> str:
    if before == now:
        return f"its version is {now} as before"
    return f"its version was {before} and is {now}"


def _tools(locked: LockedPack, found: LockedPack) -> Iterator[Drift]:
    for name in _TOOLS:
        before, now = locked.tools.get(name), found.tools.get(name)
        if before is not None and now is not None and before != now:
            message = f"version {before} was locked, and {now} is installed; what was tuned with "
            message += "the one may be slow or refused with the other"
            yield _drift(name, "KP316", name, message)


def _kernel(name: str, before: LockedKernel, now: LockedKernel, *, python: bool) -> Iterator[Drift]:
    for file in sorted({*before.files, *now.files}):
        if before.files.get(file) != now.files.get(file):
            yield _file(name, file, before, now, python=python)
    manifest = f"kernels/{name}/kernel.toml"
    if before.schema != now.schema:
        versions = _versions(before.version, now.version)
        message = f"the op's schema changed from '{before.schema}' to '{now.schema}'; {versions}"
        yield _drift(manifest, "KP313", "schema", message)
    for platform in sorted({*before.configs, *now.configs}):
        was, is_ = before.configs.get(platform), now.configs.get(platform)
        if was != is_:
            path = config_path(name, platform)
            yield _drift(path, "KP315", "configs", _configs_text(was, is_))


def _file(name: str, file: str, before: LockedKernel, now: LockedKernel, *, python: bool) -> Drift:
    path = f"kernels/{name}/{file}"
    if file not in now.files or file not in before.files:
        what = "is named by the manifest no more" if file not in now.files else "came in"
        return _drift(path, "KP312", "source", f"{what} since the kernel was locked")
    if file not in now.sources:
        versions = _versions(before.version, now.version)
        return _drift(path, "KP311", "manifest", f"the kernel's manifest changed; {versions}")
    if not python:  # a tree is written out in another way by another Python
        message = "the source changed; whether what it does cannot be told, for it was locked with "
        return _drift(path, "KP312", "source", f"{message}another Python")
    if before.sources.get(file) == now.sources[file]:
        message = "only comments, layout or docstrings of the source changed"
        return _drift(path, "KP314", "comments", message)
    return _drift(path, "KP312", "source", "what the source does changed")


def _configs_text(before: LockedConfigs | None, now: LockedConfigs | None) -> str:
    if before is None and now is not None:
        return f"these configs came in after the pack was locked ({_counts(now)})"
    if before is not None and now is None:
        return f"these configs were locked ({_counts(before)}), and are not there any more"
    assert before is not None
    assert now is not None
    if (before.cases, before.configs) == (now.cases, now.configs):
        return f"the configs changed ({_counts(now)} as before)"
    return f"the configs changed ({_counts(before)} were locked, {_counts(now)} are there)"


def _counts(configs: LockedConfigs) -> str:
    return f"{configs.cases} cases, {configs.configs} configs"


def _cause(before: LockedKernel, now: LockedKernel, locked: LockedPack, found: LockedPack) -> str:
    """Name what a changed fingerprint can come from."""
    tools = [name for name in _TOOLS if not _same(locked, found, (name,))]
    changed = [file for file in sorted(now.files) if before.files.get(file) != now.files[file]]
    return ", ".join([*changed, *tools]) or "an installed package that was edited"


def _fingerprints(
    name: str, before: LockedKernel, now: LockedKernel, cause: str
) -> Iterator[Drift]:
    if not before.fingerprints or not now.fingerprints:
        return
    told: Mapping[str, str] = {
        **dict.fromkeys(before.fingerprints, "is none any more"),
        **dict.fromkeys(now.fingerprints, "came in"),
    }
    for variant in sorted(told):
        was, is_ = before.fingerprints.get(variant), now.fingerprints.get(variant)
        if was == is_:
            continue
        which = f"variant {variant or 'of all calls'}"
        text = f"{which} {told[variant]} since the kernel was locked"
        if was is not None and is_ is not None:
            text = f"{which} has another structure than was locked, by a change of {cause}; "
            text += "lists in its configs may not fit"
        yield _drift(f"kernels/{name}", "KP317", "fingerprint", text)


@frozen(kw_only=True)
class Inventory:
    """A pack as it is, without fingerprints; kernels that are broken have problems instead."""

    pack: LockedPack
    specs: Mapping[str, KernelSpec]
    problems: tuple[Problem, ...]


def take_inventory(pack: PackSpec, tools: Mapping[str, str]) -> Inventory:
    """Read all that belongs to a pack: what `load` reads of it, and nothing of an operator's.

    Those are the manifests, the Python files that they name, and the config files of all
    platforms. What else lies beside them is not read by kernelpkg, and so not locked either.
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
    return Inventory(
        pack=LockedPack(
            version=pack.version, manifest=pack.digest, tools=dict(tools), kernels=kernels
        ),
        specs=specs,
        problems=tuple(problems),
    )


def _read_kernel(pack: PackSpec, name: str) -> tuple[KernelSpec, LockedKernel]:
    files, root = Files(), Path(pack.root)
    spec = read_kernel(root, name, files)
    found = files.digests(Path(spec.directory))
    sources = {
        file: source_digest(files.tree(Path(spec.directory, file), file))
        for file in found
        if file.endswith(".py")
    }
    stored: dict[str, LockedConfigs] = {}
    problems: list[Problem] = []
    for platform in search_path.platforms_of(pack, name):
        try:
            content = search_path.read_configs(pack, spec, platform, files)
        except PackError as error:
            problems += error.problems
        else:
            digest = files.digest(root / config_path(name, platform))
            stored[platform] = _configs(content, digest)
    if problems:
        raise PackError(problems=tuple(problems))
    return spec, LockedKernel(
        version=spec.version,
        schema=spec.schema.text,
        files=found,
        sources=sources,
        configs=stored,
    )


def _configs(stored: StoredFile, digest: str) -> LockedConfigs:
    cases, configs = stored.counts()
    source = stored.content().tuned_with.get("source", "")
    return LockedConfigs(file=digest, cases=cases, configs=configs, source=source)
