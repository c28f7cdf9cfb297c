"""Level 2 of a check: configs become Triton code, and a binary for each platform's architecture.

A source is compiled once for each config and variant, with the largest sizes that the config is
tuned for: they are constants of the code, and what a block needs grows with them. Helion runs in
a thread of this process, ahead of the compilers, and those in processes of their own, so that one
that crashes or hangs is a finding.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import define, field, frozen

from kernelpkg.check.level1 import restricted
from kernelpkg.compile import helion
from kernelpkg.compile.bind import (
    Binder,
    CapturedLaunch,
    CapturedPointer,
    NoInputs,
    Refused,
    Target,
    Unbound,
)
from kernelpkg.compile.variants import FiledConfig, Variant, filed_configs
from kernelpkg.configs.platforms import Platform
from kernelpkg.errors import Checked, PackError, Problem, Progress, RegistrationError, Severity
from kernelpkg.jobs.ahead import ahead
from kernelpkg.jobs.pool import Job, JobOutcome, run_jobs
from kernelpkg.manifest.spec import KernelSpec, PackSpec

TIMEOUT: Final = 120.0
"""Seconds that one source may take to compile; the slowest of the first pack takes 1.2."""

_HEAD: Final = ("op", "platform", "sources", "registers", "shared", "spills")


def check_compiling(
    pack: PackSpec,
    specs: Sequence[KernelSpec],
    platforms: Sequence[str] | None = None,
    progress: Progress = lambda *_: None,
    jobs: int | None = None,
    *,
    perform: str = "kernelpkg.compile.cubin:perform",
    timeout: float = TIMEOUT,
) -> Checked:
    """Compile all configs of kernels for their platforms, in `jobs` processes, one per core.

    `platforms` are those whose configs are compiled; with none, all. `perform`, "module:function",
    is what compiles, and `timeout` the seconds that it has for one source. What level 1 tells is
    not told again.
    """
    check = _CompileCheck(progress=progress, timeout=timeout)
    for spec in specs:
        check.add(pack, spec, platforms)
    devices = [f"cpu:{number}" for number in range(jobs or os.cpu_count() or 1)]
    if check.uses:
        made = ahead(check.launches(), len(devices) + 1)
        with contextlib.closing(made):
            for outcome in run_jobs(check.jobs(made), perform, devices):
                check.outcome(outcome)
    progress("compiled", len(check.uses), len(check.uses))
    return check.result()


@frozen(kw_only=True, eq=False)
class _Use:
    """A config of a platform, for one of the variants that it serves."""

    spec: KernelSpec
    platform: Platform
    filed: FiledConfig
    variant: Variant


@define(kw_only=True)
class _CompileCheck:
    """All of it in work: `sources` are the uses of each distinct source, by its text and call."""

    progress: Progress
    timeout: float
    uses: list[_Use] = field(factory=list)
    sources: dict[str, list[_Use]] = field(factory=dict)
    outcomes: dict[str, JobOutcome] = field(factory=dict)
    found: list[Problem] = field(factory=list)
    rows: list[dict[str, Any]] = field(factory=list)
    done: int = 0

    def add(self, pack: PackSpec, spec: KernelSpec, platforms: Sequence[str] | None) -> None:
        """Take the configs of a kernel; none of one that this Helion is not for."""
        if helion.requires_problem(spec.requires) is not None:
            return
        for platform in restricted(pack, spec, platforms):
            for filed in filed_configs(pack, spec, platform.name):
                if platform.arch is None:
                    text = f"the architecture of {platform.name} is not known; nothing is compiled"
                    self.tell(filed.path, 0, "KP255", text, unverified=True)
                    break
                self.uses += [
                    _Use(spec=spec, platform=platform, filed=filed, variant=variant)
                    for variant in filed.variants
                ]

    def launches(self) -> Iterator[tuple[_Use, CapturedLaunch | None]]:
        """Yield each use with its launch, as Helion makes it; adds to the findings alone."""
        for spec, uses in itertools.groupby(self.uses, key=lambda use: use.spec):
            binder = None  # of one kernel at a time, for its memory
            with contextlib.suppress(RegistrationError):  # which level 1 tells
                binder = Binder(spec)
            for use in uses:
                yield use, None if binder is None else self.launch(binder, use)

    def jobs(self, made: Iterator[tuple[_Use, CapturedLaunch | None]]) -> Iterator[Job]:
        """Yield the distinct sources among launches, as they come."""
        for use, launch in made:
            self.progress(f"making code of {use.spec.name}", self.done, len(self.uses))
            if launch is None:
                self.done += 1
                continue
            payload = payload_of(launch, str(use.platform.arch))
            key = json.dumps(payload, sort_keys=True)
            users = self.sources.setdefault(key, [])
            users.append(use)
            if key in self.outcomes:
                self.done += 1
                self.judge(use, self.outcomes[key])
            elif len(users) == 1:
                yield Job(id=key, payload=payload, timeout=self.timeout)

    def launch(self, binder: Binder, use: _Use) -> CapturedLaunch | None:
        """Return the launch of a use; None where there is none, which is told unless it was."""
        target = Target.of(use.platform)
        try:
            binding = binder.bind(use.variant.largest, target)
            binding.normalised(use.filed.config)
        except (Unbound, NoInputs, Refused, PackError, RegistrationError):
            return None
        try:
            return binding.launch(use.filed.config)
        except Refused as error:
            text = f"Helion {helion.HELION_VERSION} makes no code of it: {error}"
            self.use(use, "KP251", text, unverified=target.capability is None)
        except NoInputs as error:
            self.use(use, "KP255", f"it cannot be compiled here: {error}", unverified=True)
        return None

    def outcome(self, outcome: JobOutcome) -> None:
        """Take what became of a source, for all of its uses so far and to come."""
        users = self.sources[outcome.job.id]
        self.outcomes[outcome.job.id] = outcome
        self.done += len(users)
        self.progress(f"compiled {users[0].spec.name}", self.done, len(self.uses))
        for use in users:
            self.judge(use, outcome)

    def judge(self, use: _Use, outcome: JobOutcome) -> None:
        """Tell what is wrong with one use of a source, and keep what it needs."""
        arch = str(use.platform.arch)
        doubt = Target.of(use.platform).capability is None
        if outcome.status == "timeout":
            text = f"compiling it for {arch} took longer than {self.timeout:g} s, and was ended"
            self.use(use, "KP254", text)
        elif outcome.status == "lost" and not outcome.device:
            self.use(use, "KP255", f"nothing compiles here: {outcome.reason}", unverified=True)
        elif outcome.status == "lost":
            self.use(use, "KP253", f"the compiler crashed for {arch}: {outcome.reason}")
        elif outcome.status == "failed" or "error" in outcome.value:
            reason = outcome.reason if outcome.status == "failed" else outcome.value["error"]
            text = f"it does not compile for {arch}: {reason}"
            self.use(use, "KP250", text, unverified=doubt)
        else:
            self.needs(use, outcome.value)

    def needs(self, use: _Use, value: Mapping[str, int | None]) -> None:
        """Hold what a binary needs against what the platform has."""
        shared, most = value["shared"] or 0, use.platform.shared_memory
        spills, name = value["spills"] or 0, use.platform.name
        if most is not None and shared > most:
            text = f"a block needs {shared} bytes of shared memory, and {name} has {most}"
            self.use(use, "KP252", f"{text}; tune it again")
        if spills:
            text = f"{spills} bytes of each thread do not fit into registers on {name}"
            self.use(use, "KP256", f"{text}; what that costs only a GPU can tell", unverified=True)
        self.rows.append(
            {
                "kernel": str(use.spec.name),
                "platform": name,
                "path": use.filed.path,
                "config": use.filed.place,
                "case": dict(use.variant.largest.values),
                **{key: value[key] for key in ("registers", "shared", "spills", "warps")},
            }
        )

    def use(self, use: _Use, code: str, text: str, *, unverified: bool = False) -> None:
        message = f"config {use.filed.place} (case {use.variant.largest}): {text}"
        self.tell(use.filed.path, use.filed.line(), code, message, unverified=unverified)

    def tell(self, path: str, line: int, code: str, message: str, *, unverified: bool) -> None:
        severity: Severity = "unverified" if unverified else "error"
        self.found.append(
            Problem(path=path, line=line, code=code, message=message, severity=severity, level=2)
        )

    def result(self) -> Checked:
        """Return what was found, and what every config needs."""
        order = ("kernel", "platform", "config")
        rows = sorted(self.rows, key=lambda row: [row[key] for key in order] + [str(row["case"])])
        return Checked(
            findings=tuple(dict.fromkeys(self.found)),
            counts={"sources": len(self.sources), "resources": rows},
        )


def payload_of(launch: CapturedLaunch, arch: str) -> dict[str, Any]:
    """Return a launch as `cubin.perform` takes it, as JSON."""
    args = [
        [arg.dtype, arg.offset] if isinstance(arg, CapturedPointer) else arg for arg in launch.args
    ]
    return {
        "text": launch.text,
        "name": launch.name,
        "args": args,
        "options": dict(launch.options),
        "arch": arch,
    }


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
