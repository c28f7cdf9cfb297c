"""A pack compiled ahead for a platform: the units of its kernels, each distinct source once."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from attrs import define, field, frozen

from kernelpkg import __version__
from kernelpkg.compile import helion
from kernelpkg.compile.bind import NoPlace
from kernelpkg.compile.units import USES, KernelBuilder, Unit
from kernelpkg.configs.platforms import Platform
from kernelpkg.errors import (
    KernelpkgError,
    PackError,
    Problem,
    Progress,
    UsageError,
    counted,
    unforeseen,
)
from kernelpkg.files import read_file
from kernelpkg.jobs.ahead import ahead
from kernelpkg.jobs.pool import Job, JobOutcome, cores, run_jobs
from kernelpkg.launch.host import NotRecorded
from kernelpkg.manifest.spec import KernelSpec, PackSpec
from kernelpkg.packs.builds import (
    Build,
    BuiltKernel,
    BuiltPart,
    claimed,
    kernels_in,
    with_others,
    write_build,
)

TIMEOUT: Final = 300.0
"""Seconds that one source may take to compile; the slowest of the first pack takes 1.2."""

_AHEAD: Final = 500
"""How many sources wait at most: all of a kernel are made at once, and compilers need them then."""

_CHANGING: Final = (
    "DISABLE_PTXAS_OPT", "HELION_ALLOW_WARP_SPECIALIZE", "HELION_DEBUG_DTYPE_ASSERTS",
    "HELION_FAST_MATH", "HELION_INDEX_DTYPE", "PTXAS_OPTIONS", "TRITON_ENABLE_ASAN",
    "TRITON_F32_DEFAULT", "TRITON_FORCE_DISABLE_FP_FUSION", "TRITON_INSTRUMENTATION_MODE",
    "TRITON_KERNEL_OVERRIDE", "TRITON_MOCK_PTX_VERSION", "TRITON_OVERRIDE_ARCH",
)  # fmt: skip
"""Variables by which Helion 1.5 and Triton 3.9 make other code of one source and config."""

PERFORM: Final = "kernelpkg.compile.cubin:perform"
"""What compiles one source, in a process of its own."""


def compile_units(
    made: Iterator[Unit],
    jobs: int | None,
    *,
    keep: str = "",
    perform: str = PERFORM,
    timeout: float = TIMEOUT,
    progress: Progress = lambda *_: None,
) -> list[tuple[Unit, JobOutcome]]:
    """Compile each distinct source once; return all units, each with what became of its source.

    Units are made in a thread, ahead of the compilers, which are `jobs` processes, by default one
    per core. Where `keep` names a directory, the binaries are put there.
    """
    devices = [f"cpu:{number}" for number in range(jobs or cores())]
    units: list[tuple[Unit, str]] = []
    first: dict[str, Unit] = {}
    found: dict[str, JobOutcome] = {}

    def sources(coming: Iterator[Unit]) -> Iterator[Job]:
        for unit in coming:
            source = json.dumps(unit.payload, sort_keys=True)
            units.append((unit, source))
            if first.setdefault(source, unit) is unit:
                payload = {**unit.payload, "keep": keep} if keep else unit.payload
                yield Job(id=source, payload=payload, timeout=timeout)

    with contextlib.closing(ahead(made, _AHEAD)) as coming:
        for outcome in run_jobs(sources(coming), perform, devices):
            found[outcome.job.id] = outcome
            progress(f"compiled {first[outcome.job.id].spec.name}", len(found), len(first))
    return [(unit, found[source]) for unit, source in units]


@frozen(kw_only=True)
class BuildResult:
    """What became of a build: it, how many sources were compiled, and what is wrong.

    `written` says that it was put in its place.
    """

    build: Build
    compiled: int
    bytes: int
    written: bool
    problems: tuple[Problem, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong for sure: calls may lack code for reasons that are told."""
        return not any(problem.severity == "error" for problem in self.problems)


def make_build(
    pack: PackSpec,
    specs: Sequence[KernelSpec],
    platform: Platform,
    directory: Path,
    *,
    uses: Collection[str] = USES,
    jobs: int | None = None,
    progress: Progress = lambda *_: None,
) -> BuildResult:
    """Compile kernels of a pack for a platform, in `jobs` processes, and put the build in place.

    Binaries of an earlier build that are still right are kept, and so are kernels of it that are
    not built now, if it was made with the same tools; all else of it is removed. Where nothing
    compiles, or the system refuses something, what was there stays. Raises UsageError where the
    environment would change the code, and PackError where nothing can be written, or another
    process builds into the directory, and then the old build is unchanged.
    """
    changing = [name for name in _CHANGING if os.environ.get(name)]
    if changing:
        text = f"{' and '.join(changing)} would change the code of a build, which others load"
        raise UsageError(f"{text}; unset {'it' if len(changing) == 1 else 'them'}")
    making = _Making(pack=pack, platform=platform, uses=uses, progress=progress)
    others = {*pack.kernels} - {spec.name for spec in specs}
    with (
        claimed(directory, pack.name),
        tempfile.TemporaryDirectory(prefix="kernelpkg-build-") as keep,
    ):
        made = making.made(specs)
        done = compile_units(made, jobs, keep=keep, perform=PERFORM, progress=progress)
        for unit, outcome in done:
            making.take(unit, outcome)
        return making.write(directory, others, Path(keep))


@define(kw_only=True)
class _Making:
    """A build in work: the units that were compiled, each with its code, by kernel."""

    pack: PackSpec
    platform: Platform
    uses: Collection[str]
    progress: Progress
    builders: dict[str, KernelBuilder] = field(factory=dict)
    codes: dict[str, list[tuple[Unit, Mapping[str, Any]]]] = field(factory=dict)
    compiled: set[str] = field(factory=set)
    failed: dict[str, Problem] = field(factory=dict)
    refused: bool = False
    problems: list[Problem] = field(factory=list)

    def made(self, specs: Sequence[KernelSpec]) -> Iterator[Unit]:
        """Yield the units of all kernels; a kernel's bindings are given up before the next one."""
        for number, spec in enumerate(specs):
            self.progress(f"making code of {spec.name}", number, len(specs))
            try:
                builder = KernelBuilder(self.pack, spec, self.platform, self.uses)
                yield from builder.units()
            except NoPlace as error:
                self.refuse(str(error))
                continue
            except Exception as error:  # a picker may raise anything, and keeps no other from it
                self.problems += problems_of(spec, error)
                continue
            self.builders[spec.name] = builder
            builder.release()

    def take(self, unit: Unit, outcome: JobOutcome) -> None:
        """Take what became of the source of a unit."""
        value = outcome.value if outcome.status == "done" else {}
        if "code" in value:
            self.compiled.add(outcome.job.id)
            self.codes.setdefault(unit.spec.name, []).append((unit, value["code"]))
        elif "absent" in value and unit.spec.name in self.builders:
            self.builders[unit.spec.name].lack(unit, NotRecorded(value["absent"]))
        elif "refused" in value:
            self.refuse(value["refused"])
        elif "absent" not in value:
            reason = outcome.reason or value["error"]
            text = f"config of case {unit.case} has no code for {self.platform.arch}: {reason}"
            failed = Problem(path=unit.spec.path, code="KP327", message=text)
            self.failed.setdefault(outcome.job.id, failed)

    def refuse(self, reason: str) -> None:
        """Note why nothing can be compiled here, which is no fault of a config."""
        self.refused = True
        text = f"configs have no code for {self.platform.arch}: {reason}"
        refused = Problem(path=self.pack.path, code="KP327", message=text)
        self.failed.setdefault(reason, refused)

    def parts(self, name: str) -> tuple[BuiltPart, ...]:
        """Return the parts of a kernel."""
        found: dict[tuple[str, str], list[tuple[Unit, Mapping[str, Any]]]] = {}
        for unit, code in self.codes.get(name, ()):
            found.setdefault(unit.key, []).append((unit, code))
        parts = []
        for pairs in found.values():
            unit = pairs[0][0]
            distinct = {json.dumps(code, sort_keys=True): code for _, code in pairs}
            parts.append(
                BuiltPart(
                    config=unit.chosen.config_id,
                    call_class=unit.call_class,
                    host=unit.host,
                    kernel=unit.payload["name"],
                    codes=tuple(distinct[text] for text in sorted(distinct)),
                )
            )
        return tuple(parts)

    def build(self) -> Build:
        """Return what was compiled."""
        return Build(
            pack=self.pack.name,
            platform=self.platform.name,
            arch=str(self.platform.arch),
            tools=tools(),
            pinned=helion.PINNED,
            kernels={
                name: BuiltKernel(
                    files=builder.files,
                    exact=builder.rule.exact,
                    facts=builder.rule.facts,
                    parts=self.parts(name),
                    absent=builder.absent,
                )
                for name, builder in self.builders.items()
            },
        )

    def write(self, directory: Path, others: Collection[str], keep: Path) -> BuildResult:
        """Put the build in its place, with binaries from where they were kept."""
        problems = [*self.problems, *self.failed.values()]
        for builder in self.builders.values():
            problems += builder.problems()
        build = with_others(self.build(), directory, others)
        size = 0
        # One in which all failed, or in which what failed is no fault of configs, takes no other's
        # place.
        written = not self.refused and bool(self.compiled or not problems)
        if written:
            problems += self.lost(directory, others - build.kernels.keys())
            size = write_build(build, directory, lambda name: read_file(keep / name))
        return BuildResult(
            build=build,
            compiled=len(self.compiled),
            bytes=size,
            written=written,
            problems=tuple(problems),
        )

    def lost(self, directory: Path, names: Collection[str]) -> Iterator[Problem]:
        """Yield a note of the kernels of the build in a directory that do not stay, of some."""
        gone = [name for name in kernels_in(directory) if name in names] if names else []
        if gone:
            which = ", ".join(gone) if len(gone) < 4 else counted(len(gone), "kernel")
            text = (
                f"had {which}, of other tools or not whole, and has not now; build the whole pack"
            )
            yield Problem(path=str(directory), code="KP320", message=text, severity="unverified")


def problems_of(spec: KernelSpec, error: Exception) -> tuple[Problem, ...]:
    """Return what keeps a kernel from being built at all."""
    if isinstance(error, PackError):
        return error.problems
    if isinstance(error, KernelpkgError):
        said = str(error)
    else:
        said = repr(error)
        unforeseen(error)
    message = f"it cannot be built: {' '.join(said.split())}"
    return (Problem(path=spec.path, code="KP325", message=message),)


def tools() -> dict[str, str]:
    """Return the versions of what makes a build."""
    others = ("helion", "torch", "triton")
    return {"kernelpkg": __version__, **{name: metadata.version(name) for name in others}}
