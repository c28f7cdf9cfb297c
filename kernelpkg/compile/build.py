"""A pack compiled ahead for a platform: every config, for every class of calls that get it.

The calls that are compiled for are those of the manifest's grids and of the pack's models, with
every size of the axes that code does not know: `configs/samples` says which of them are enough.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from attrs import define, evolve, field, frozen

from kernelpkg import __version__
from kernelpkg.bench.stand_ins import make_stand_ins
from kernelpkg.compile import helion
from kernelpkg.compile.bind import (
    Binder,
    Binding,
    NoInputs,
    Refused,
    Target,
    Unbound,
)
from kernelpkg.compile.host_code import unread_arguments
from kernelpkg.configs.platforms import Platform
from kernelpkg.configs.samples import FACTOR, spread
from kernelpkg.configs.selection import Chosen, ConfigSelection, read_selection
from kernelpkg.errors import KernelpkgError, PackError, Problem, Progress, Severity
from kernelpkg.files import read_file
from kernelpkg.jobs.ahead import ahead
from kernelpkg.jobs.pool import Job, JobOutcome, run_jobs
from kernelpkg.launch.classes import call_class, joined
from kernelpkg.launch.host import HostCall, NotRecorded, Pointer, host_text, make_host, record
from kernelpkg.manifest.cases import Case, CaseProblem, Evaluator, cases_of
from kernelpkg.manifest.spec import KernelSpec, PackSpec, Scalar
from kernelpkg.packs.builds import (
    Build,
    BuiltKernel,
    BuiltPart,
    check_foreign,
    check_writable,
    digests_of,
    with_others,
    write_build,
)
from kernelpkg.packs.sources import load_function

TIMEOUT: Final = 300.0
"""Seconds that one source may take to compile."""

_PERFORM: Final = "kernelpkg.compile.cubin:perform"
_DEVICE: Final = torch.device("cuda", 0)
_SMS: Final = 132


@frozen(kw_only=True, eq=False)
class Unit:
    """One compilation: the code of a config for a class of calls, and the facts of some of them."""

    spec: KernelSpec
    case: Case
    chosen: Chosen
    call_class: str
    host: str
    payload: Mapping[str, Any]


def build_cases(
    pack: PackSpec, selection: ConfigSelection, uses: Collection[str]
) -> Iterator[Case]:
    """Yield the cases that stand for all calls that are built for: of the grids, and of [models].

    A model's sizes take the place of those of a grid, where it says any of them. Flags that no
    config depends on have both values, for code may depend on them.
    """
    spec = selection.spec
    cases = [case for use in uses for case in cases_of(spec, use)]
    for axis in spec.axes:
        if axis.name not in spec.key_axes and spec.axis_types[axis.name].kind == "flag":
            cases = [
                evolve(case, values={**case.values, axis.name: value})
                for case in cases
                for value in (False, True)
                if case.values.get(axis.name) is not None
            ]
    for sizes in pack.models.values():
        known = {name: size for name, size in sizes.items() if name in spec.key_axes}
        tuned = [case for case in cases if "tune" in case.use] if known else []
        cases += [evolve(case, values={**case.values, **known}) for case in tuned]
    yield from spread(selection, cases)


def _unread(spec: KernelSpec) -> list[int]:
    """Return the places of the arguments that a kernel's function never reads."""
    tree = ast.parse(read_file(Path(spec.directory, spec.source.file)))
    return unread_arguments(tree, spec.source.name, spec.schema.arg_names)


class KernelBuilder:
    """Works out what is compiled of one kernel for a platform; Helion runs here, not Triton."""

    def __init__(
        self, pack: PackSpec, spec: KernelSpec, platform: Platform, uses: Collection[str]
    ) -> None:
        self.spec = spec
        self.files = digests_of(spec)
        self._target = Target.of(platform)
        self._arch = str(platform.arch)
        picker = spec.picker
        custom = None if picker is None else load_function(Path(spec.directory), picker)
        self._selection = read_selection(pack, spec, platform, custom=custom)
        self._cases = tuple(build_cases(pack, self._selection, uses))
        self._binder = Binder(spec)
        self.exact: dict[int, tuple[bool, ...] | None] = dict.fromkeys(_unread(spec))
        self._causes: dict[str, dict[str, None]] = {}

    def units(self) -> Iterator[Unit]:
        """Yield every compilation once, in the order of the cases.

        What is exact is known of a class once it is bound, and is part of the class: so all are
        bound before the first unit is made.
        """
        calls = [*self._calls()]
        bindings = self._bindings(calls)
        hosts: dict[tuple[str, str], tuple[str, str, Any] | None] = {}
        seen: set[tuple[str, str, str]] = set()
        for case, args, chosen in calls:
            found = call_class(args, self.exact)
            binding = bindings.get(found)
            if binding is None:
                continue
            key = (chosen.config_id, found)
            if key not in hosts:
                hosts[key] = self._host(binding, chosen)
            made = hosts[key]
            if made is None:
                continue
            text, host, function = made
            try:
                call = record(function, args, _DEVICE)
            except NotRecorded as error:
                self._lacks(case, error)
                continue
            payload = payload_of(call, text, self._arch)
            facts = json.dumps(_facts(call, text))
            if (*key, facts) not in seen:
                seen.add((*key, facts))
                yield Unit(spec=self.spec, case=case, chosen=chosen, call_class=found, host=host,
                           payload=payload)  # fmt: skip

    def _calls(self) -> Iterator[tuple[Case, tuple[Any, ...], Chosen]]:
        """Yield the cases with the arguments of a call and the config that it gets."""
        evaluate = Evaluator()
        for case in self._cases:
            try:
                args = make_stand_ins(self.spec, case, device="meta", evaluate=evaluate)
            except CaseProblem:  # flags that no grid has together, and no call can have
                continue
            axes: list[Scalar] = [case.values.get(axis.name) for axis in self.spec.axes]
            chosen = next(self._selection.options(axes, args), None)
            if chosen is not None:
                yield case, args, chosen

    def _bindings(
        self, calls: Sequence[tuple[Case, tuple[Any, ...], Chosen]]
    ) -> dict[str, Binding]:
        while True:
            before, found = dict(self.exact), dict[str, Binding]()
            for case, args, _ in calls:
                key = call_class(args, self.exact)
                if key in found:
                    continue
                try:
                    binding = self._binder.bind(case, self._target)
                except (Unbound, NoInputs) as error:
                    self._lacks(case, error)
                    continue
                self.exact = joined(self.exact, binding.exact)
                found[call_class(args, self.exact)] = binding
            if self.exact == before:
                return found

    def _host(self, binding: Binding, chosen: Chosen) -> tuple[str, str, Any] | None:
        """Return the module of a config, its host part, and the function of that."""
        try:
            config = binding.default() if chosen.config is None else chosen.config
            text = binding.code(config)
            host = host_text(text, binding.function)
            kernel = kernel_name(text, binding.function)
            return text, host, make_host(host, binding.function, kernel, _SMS)
        except (Refused, NotRecorded) as error:
            self._lacks(binding.case, error)
            return None

    def release(self) -> None:
        """Give up what Helion holds, which is much; what was found stays."""
        del self._binder

    @property
    def absent(self) -> tuple[str, ...]:
        """Why calls have no code, each cause once."""
        found = []
        for cause, cases in self._causes.items():
            more = f", and {len(cases) - 1} more" if len(cases) > 1 else ""
            found.append(f"{cause} (case {next(iter(cases))}{more})")
        return tuple(found)

    def _lacks(self, case: Case, error: Exception) -> None:
        self._causes.setdefault(str(error), {})[str(case)] = None


def kernel_name(text: str, host: str) -> str:
    """Return the name of the Triton kernel of a generated module, which its host part launches.

    It is not the only one that has a decorator: a kernel may call functions of Triton.
    """
    functions = _functions(text)
    for node in ast.walk(functions.pop(host)):
        if isinstance(node, ast.Name) and node.id in functions:
            return node.id
    raise NotRecorded("its host part launches 0 kernels")


def _functions(text: str) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}


def payload_of(call: HostCall, text: str, arch: str) -> dict[str, Any]:
    """Return a launch as `cubin.perform` takes it, as JSON; addresses count from aligned ones."""
    args = [
        [str(arg.dtype).removeprefix("torch."), arg.delta] if isinstance(arg, Pointer) else arg
        for arg in call.args
    ]
    return {
        "text": text,
        "name": call.kernel,
        "args": args,
        "options": dict(call.options),
        "arch": arch,
    }


def _facts(call: HostCall, text: str) -> list[Any]:
    """Return what Triton makes a difference of among the arguments of a launch."""
    constants = [
        arg.annotation is not None and ast.unparse(arg.annotation) == "tl.constexpr"
        for arg in _functions(text)[call.kernel].args.args
    ]
    return [
        str(arg) if constant else _fact(arg)
        for arg, constant in zip(call.args, constants, strict=True)
    ]


def _fact(arg: Any) -> Any:
    if isinstance(arg, Pointer):
        return str(arg.dtype), arg.delta % FACTOR == 0
    if isinstance(arg, int) and not isinstance(arg, bool):
        return 1 if arg == 1 else (arg % FACTOR == 0, arg.bit_length() > 31, arg.bit_length() > 63)
    return type(arg).__name__


@frozen(kw_only=True)
class BuildResult:
    """What became of a build: it, how many units were compiled, and what is wrong."""

    build: Build
    compiled: int
    bytes: int
    problems: tuple[Problem, ...]

    @property
    def complete(self) -> bool:
        """Whether every kernel has code for every call that was built for."""
        return not self.problems


def make_build(
    pack: PackSpec,
    specs: Sequence[KernelSpec],
    platform: Platform,
    directory: Path,
    *,
    uses: Collection[str] = ("tune", "bench"),
    jobs: int | None = None,
    progress: Progress = lambda *_: None,
) -> BuildResult:
    """Compile kernels of a pack for a platform, in `jobs` processes, and put the build in place.

    Binaries of an earlier build that are still right are kept, and so are kernels of it that are
    not built now, if it was made with the same tools; all else of it is removed. Where nothing
    compiles, what was there stays. Raises PackError where nothing can be written, and then what was
    there is as it was.
    """
    check_foreign(directory, pack.name)
    check_writable(directory)
    devices = [f"cpu:{number}" for number in range(jobs or os.cpu_count() or 1)]
    making = _Making(
        pack=pack,
        names=frozenset(spec.name for spec in specs),
        platform=platform,
        directory=directory,
        uses=uses,
        progress=progress,
    )
    made = ahead(making.made(specs), len(devices) + 1)
    with contextlib.closing(made), tempfile.TemporaryDirectory(prefix="kernelpkg-build-") as keep:
        for outcome in run_jobs(making.jobs(made, keep), _PERFORM, devices):
            making.take(outcome)
        return making.write(Path(keep))


@define(kw_only=True)
class _Making:
    """A build in work: what was compiled, by kernel and by config and class."""

    pack: PackSpec
    names: frozenset[str]
    platform: Platform
    directory: Path
    uses: Collection[str]
    progress: Progress
    builders: dict[str, KernelBuilder] = field(factory=dict)
    units: dict[str, list[Unit]] = field(factory=dict)
    codes: dict[str, Mapping[str, Any]] = field(factory=dict)
    problems: list[Problem] = field(factory=list)

    def made(self, specs: Sequence[KernelSpec]) -> Iterator[Unit]:
        """Yield the units of all kernels; a kernel's bindings are given up before the next one."""
        for number, spec in enumerate(specs):
            self.progress(f"making code of {spec.name}", number, len(specs))
            try:
                builder = KernelBuilder(self.pack, spec, self.platform, self.uses)
                yield from builder.units()
            except PackError as error:
                self.problems += error.problems
                continue
            except Exception as error:  # a picker may raise anything, and keeps no other from it
                said = str(error) if isinstance(error, KernelpkgError) else repr(error)
                self._tell(spec, "KP325", f"it cannot be built: {' '.join(said.split())}")
                continue
            self.builders[spec.name] = builder
            builder.release()
            for reason in builder.absent:
                text = f"calls have no code in the build: {reason}"
                self._tell(spec, "KP326", text, "unverified")

    def jobs(self, made: Iterator[Unit], keep: str) -> Iterator[Job]:
        """Yield each distinct source once."""
        for unit in made:
            key = json.dumps(unit.payload, sort_keys=True)
            users = self.units.setdefault(key, [])
            users.append(unit)
            if len(users) == 1:
                payload = {**unit.payload, "keep": keep}
                yield Job(id=key, payload=payload, timeout=TIMEOUT)

    def take(self, outcome: JobOutcome) -> None:
        """Take what became of a source."""
        unit = self.units[outcome.job.id][0]
        reason = outcome.reason or (outcome.value or {}).get("error", "")
        if outcome.status == "done" and "code" in outcome.value:
            self.codes[outcome.job.id] = outcome.value["code"]
        else:
            text = f"config of case {unit.case} has no code for {self.platform.arch}: {reason}"
            self._tell(unit.spec, "KP327", text)
        self.progress(f"compiled {unit.spec.name}", len(self.codes), len(self.units))

    def _tell(self, spec: KernelSpec, code: str, text: str, severity: Severity = "error") -> None:
        path = f"kernels/{spec.name}/kernel.toml"
        self.problems.append(Problem(path=path, code=code, message=text, severity=severity))

    def build(self) -> Build:
        """Return what was compiled."""
        parts: dict[str, dict[tuple[str, str], BuiltPart]] = {}
        for key, units in self.units.items():
            if key not in self.codes:
                continue
            for unit in units:
                place = (unit.chosen.config_id, unit.call_class)
                found = parts.setdefault(unit.spec.name, {})
                before = found.get(place)
                codes = [*(before.codes if before else ()), self.codes[key]]
                distinct = {json.dumps(code, sort_keys=True): code for code in codes}
                found[place] = BuiltPart(
                    config=unit.chosen.config_id,
                    call_class=unit.call_class,
                    host=unit.host,
                    kernel=unit.payload["name"],
                    codes=tuple(distinct[text] for text in sorted(distinct)),
                )
        return Build(
            pack=self.pack.name,
            platform=self.platform.name,
            arch=str(self.platform.arch),
            tools={"kernelpkg": __version__, **_versions()},
            pinned=helion.PINNED,
            kernels={
                name: BuiltKernel(
                    files=builder.files,
                    exact=builder.exact,
                    parts=tuple(parts.get(name, {}).values()),
                    absent=builder.absent,
                )
                for name, builder in self.builders.items()
            },
        )

    def write(self, keep: Path) -> BuildResult:
        """Put the build in its place, with binaries from where they were kept."""
        build = with_others(self.build(), self.directory, {*self.pack.kernels} - self.names)
        size = 0
        if self.codes or not self.problems:  # one in which all failed takes no other's place
            size = write_build(build, self.directory, lambda name: read_file(keep / name))
        return BuildResult(
            build=build, compiled=len(self.codes), bytes=size, problems=tuple(self.problems)
        )


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("helion", "torch", "triton")}
