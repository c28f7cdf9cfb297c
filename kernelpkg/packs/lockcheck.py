"""What has drifted since a pack was locked, and whose change it is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final, Literal

from attrs import frozen

from kernelpkg.errors import Problem
from kernelpkg.packs.lock import LockedConfigs, LockedKernel, LockedPack, config_path

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


def drift(
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
