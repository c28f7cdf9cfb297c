"""Level 2 of a check: what `build` compiles becomes binaries, and each of them is judged.

The units are those of `build`: every config for every class of calls that get it. Helion runs in a
thread of this process, ahead of the compilers, and those in processes of their own, so that one
that crashes or hangs is a finding. What a current build of the pack has code for is not compiled
again: its binaries are judged.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import define, evolve, field, frozen

from kernelpkg.check.level1 import restricted
from kernelpkg.compile import helion
from kernelpkg.compile.bind import Binder, NoInputs, NoPlace, Refused, Target, Unbound
from kernelpkg.compile.build import PERFORM, TIMEOUT, compile_units, problems_of, tools
from kernelpkg.compile.cubin import registers
from kernelpkg.compile.units import ConfigUse, KernelBuilder, Unit, shown_cases
from kernelpkg.compile.variants import (
    FiledConfig,
    facts_of,
    filed_configs,
    known_cases,
    variants_of,
)
from kernelpkg.configs.platforms import CPU, Platform, platform_of
from kernelpkg.configs.selection import HELION_DEFAULT
from kernelpkg.configs.store import config_id
from kernelpkg.errors import (
    Checked,
    PackError,
    Problem,
    Progress,
    RegistrationError,
    Severity,
    counted,
)
from kernelpkg.jobs.pool import JobOutcome
from kernelpkg.launch.classes import ClassRule
from kernelpkg.launch.host import NotRecorded
from kernelpkg.manifest.helion_config import without_positional
from kernelpkg.manifest.spec import KernelSpec, PackSpec
from kernelpkg.packs.builds import INDEX, Build, BuiltPart, own_directory, read_build, stale
from kernelpkg.packs.read import problem_at

_NEEDS: Final = ("registers", "shared", "spills", "warps")
_HEAD: Final = ("op", "platform", "classes", "registers", "shared", "spills")


def check_compiling(
    pack: PackSpec,
    specs: Sequence[KernelSpec],
    platforms: Sequence[str] | None = None,
    progress: Progress = lambda *_: None,
    jobs: int | None = None,
    *,
    perform: str = PERFORM,
    timeout: float = TIMEOUT,
) -> Checked:
    """Compile kernels for platforms as `build` does, in `jobs` processes, and judge what comes.

    `platforms` are those that are compiled for; with none, all that a kernel has configs for.
    `perform`, "module:function", is what compiles, and `timeout` the seconds that it has for one
    source. What level 1 tells is not told again.
    """
    check = _CompileCheck(pack=pack, progress=progress)
    made = check.made(specs, platforms)
    compiled = compile_units(made, jobs, perform=perform, timeout=timeout, progress=progress)
    for unit, outcome in compiled:
        check.judge(unit, outcome)
    sources = len({outcome.job.id for _, outcome in compiled})
    progress("compiled", sources, sources)
    return check.result(sources)


@frozen(kw_only=True)
class _Place:
    """Where a config stands, and what it is called; `config` is its place among those of its file.

    `whole` says whether it is as it stands there, and not without its positional lists.
    """

    path: str
    line: int
    name: str
    config: int | None = None
    whole: bool = True


@frozen(kw_only=True)
class _Cause:
    """What is wrong with a config; it may be so in several cases, of which the worst is told."""

    place: _Place
    code: str
    severity: Severity
    cause: str


@define(kw_only=True)
class _CompileCheck:
    """All of it in work: `faults` are cases by causes, and there by class, with how bad it is."""

    pack: PackSpec
    progress: Progress
    found: list[Problem] = field(factory=list)
    faults: dict[_Cause, dict[str, tuple[int, str, str]]] = field(factory=dict)
    rows: dict[tuple[str, ...], dict[str, Any]] = field(factory=dict)
    prebuilt: int = 0
    refused: list[str] = field(factory=list)
    placed: dict[tuple[str, str | None], dict[str, _Place]] = field(factory=dict)

    def made(self, specs: Sequence[KernelSpec], platforms: Sequence[str] | None) -> Iterator[Unit]:
        """Yield what has to be compiled; judge what a build has code for."""
        sound = [spec for spec in specs if helion.requires_problem(spec.requires) is None]
        places = _platforms(self.pack, sound, platforms)
        builds = {platform.name: self.current(platform) for platform in places}
        for number, spec in enumerate(sound):
            self.progress(f"making code of {spec.name}", number, len(sound))
            with contextlib.suppress(RegistrationError):  # which level 1 tells
                binder = Binder(spec)  # of one kernel at a time, for its memory
                for platform in places:
                    yield from self.units(spec, platform, binder, builds[platform.name])

    def units(
        self, spec: KernelSpec, platform: Platform, binder: Binder, build: Build | None
    ) -> Iterator[Unit]:
        """Yield what has to be compiled of one kernel for a platform."""
        filed = filed_configs(self.pack, spec, platform.name)
        if platform.arch is None and filed:
            self.unknown(filed[0], platform)
        if platform.arch is None or not (filed or platform.arch.startswith("sm_")):
            return
        try:
            builder = KernelBuilder(self.pack, spec, platform, binder=binder, dropped=[])
            if build is None or not self.judged(builder, build):
                yield from builder.units()
                yield from self.others(builder)
        except RegistrationError:
            raise
        except NoPlace as error:
            self.refused.append(str(error))
        except Exception as error:  # a picker may raise anything, and keeps no other from it
            self.found += [evolve(problem, level=2) for problem in problems_of(spec, error)]

    def current(self, platform: Platform) -> Build | None:
        """Return the pack's own build for a platform, if it was made with the tools that are here.

        One that is damaged is told.
        """
        directory = own_directory(self.pack, platform.name)
        if self.pack.overlays or not (directory / INDEX).exists():
            return None
        try:
            build = read_build(directory)
        except PackError as error:
            self.damaged(error)
            return None
        made_of = (build.pack, build.platform, build.tools, build.pinned)
        here = (self.pack.name, platform.name, tools(), helion.PINNED)
        return build if made_of == here else None

    def judged(self, builder: KernelBuilder, build: Build) -> bool:
        """Judge the binaries of a build, if it has code for every call of a kernel as it is now."""
        spec = builder.spec
        if stale(build, self.pack, spec, builder.platform.arch) is not None:
            return False
        kernel = build.kernels[spec.name]
        parts = {(part.config, part.call_class): part for part in kernel.parts}
        uses = [*builder.classes(ClassRule(exact=kernel.exact, facts=kernel.facts))]
        if kernel.absent or not parts.keys() >= {use.key for use in uses}:
            return False
        for use in uses:
            self.binaries(use, build, parts[use.key])
        return True

    def binaries(self, use: ConfigUse, build: Build, part: BuiltPart) -> None:
        """Judge the binaries of one part of a build."""
        for code in part.codes:
            self.prebuilt += 1
            try:
                found = registers(build.cubin(code["cubin"]))
            except PackError as error:
                self.damaged(error)
                continue
            warps = code["threads"] // 32
            self.needs(use, {**found, "shared": code["shared"], "warps": warps})

    def others(self, builder: KernelBuilder) -> Iterator[Unit]:
        """Yield what compiles though no build can have it; tell what else has no code."""
        for use, why in builder.lacks.values():
            error = why
            if isinstance(error, NotRecorded):
                try:
                    yield builder.unrecorded(use)
                    continue
                except (NoInputs, Refused) as found:
                    error = found
            if self.told(builder, use):
                continue
            if isinstance(error, NoInputs):
                text = f"it cannot be compiled here: {error}"
                self.fault(use, "KP255", text, unverified=True)
            else:
                text = f"Helion {helion.HELION_VERSION} makes no code of it: {error}"
                self.fault(use, "KP251", text, unverified=_doubted(use))

    def told(self, builder: KernelBuilder, use: ConfigUse) -> bool:
        """Whether level 1 tells why a call has no code.

        It binds the largest case of each variant, and tries the configs of a platform's own file
        and the default one of the manifest on it.
        """
        chosen = use.chosen
        tried = chosen.platform in (None, use.platform.name) and self.place(use).whole
        facts = facts_of(use.spec, use.case)
        variants = variants_of(use.spec, [*known_cases(use.spec), use.case])
        largest = next(variant.largest for variant in variants if variant.facts == facts)
        try:
            binding = builder.bind(largest)
            if tried and chosen.config is not None:
                binding.normalised(chosen.config)
        except (NoInputs, Refused, Unbound):
            return True
        return False

    def judge(self, unit: Unit, outcome: JobOutcome) -> None:
        """Tell what is wrong with the source of a unit, or keep what its binary needs."""
        arch = str(unit.platform.arch)
        if outcome.status == "timeout":
            text = f"compiling it for {arch} took longer than {outcome.job.timeout:g} s"
            self.fault(unit, "KP254", f"{text}, and was ended")
        elif outcome.status == "lost" and not outcome.device:
            text = f"nothing compiles here: {outcome.reason}"
            self.fault(unit, "KP255", text, unverified=True)
        elif outcome.status == "lost":
            self.fault(unit, "KP253", f"the compiler crashed for {arch}: {outcome.reason}")
        elif outcome.status == "done" and "refused" in outcome.value:
            self.refused.append(outcome.value["refused"])
        elif outcome.status == "failed" or "error" in outcome.value:
            reason = outcome.reason if outcome.status == "failed" else outcome.value["error"]
            text = f"it does not compile for {arch}: {reason}"
            self.fault(unit, "KP250", text, unverified=_doubted(unit))
        else:
            self.needs(unit, outcome.value)

    def needs(self, use: ConfigUse, value: Mapping[str, int | None]) -> None:
        """Hold what a binary needs against what the platform has."""
        shared, most = value["shared"] or 0, use.platform.shared_memory
        spills, name = value["spills"] or 0, use.platform.name
        if most is not None and shared > most:
            text = f"a block needs {shared} bytes of shared memory, and {name} has {most}"
            self.fault(use, "KP252", f"{text}; tune it again", amount=shared)
        if spills:
            text = counted(spills, "byte of each thread does", "bytes of each thread do")
            text += f" not fit into registers on {name}; only a GPU can tell what that costs"
            self.fault(use, "KP256", text, unverified=True, amount=spills)
        place = self.place(use)
        row = self.rows.setdefault(
            (use.spec.name, name, *use.key),
            {
                "kernel": str(use.spec.name),
                "platform": name,
                "path": place.path,
                "config": place.config,
                "case": dict(use.case.values),
                **dict.fromkeys(_NEEDS),
            },
        )
        for need in _NEEDS:
            row[need] = max((n for n in (row[need], value[need]) if n is not None), default=None)

    def fault(
        self, use: ConfigUse, code: str, text: str, *, unverified: bool = False, amount: int = 0
    ) -> None:
        """Note what is wrong with a config for one class of calls; `amount` is how bad it is."""
        cause = _Cause(
            place=self.place(use),
            code=code,
            severity="unverified" if unverified else "error",
            cause=use.platform.name if amount else text,
        )
        cases = self.faults.setdefault(cause, {})
        before = cases.setdefault(use.call_class, (amount, str(use.case), text))
        if amount > before[0]:
            cases[use.call_class] = (amount, before[1], text)

    def unknown(self, filed: FiledConfig, platform: Platform) -> None:
        text = f"the architecture of {platform.name} is not known; nothing is compiled"
        self.found.append(_problem(filed.path, 0, "KP255", text, "unverified"))

    def damaged(self, error: PackError) -> None:
        for problem in error.problems:
            path = Path(problem.path).relative_to(self.pack.root).as_posix()
            self.found.append(evolve(problem, path=path, level=2))

    def place(self, use: ConfigUse) -> _Place:
        """Return where the config of a call stands."""
        key = (str(use.spec.name), use.chosen.platform)
        if key not in self.placed:
            self.placed[key] = dict(_places(self.pack, use.spec, use.chosen.platform))
        return self.placed[key][use.chosen.config_id]

    def result(self, sources: int) -> Checked:
        """Return what was found, and what every config needs."""
        for cause, classes in self.faults.items():
            worst = sorted(classes.values(), key=lambda found: -found[0])
            cases = shown_cases([*dict.fromkeys(case for _, case, _ in worst)])
            message = f"{cause.place.name} ({cases}): {worst[0][2]}"
            at = (cause.place.path, cause.place.line, cause.code)
            self.found.append(_problem(*at, message, cause.severity))
        if self.refused:
            text = f"configs are not compiled here: {self.refused[0]}"
            self.found.append(_problem(self.pack.path, 0, "KP255", text, "unverified"))
        rows = sorted(self.rows.values(), key=_order)
        return Checked(
            findings=tuple(dict.fromkeys(self.found)),
            counts={"sources": sources, "prebuilt": self.prebuilt, "resources": rows},
        )


def _platforms(
    pack: PackSpec, specs: Sequence[KernelSpec], names: Sequence[str] | None
) -> list[Platform]:
    """Return the platforms that `build` builds for: those named, or all that have configs."""
    found = [platform for spec in specs for platform in restricted(pack, spec, names)]
    found += [evolve(platform_of(pack, name), name=name) for name in names or () if name != CPU]
    return [*{platform.name: platform for platform in found}.values()]


def _places(pack: PackSpec, spec: KernelSpec, platform: str | None) -> Iterator[tuple[str, _Place]]:
    """Yield where the configs of a platform's file stand, by id; without one, the default ones."""
    if platform is None:
        at = problem_at(spec, "", "", "helion", "default")
        default = config_id(spec.default or {})
        yield default, _Place(path=at.path, line=at.line, name="[helion] default")
        yield HELION_DEFAULT, _Place(path=at.path, line=at.line, name="Helion's default config")
        return
    whole = [
        (
            one,
            _Place(path=one.path, line=one.line(), name=f"config {one.place}", config=one.place),
        )
        for one in filed_configs(pack, spec, platform)
    ]
    for one, place in whole:
        name = f"{place.name} without its positional lists"
        yield config_id(without_positional(one.config)), evolve(place, name=name, whole=False)
    for one, place in whole:
        yield config_id(one.config), place


def _doubted(use: ConfigUse) -> bool:
    """Whether Helion makes code as for a GPU that it knows nothing of."""
    return Target.of(use.platform).capability is None


def _problem(path: str, line: int, code: str, message: str, severity: Severity) -> Problem:
    return Problem(path=path, line=line, code=code, message=message, severity=severity, level=2)


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    default = row["config"] is None
    names = (row["kernel"], row["platform"], default, row["path"], row["config"] or 0)
    return (*names, str(row["case"]))


def resource_rows(resources: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return the table for people, with its head: the worst of each op on each platform."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in resources:
        groups.setdefault((row["kernel"], row["platform"]), []).append(row)
    table: list[tuple[str, ...]] = [_HEAD]
    for names, rows in sorted(groups.items()):
        worst = (max(row[key] or 0 for row in rows) for key in _HEAD[3:])
        table.append((*names, str(len(rows)), *map(str, worst)))
    return table
