"""Config files as checks see them: which there are, what each says, which lack, which are copies.

What lies beside them is a finding, too.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cached_property, partial
from itertools import combinations
from pathlib import Path
from typing import Final

from attrs import field, frozen

from kernelpkg.configs import platforms
from kernelpkg.configs.directories import (
    ConfigPlace,
    may_name_platform,
    search_path,
    unlisted,
    walk,
)
from kernelpkg.configs.match import identity
from kernelpkg.configs.platforms import Platform, platform_of
from kernelpkg.configs.store import ConfigFile, config_id
from kernelpkg.errors import Problem, Severity, UsageError, counted, suggestion
from kernelpkg.manifest.cases import show
from kernelpkg.manifest.document import JsonPath, json_lines
from kernelpkg.manifest.helion_config import Config
from kernelpkg.manifest.spec import KernelSpec, PackSpec, Scalar

SHARE: Final = Fraction(9, 10)
"""The share of the smaller file's cases that must be equal in a copy."""

TIMES: Final = 8
"""The fewest measured times that make a copy: each agrees by chance in one of ten, at most.

GPUs time in steps of 32 ns; a kernel of 4 us has about so many of them within its noise.
"""

CASES: Final = 16
"""The fewest equal cases that make a copy, where no times tell."""

CONFIGS: Final = 8
"""The fewest distinct configs of those: tuners that choose among few agree without copying."""


KeyRow = tuple[Scalar, ...]
"""The values of a case key, in the order of the rules."""


@frozen(kw_only=True)
class ConfigTree:
    """All config files of a pack, those of overlays first, and what lies beside them."""

    files: tuple[ConfigPlace, ...]
    findings: tuple[Problem, ...]

    def first(self) -> dict[tuple[str, str], ConfigPlace]:
        """Return the files that calls use, by kernel and platform: the first of each there is."""
        found: dict[tuple[str, str], ConfigPlace] = {}
        for file in self.files:
            found.setdefault((file.kernel, file.platform), file)
        return found


def survey(pack: PackSpec) -> ConfigTree:
    """List the config files of a pack, and name what nothing reads; hidden files are no one's."""
    files: list[ConfigPlace] = []
    findings: list[Problem] = []
    for directory in search_path(pack):
        if directory.path.exists() and not directory.path.is_dir():
            message = "is not a directory; remove it"
            findings.append(Problem(path=directory.shown, code="KP201", message=message))
        elif broken := _broken_link(directory.path, directory.shown):
            findings.append(broken)
    for entry in walk(pack):
        findings += unlisted(entry)
        findings += _beside(pack, entry) if entry.error is None else ()
        if entry.kernel and entry.name.endswith(".json") and may_name_platform(entry.platform):
            files.append(entry)
    return ConfigTree(files=tuple(files), findings=tuple(sorted(findings)))


def _beside(pack: PackSpec, entry: ConfigPlace) -> Iterator[Problem]:
    """Yield why nothing reads what lies in a directory of configs, if nothing does."""
    above, is_json = entry.directory.shown, entry.name.endswith(".json")
    message = None
    if entry.kernel:
        if is_json:
            yield from _name(pack, entry)
        else:
            message = "is not a <platform>.json, so nothing reads it; rename or remove it"
    elif broken := _broken_link(entry.path, entry.shown):
        yield broken
    elif entry.path.is_dir():
        others = Path(pack.root, "kernels", entry.name).is_dir()  # another pack's
        if entry.name not in pack.kernels and not others:
            remedy = suggestion(entry.name, pack.kernels) or "; rename or remove it"
            message = f"is not for a kernel of pack '{pack.name}', so nothing reads it{remedy}"
    elif is_json:
        what = "belongs in the directory of its kernel; nothing reads it here"
        message = f"{what}; move it to {above}/<kernel>/"
    if message is not None:
        yield Problem(path=entry.shown, code="KP201", message=message)


def _name(pack: PackSpec, entry: ConfigPlace) -> Iterator[Problem]:
    """Yield that the name of a file is looked up for no GPU, or for none that is known."""
    name = entry.platform
    try:
        spelled = platforms.canonical(name)
    except ValueError:
        spelled = ""
    if spelled != name:
        remedy = f"rename it to '{spelled}.json'" if spelled else "remove it"
        message = f"'{name}' is not the name of a platform, so no GPU looks for it; {remedy}"
        yield Problem(path=entry.shown, code="KP202", message=message)
        return
    found, own = platform_of(pack, name), _own(pack)
    doubt = None
    if found.name != name:
        doubt = f"GPUs of this name look for '{found.name}', by [platforms] of the pack"
    elif found.arch is None and name != platforms.CPU and name not in own:
        doubt = f"'{name}' is not a GPU that kernelpkg knows, so no GPU may look for it"
        known = suggestion(name, [*platforms.known(), *own])
        doubt += known or "; name it in [platforms] of the pack"
    if doubt is not None:
        yield Problem(path=entry.shown, code="KP202", message=doubt, severity="unverified")


def kernel_findings(pack: PackSpec) -> Iterator[Problem]:
    """Yield directories of kernels/ that have no manifest, and links there that lead nowhere."""
    root = Path(pack.root, "kernels")
    for name in _names(root):
        path, shown = root / name, f"kernels/{name}"
        if broken := _broken_link(path, shown):
            yield broken
        elif path.is_dir() and name[0] != "_" and name not in pack.kernels:
            inside = _names(path)
            if broken := _broken_link(path / "kernel.toml", f"{shown}/kernel.toml"):
                yield broken
            elif "kernel.toml" not in inside and inside:
                message = "has no kernel.toml, so it is not a kernel; write one, or remove it"
                yield Problem(path=shown, code="KP204", message=message)


def _own(pack: PackSpec) -> list[str]:
    """The platforms that the pack names itself."""
    return [platforms.canonical(name) for name in pack.platforms.values()]


def _names(path: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(path) if name[0] != ".")
    except (FileNotFoundError, NotADirectoryError):
        return []


def _broken_link(path: Path, shown: str) -> Problem | None:
    """Return the problem of a link that leads nowhere."""
    if path.exists() or not path.is_symlink():
        return None
    message = f"is a link to '{os.readlink(path)}', which is not there; correct or remove it"
    return Problem(path=shown, code="KP203", message=message)


@frozen(kw_only=True, eq=False, slots=False)
class CheckedFile:
    """A config file that was read without problems, of a kernel whose manifest was too.

    `shown` is its path in findings, and `overlay` says whether it is an operator's.
    """

    spec: KernelSpec
    shown: str
    platform: str
    overlay: bool
    file: ConfigFile
    text: str = field(repr=False)

    @cached_property
    def rows(self) -> Mapping[int, KeyRow]:
        """The cases by their places, with what keys leave out filled in; not the case {}."""
        defaults = self.spec.defaults
        return {
            place: tuple(case.key.get(axis, defaults.get(axis)) for axis in self.spec.key_axes)
            for place, case in enumerate(self.file.cases)
            if case.key
        }

    @cached_property
    def by_row(self) -> Mapping[tuple[object, ...], int]:
        """The places of the cases, by what equality of their keys goes by."""
        return {identities(row): place for place, row in self.rows.items()}

    def config(self, place: int) -> Config:
        """Return the config of a case."""
        return self.file.configs[self.file.cases[place].config]

    def shown_case(self, row: Sequence[Scalar]) -> str:
        """Return a case as messages name it: without what keys may leave out, if any is left."""
        spec = self.spec
        pairs = list(zip(spec.key_axes, row, strict=False))  # or the first values of one
        named = [
            (axis, value)
            for axis, value in pairs
            if axis not in spec.defaults or identity(value) != identity(spec.defaults[axis])
        ]
        return ", ".join(f"{axis}={show(value)}" for axis, value in named or pairs)

    def case(self, place: int) -> str:
        """Return a case of the file as messages name it."""
        return self.shown_case(self.rows[place]) if place in self.rows else "{}"

    def finding(
        self, code: str, message: str, *at: str | int, severity: Severity = "error"
    ) -> Problem:
        """Return a finding of the value at a path in the file."""
        line = self._lines.get(at, 0) if at else 0
        return Problem(path=self.shown, line=line, code=code, message=message, severity=severity)

    @cached_property
    def _lines(self) -> Mapping[JsonPath, int]:
        return json_lines(self.text)[0]


def identities(row: Sequence[Scalar]) -> tuple[object, ...]:
    """Return what equality of keys goes by."""
    return tuple(map(identity, row))


def missing_files(
    pack: PackSpec,
    kernels: Sequence[str],
    specs: Mapping[str, KernelSpec],
    there: Collection[tuple[str, str]],
    wanted: Collection[str],
) -> Iterator[Problem]:
    """Yield a note for each file that kernels lack, with what their calls get instead.

    `there` are the kernels and platforms that have one. Of the platforms in `wanted` each op
    should have one; without any, of all GPUs that some op has one for. Where no op has one, the
    ops whose calls get the same instead are told together.
    """
    note = partial(Problem, code="KP208", severity="unverified")
    for platform in sorted(wanted or {name for _, name in there if _looked_up(pack, name)}):
        lacking: dict[str, list[str]] = {}
        for kernel in kernels:
            own = sorted(other for name, other in there if name == kernel)
            if platform not in own:
                here = platform_of(pack, platform)
                lacking.setdefault(_instead(pack, specs.get(kernel), here, own), []).append(kernel)
        others = len({name for name, other in there if other == platform})
        for instead, names in lacking.items():
            if not others and len(names) > 1:
                message = (
                    f"no op of the pack has a file for {platform}; calls of {len(names)} ops on it "
                    f"{instead}; tune the ops for it"
                )
                yield note(path=f"configs/*/{platform}.json", message=message)
                continue
            have = counted(others, "other op of the pack has", "other ops of the pack have")
            message = (
                f"is not there, and {have if others else 'no other op of the pack has'} a file for "
                f"{platform}; calls on it {instead}; tune the op for it"
            )
            for name in names:
                yield note(path=f"configs/{name}/{platform}.json", message=message)


def _looked_up(pack: PackSpec, platform: str) -> bool:
    """Whether there are GPUs that look for the configs of a platform under its name."""
    found = platform_of(pack, platform)
    return found.name == platform and (found.arch is not None or platform in _own(pack))


def _instead(pack: PackSpec, spec: KernelSpec | None, here: Platform, own: Sequence[str]) -> str:
    """Say what calls of an op get on a platform that it has no file for."""
    if spec is not None and spec.miss == "error":
        return "raise, because [miss] action is 'error'"
    last = "Helion's own default" if spec is None or spec.default is None else "[helion] default"
    near = [
        name
        for name in platforms.chain(here, own, extra=pack.platforms)
        if platforms.fits(platform_of(pack, name), here) is not False
    ]
    return f"borrow from {', '.join(near)}, then take {last}" if near else f"take {last}"


def copies(files: Sequence[CheckedFile]) -> Iterator[tuple[CheckedFile, CheckedFile, str]]:
    """Yield the pairs of files of one kernel of which one is a copy of the other, and what agrees.

    Times decide where both files have them: no two GPUs take the same nanoseconds in case after
    case, and those that do not have their configs from measurements of their own.
    """
    for first, second in combinations(files, 2):
        rows = first.by_row.keys() & second.by_row
        pairs = [
            (first.file.cases[first.by_row[row]], second.file.cases[second.by_row[row]])
            for row in rows
        ]
        smaller = min(len(first.rows), len(second.rows))
        most = math.ceil(SHARE * smaller)
        measured = [a.ms == b.ms for a, b in pairs if a.ms is not None and b.ms is not None]
        ids, others = (list(map(config_id, file.file.configs)) for file in (first, second))
        same = [ids[a.config] for a, b in pairs if ids[a.config] == others[b.config]]
        configs = len(set(same))
        if len(measured) >= TIMES:
            copied = sum(measured) >= max(TIMES, most)
        else:
            equal = len(same) >= max(CASES, most)
            copied = equal and configs >= CONFIGS and all(measured)
        if copied:
            told = counted(configs, "distinct config")
            told += f", and {counted(sum(measured), 'measured time')}" if any(measured) else ""
            agree = f"{len(same)} of {counted(smaller, 'case')} have the same config ({told})"
            yield first, second, agree


def copy_findings(pack: PackSpec, files: Sequence[CheckedFile]) -> Iterator[Problem]:
    """Yield a finding for each copy, at the file that is known to be one, or else the first."""
    for first, second, agree in copies(files):
        at, other = first, second
        gpus = [platform_named(pack, file.file.tuned_with.get("gpu")) for file in (at, other)]
        told = gpus[0] == other.platform
        if gpus == [at.platform, at.platform]:
            at, other, told = other, at, True
        what = f"a copy of that of {other.platform}"
        if not told:
            what += ", or that one of this"
        remedy = "tune on each GPU, or remove the copy, whose calls then borrow"
        yield at.finding("KP220", f"the file is {what}: {agree} in {other.shown}; {remedy}")


def platform_named(pack: PackSpec, gpu: str | None) -> str | None:
    """Return the platform of the GPU that a file says it was tuned on; None where it has none."""
    try:
        return None if gpu is None else platform_of(pack, gpu).name
    except UsageError:
        return None
