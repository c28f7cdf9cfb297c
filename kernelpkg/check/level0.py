"""Level 0 of a check: all that a pack's files say, held against each other, without torch.

What the levels find together is a checkup; it is here because this level alone needs neither torch
nor Helion.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from attrs import evolve, field, frozen

from kernelpkg.check import config_files
from kernelpkg.check.config_files import CheckedFile, ConfigTree, copy_findings, missing_files
from kernelpkg.check.provenance import fact_findings, time_findings
from kernelpkg.check.tuned_cases import case_findings, ragged_findings, value_findings
from kernelpkg.configs import store as config_store
from kernelpkg.configs.directories import ConfigPlace
from kernelpkg.configs.store import ConfigFile
from kernelpkg.errors import (
    Checked,
    PackError,
    Problem,
    Progress,
    counted,
    error_line,
)
from kernelpkg.files import Files
from kernelpkg.manifest.document import parse_json
from kernelpkg.manifest.helion_config import tunables_in
from kernelpkg.manifest.spec import KernelName, KernelSpec, PackSpec, Scalar
from kernelpkg.packs.lock import FILE, read_lock
from kernelpkg.packs.read import kernel_names, problem_at, read_kernel, read_pack
from kernelpkg.packs.routes import axis_name_problems, condition_problems
from kernelpkg.packs.sources import source_digest
from kernelpkg.packs.verify import Verifier

LEVELS: Final[Mapping[int, str]] = {
    0: "reads all files, without torch",
    1: "binds every variant with Helion, without a GPU",
    2: "compiles every distinct config for its GPU, without one",
    3: "runs every case against its reference",
}
"""What each level does; each one contains those before it."""

Level = Callable[[PackSpec, Sequence[KernelSpec], Sequence[str] | None], Checked]
"""A level above 0: takes the pack, its readable kernels, and the platforms, None for all."""

_T = TypeVar("_T")


def check_static(
    pack: PackSpec,
    kernels: Sequence[str],
    platforms: Collection[str],
    today: datetime.date,
    progress: Progress,
) -> tuple[Checked, tuple[KernelSpec, ...]]:
    """Check kernels of a pack and their config files; returns also the kernels that can be read.

    `platforms` are those whose files are looked at; with none, all. Of each kernel, the files of
    overlays and of the pack itself are checked, and the ones that calls use against each other.
    """
    check = _Check(pack=pack, today=today, wanted=frozenset(platforms))
    tree = config_files.survey(pack)
    if set(kernels) == set(pack.kernels):
        check.add("manifests", lambda: [*tree.findings, *config_files.kernel_findings(pack)])
    for step, kernel in enumerate(kernels):
        progress(f"level 0: {kernel}", step, len(kernels))
        check.kernel(kernel, tree)
    there = {(file.kernel, file.platform) for file in tree.files}
    check.found.extend(missing_files(pack, kernels, check.specs, there, check.wanted))
    check.add(pack.path, check.of_pack)
    check.add(FILE, partial(check.of_lock, kernels))
    counts = {
        "kernels": len(kernels),
        "files": len(check.used),
        "cases": sum(len(checked.file.cases) for checked in check.used),
        "configs": sum(checked.file.counts()[1] for checked in check.used),
        "platforms": sorted({file.platform for file in check.asked(tree.files)}),
    }
    findings = tuple(dict.fromkeys(check.found))
    return Checked(findings=findings, counts=counts), tuple(check.specs.values())


@frozen(kw_only=True)
class _Check:
    """One run of level 0: what was found so far, and what was read."""

    pack: PackSpec
    today: datetime.date
    wanted: frozenset[str]
    files: Files = field(factory=Files)
    found: list[Problem] = field(factory=list)
    specs: dict[str, KernelSpec] = field(factory=dict)
    used: list[CheckedFile] = field(factory=list)

    def attempt(self, path: str, step: Callable[[], _T]) -> _T | None:
        """Do something with a file; what is wrong becomes findings, and hides nothing else."""
        try:
            return step()
        except PackError as error:
            self.found.extend(error.problems)
        except Exception as error:  # whatever it is
            what = "kernelpkg did not foresee this, please report it"
            message = f"cannot be checked: {error_line(error)}; {what}"
            self.found.append(Problem(path=path, code="KP700", message=message))
        return None

    def add(self, path: str, findings: Callable[[], Iterable[Problem]]) -> None:
        """Add what a check of a file yields."""
        self.found.extend(self.attempt(path, lambda: list(findings())) or ())

    def asked(self, files: Iterable[ConfigPlace]) -> list[ConfigPlace]:
        """Leave out the files of platforms that were not asked for."""
        return [file for file in files if not self.wanted or file.platform in self.wanted]

    def kernel(self, kernel: str, tree: ConfigTree) -> None:
        manifest = f"kernels/{kernel}/kernel.toml"
        spec = self.attempt(
            manifest, partial(read_kernel, Path(self.pack.root), kernel, self.files)
        )
        files = self.asked(file for file in tree.files if file.kernel == kernel)
        if spec is None:
            for file in files:
                self.attempt(file.shown, partial(self.alone, file))
            return
        self.specs[kernel] = spec
        self.add(manifest, partial(self.of_backward, spec))
        digest = self.attempt(manifest, partial(self.digest, spec))
        first = tree.first()
        used = []
        for file in files:
            checked = self.attempt(file.shown, partial(self.read, spec, file))
            if checked is None:
                continue
            self.add(file.shown, partial(self.of_file, checked, digest))
            used += [checked] if first[kernel, file.platform] is file else []
        self.used.extend(used)
        self.add(f"configs/{kernel}", partial(copy_findings, self.pack, used))

    def of_backward(self, spec: KernelSpec) -> Iterator[Problem]:
        """Yield that the op which answers the gradients of another one is not in the pack."""
        if spec.backward is not None and spec.backward.op not in self.pack.kernels:
            what = f"'{spec.backward.op}' answers the gradients, and is not in pack"
            message = f"{what} '{self.pack.name}'; add it to its kernels"
            yield problem_at(spec, "KP160", message, "op", "backward", "op")

    def digest(self, spec: KernelSpec) -> str | None:
        path = Path(spec.directory, spec.source.file)
        try:
            return source_digest(self.files.tree(path, spec.source.file))
        except RecursionError:  # it parses, and is nested too deeply to be written out
            return None

    def read(self, spec: KernelSpec, file: ConfigPlace) -> CheckedFile | None:
        """Read a config file; None where its cases cannot be told, with why among the findings."""
        axes, defaults = spec.key_axes, spec.defaults
        content: ConfigFile | None
        try:
            source = spec.source.file
            content = self.store(file, axes, defaults, self.files.read, source).content()
        except PackError as error:
            self.found.extend(error.problems)
            content = self.without_configs(file, axes, defaults)
        if content is None:
            return None
        return CheckedFile(
            spec=spec,
            shown=file.shown,
            platform=file.platform,
            overlay=file.overlay,
            file=content,
            text=self.files.read(file.path).decode(),
        )

    def store(
        self,
        file: ConfigPlace,
        axes: Sequence[str],
        defaults: Mapping[str, Scalar],
        read_bytes: Callable[[Path], bytes],
        source: str = "kernel.py",
    ) -> config_store.StoredFile:
        """Read a config file as the loader does; raises PackError with all that is wrong."""
        path = Path(self.pack.root, "kernels", file.kernel, source)
        place = (file.path, file.shown, file.kernel, file.platform, axes, defaults)
        tunables = partial(tunables_in, path, self.files)
        return config_store.store(*place, tunables, read_bytes=read_bytes)

    def without_configs(
        self, file: ConfigPlace, axes: Sequence[str], defaults: Mapping[str, Scalar]
    ) -> ConfigFile | None:
        """Return a file in which nothing but configs is wrong, so that its cases are checked."""
        try:
            document, _ = parse_json(self.files.read(file.path).decode())
            found = [config if isinstance(config, dict) else {} for config in document["configs"]]
            text = json.dumps({**document, "configs": [{} for _ in found]}).encode()
            stored = self.store(file, axes, defaults, lambda _: text)
        except (OSError, ValueError, RecursionError, PackError, LookupError, TypeError):
            return None
        return evolve(stored.content(), configs=tuple(found))

    def alone(self, file: ConfigPlace) -> None:
        """Check a config file of a kernel whose manifest is broken: all but its axes.

        Raises PackError with every problem.
        """
        axes: dict[str, Scalar] = {}
        try:
            document, _ = parse_json(self.files.read(file.path).decode())
            for case in document["cases"]:
                axes |= dict.fromkeys(case["key"])
        except (OSError, ValueError, RecursionError, LookupError, TypeError):
            axes = {}  # what it is, the store tells
        self.store(file, tuple(axes), axes, self.files.read)

    def of_file(self, checked: CheckedFile, digest: str | None) -> Iterator[Problem]:
        """Yield what is wrong with one file that was read."""
        found, wrong = value_findings(checked)
        yield from found
        yield from case_findings(checked, wrong)
        yield from fact_findings(self.pack, checked, digest, self.today)
        yield from time_findings(checked)
        yield from ragged_findings(checked, wrong)

    def of_pack(self) -> Iterator[Problem]:
        """Yield what is wrong with the pack's words on kernels: conditions of routes, axes."""
        pack = self.pack
        for spec in self.specs.values():
            for route in pack.routes:
                if route.op == spec.name:
                    yield from condition_problems(pack, route, spec)
            yield from axis_name_problems(pack, spec)

    def of_lock(self, kernels: Sequence[str]) -> Iterator[Problem]:
        """Yield what is not as the lock says, as unverified; a lock that cannot be read is wrong.

        Packs are edited before they are locked again: a file that differs may be meant.
        """
        pack, root = self.pack, Path(self.pack.root)
        lock = read_lock(root)
        locked = None if lock is None else lock.packs.get(pack.name)
        if locked is None:
            return
        verifier = Verifier(required=True, locked=locked)
        problems = list(verifier.gone(pack).values()) if set(kernels) == set(pack.kernels) else []
        steps: list[Callable[[], object]] = [
            partial(verifier.check_kernel, pack, kernel, Files()) for kernel in kernels
        ]
        if pack.digest:  # else it is broken, which is told
            steps.append(partial(verifier.check_manifest, pack.path, pack.digest))
        for step in steps:
            try:
                step()
            except PackError as error:
                problems.extend(error.problems)
        for problem in problems:
            yield evolve(problem, severity="unverified")


@frozen(kw_only=True)
class Checkup:
    """What `check` found up to a level."""

    level: int
    checked: Checked

    @property
    def findings(self) -> tuple[Problem, ...]:
        return self.checked.findings

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong for sure."""
        return not any(finding.severity == "error" for finding in self.findings)

    def summary(self) -> Iterator[str]:
        """Yield what the findings come to, and what was looked at."""
        for level in range(self.level + 1):
            found = [finding for finding in self.findings if finding.level == level]
            errors = sum(finding.severity == "error" for finding in found)
            yield f"level {level}: {counted(errors, 'error')}, {len(found) - errors} unverified"
        yield f"checked: {self.looked_at()}"
        if self.level < max(LEVELS):
            yield f"not checked: level {self.level + 1} {LEVELS[self.level + 1]}"

    def looked_at(self) -> str:
        """Return in words what was looked at."""
        texts = []
        for name, value in self.checked.counts.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                noun = name.replace("_", " ")
                texts.append(counted(value, re.sub("(?<!s)s$", "", noun), noun))
        return ", ".join(texts)

    def to_json(self) -> dict[str, Any]:
        """Return the document of `check --json`."""
        return {
            "findings": [finding.to_json() for finding in self.findings],
            "checked": {"level": self.level, **self.checked.counts},
        }


def open_for_check(root: Path, name: str) -> tuple[PackSpec, tuple[Problem, ...]]:
    """Read a pack's manifest; where it is broken, all kernels there are stand for its own."""
    try:
        return read_pack(root, name), ()
    except PackError as error:
        found = error.problems
    try:
        kernels = kernel_names(root)
    except PackError:
        kernels = ()
    pack = PackSpec(
        name=name,
        path=f"manifests/{name}.toml",
        root=str(root),
        digest="",
        version="",
        namespace=name,
        license="",
        kernels=tuple(map(KernelName, kernels)),
        platforms={},
        variants="together",
        models={},
        vllm_requires="",
        vllm_axes={},
        routes=(),
    )
    return pack, found


def check(
    pack: PackSpec,
    first: tuple[Checked, tuple[KernelSpec, ...]],
    levels: Mapping[int, Level],
    platforms: Sequence[str],
) -> Checkup:
    """Run levels in their order over what level 0 could read; `first` is what that found.

    What several levels find is told once, by the lowest.
    """
    checked, specs = first
    for level in sorted(levels):
        checked = checked.merge(levels[level](pack, specs, platforms or None))
    seen: dict[tuple[object, ...], Problem] = {}
    for finding in sorted(checked.findings, key=lambda finding: finding.level):
        seen.setdefault((finding.path, finding.line, finding.code, finding.message), finding)
    return Checkup(
        level=max(levels, default=0), checked=evolve(checked, findings=tuple(seen.values()))
    )
