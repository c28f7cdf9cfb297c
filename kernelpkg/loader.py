"""From a pack on disk to ops in PyTorch: discover, parse all, check all, register all, report.

Nothing is registered before everything has been read and checked, and a broken kernel keeps no
other from loading.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from attrs import evolve, frozen
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from kernelpkg import discover, hostpart, ops, seam
from kernelpkg.accept import Acceptance
from kernelpkg.cases import cases_of
from kernelpkg.check import smoke_check
from kernelpkg.digest import digest_bytes, digest_value
from kernelpkg.errors import (
    PackError,
    Problem,
    RegistrationError,
)
from kernelpkg.fallback import ConfigPlan, CustomPicker, read_plan
from kernelpkg.inputs import make_inputs
from kernelpkg.machine import Device, Machine, detect
from kernelpkg.manifest import problem_at, read_kernel, read_pack
from kernelpkg.register import HelionKernelWrapper, get_kernel_by_name
from kernelpkg.source import load_function
from kernelpkg.spec import KernelSpec, PackSpec, Reference, Scalar

DISABLE_VARIABLE: Final = "KERNELPKG_DISABLE"
"""Ops that are not to be registered, by name, separated by commas."""

Status = Literal["registered", "failed", "disabled"]
Mode = Literal["prebuilt", "tuned", "default", "interpret"]


@frozen(kw_only=True)
class KernelReport:
    """What became of one kernel.

    `cases` and `configs` count what is tuned on `platform`: keys, and distinct configs. `reason`
    says why the mode is not a better one, or why the op is not there. `check` is None where no
    smoke check ran, "ok", or what disagreed.
    """

    name: str
    op: str
    status: Status
    mode: Mode | None = None
    platform: str
    cases: int = 0
    configs: int = 0
    reason: str = ""
    check: str | None = None
    problems: tuple[Problem, ...] = ()


@frozen(kw_only=True)
class LoadReport:
    """What became of a pack; `problems` are those that kept it, or kernels of it, from loading."""

    pack: str
    device: str
    platform: str
    seconds: float
    kernels: tuple[KernelReport, ...]
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no kernel failed, to load or in its smoke check."""
        bad = [k for k in self.kernels if k.status == "failed" or k.check not in (None, "ok")]
        return not bad and not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return the document of `load --json`."""
        names = ("name", "op", "status", "mode", "platform", "cases", "configs", "reason", "check")
        return {
            "pack": self.pack,
            "device": self.device,
            "platform": self.platform,
            "seconds": self.seconds,
            "kernels": [{name: getattr(k, name) for name in names} for k in self.kernels],
        }


@frozen(kw_only=True)
class _Ready:
    """A kernel that was read and checked, and waits to be registered."""

    spec: KernelSpec
    wrapper: HelionKernelWrapper
    report: KernelReport


_LOADED: dict[str, str] = {}
"""The digest of each kernel that this module registered, by the name of its op."""


def load(
    pack: str | None = None,
    *,
    root: str | os.PathLike[str] | None = None,
    device: Device = "auto",
    smoke: bool = False,
    strict: bool = False,
    progress: Callable[[str], None] = lambda _: None,
    environment: Mapping[str, str] = os.environ,
) -> LoadReport:
    """Load a pack and register its ops; a second call changes nothing.

    `pack` is its name, found below `root`, in KERNELPKG_PATH, among installed packages or here;
    without a name it is the only pack of the root, or the first pack. `device` is what the report
    speaks of: an op runs on CPU and CUDA tensors alike. `smoke` runs the smallest case of each op
    against its reference. `strict` raises PackError where anything failed, after all that could
    be registered was. `progress` is told the name of each kernel when it is done.

    Raises UsageError for a pack or a device that is not there.
    """
    start = time.perf_counter()
    given = None if root is None else Path(root)
    try:
        place, name = discover.find_pack(pack, given, environment)
        spec = read_pack(place.path, name)
        machine = detect(device, extra=spec.platforms, variants=spec.variants)
    except PackError as error:
        if strict:
            raise
        return LoadReport(
            pack=pack or "",
            device=device,
            platform="",
            seconds=time.perf_counter() - start,
            kernels=(),
            problems=error.problems,
        )
    disabled = {name.strip() for name in environment.get(DISABLE_VARIABLE, "").split(",")}
    prepared = [_prepare(spec, kernel, machine, disabled) for kernel in spec.kernels]
    reports = [_finish(ready) if isinstance(ready, _Ready) else ready for ready in prepared]
    for number, ready in enumerate(prepared):
        if smoke:
            reports[number] = _with_check(reports[number], ready, machine)
        progress(spec.kernels[number])
    problems = [problem for report in reports for problem in report.problems]
    found = LoadReport(
        pack=spec.name,
        device=machine.device,
        platform=machine.platform.name,
        seconds=time.perf_counter() - start,
        kernels=tuple(reports),
        problems=tuple(problems),
    )
    if strict and not found.ok:
        raise PackError(problems=found.problems or tuple(map(_check_problem, found.kernels)))
    return found


def _check_problem(report: KernelReport) -> Problem:
    path = f"kernels/{report.name}/kernel.toml"
    return Problem(
        path=path, code="KP701", message=f"check failed: {report.check or report.reason}"
    )


def _prepare(
    pack: PackSpec, name: str, machine: Machine, disabled: set[str]
) -> _Ready | KernelReport:
    """Read and check one kernel; registers nothing."""
    failed = KernelReport(
        name=name,
        op=f"{pack.namespace}::{name}",
        status="failed",
        platform=machine.platform.name,
    )
    if name in disabled or failed.op in disabled:
        reason = f"switched off by {DISABLE_VARIABLE}"
        return evolve(failed, status="disabled", reason=reason)
    try:
        spec = read_kernel(Path(pack.root), name)
        return _check(pack, spec, machine, failed)
    except PackError as error:
        count = len(error.problems)
        reason = str(error.problems[0]) + (f" (and {count - 1} more)" if count > 1 else "")
        return evolve(failed, reason=reason, problems=error.problems)


def _check(pack: PackSpec, spec: KernelSpec, machine: Machine, report: KernelReport) -> _Ready:
    _check_requires(spec)
    directory = Path(spec.directory)
    function = load_function(directory, spec.source)
    load_function(directory, spec.reference)
    plan = read_plan(pack, spec, machine.platform, custom=_custom(spec))
    try:
        settings = seam.check_settings(spec.settings, spec.name)
        fake = _fake(spec, function)
    except RegistrationError as error:
        raise _failed(spec, "KP153", str(error), "helion") from None
    wrapper = HelionKernelWrapper(
        op_name=spec.name,
        namespace=pack.namespace,
        raw_kernel_func=function,
        schema=spec.schema,
        fake_impl=fake,
        helion_settings=settings,
        acceptance=lambda: Acceptance(spec, f"{pack.namespace}::{spec.name}"),
        plan=plan,
        input_generator=lambda: _Inputs(spec, machine.device),
    )
    taken = _taken(pack, spec)
    if taken is not None:
        raise _failed(spec, "KP605", taken, "kernel", "name")
    return _Ready(spec=spec, wrapper=wrapper, report=_described(report, spec, plan, machine))


def _failed(spec: KernelSpec, code: str, message: str, *at: str) -> PackError:
    return PackError(problems=(problem_at(spec, code, message, *at),))


def _check_requires(spec: KernelSpec) -> None:
    try:
        wanted = SpecifierSet(spec.requires)
    except InvalidSpecifier:
        message = f"requires '{spec.requires}' is not a version specifier such as '>=1.4'"
        raise _failed(spec, "KP151", message, "helion", "requires") from None
    if not wanted.contains(seam.HELION_VERSION, prereleases=True):
        message = f"requires Helion {spec.requires}, and {seam.HELION_VERSION} is installed"
        raise _failed(spec, "KP151", message, "helion", "requires")


def _fake(spec: KernelSpec, function: Any) -> Any:
    if spec.fake_impl == "none":
        return None
    if isinstance(spec.fake_impl, Reference):
        return load_function(Path(spec.directory), spec.fake_impl)
    return hostpart.infer_fake(function)


def _custom(spec: KernelSpec) -> CustomPicker | None:
    if spec.picker is None:
        return None
    found: CustomPicker = load_function(Path(spec.directory), spec.picker)
    return found


def _described(
    report: KernelReport, spec: KernelSpec, plan: ConfigPlan, machine: Machine
) -> KernelReport:
    """Fill in how the op will run here, and why not better."""
    own = plan.own()
    cases = 0 if own is None else len(own.keys)
    distinct = 0 if own is None else len(set(own.ids))
    mode: Mode = "tuned" if own is not None else "default"
    reason = ""
    if machine.interpret:
        mode = "interpret"
        reason = "no GPU" if machine.device == "cpu" else "HELION_INTERPRET is set"
    elif own is None:
        default = "Helion's own default" if spec.default is None else "[helion] default"
        borrowed = [table.platform for table in plan.tables]
        source = f"borrows from {', '.join(borrowed)}, then {default}" if borrowed else default
        reason = f"no config for {machine.platform.name}; {source}"
        if spec.miss == "error" and not borrowed:
            reason = f"no config for {machine.platform.name}, and [miss] action is 'error'"
    return evolve(
        report, status="registered", mode=mode, cases=cases, configs=distinct, reason=reason
    )


def _taken(pack: PackSpec, spec: KernelSpec) -> str | None:
    """Say why the op's name cannot be had, or return None; one of ours can be taken over."""
    qualified = f"{pack.namespace}::{spec.name}"
    other = get_kernel_by_name(qualified)
    if other is None:
        return ops.name_problem(pack.namespace, spec.name)
    if qualified in _LOADED and _LOADED[qualified].startswith(f"{pack.root}\0"):
        return None
    return f"op '{qualified}' is registered already, by another pack"


def _digest(spec: KernelSpec) -> str:
    """The digest of all that a kernel is made of, behind its root."""
    root = Path(spec.directory).parent.parent
    files = [*Path(spec.directory).glob("*"), *(root / "configs" / spec.name).glob("*.json")]
    found = {str(path): digest_bytes(path.read_bytes()) for path in files if path.is_file()}
    return f"{root}\0{digest_value(found)}"


def _finish(ready: _Ready) -> KernelReport:
    """Register one kernel that was checked; one that is there already and has not changed stays."""
    wrapper, digest = ready.wrapper, _digest(ready.spec)
    before = get_kernel_by_name(wrapper.qualified)
    if before is not None:
        if (
            _LOADED.get(wrapper.qualified) == digest
            and before.plan.platform == wrapper.plan.platform
        ):
            return ready.report
        before.unregister()
    try:
        wrapper.register()
    except RegistrationError as error:
        problem = problem_at(ready.spec, "KP605", str(error), "op", "schema")
        return evolve(
            ready.report, status="failed", mode=None, reason=str(problem), problems=(problem,)
        )
    _LOADED[wrapper.qualified] = digest
    return ready.report


class _Inputs(Mapping[tuple[tuple[str, Scalar], ...], tuple[Any, ...]]):
    """The arguments of every case for tuning, by case; made when they are read."""

    def __init__(self, spec: KernelSpec, device: str) -> None:
        self._spec = spec
        self._device = device
        self._cases = {tuple(case.values.items()): case for case in cases_of(spec, "tune")}

    def __getitem__(self, key: tuple[tuple[str, Scalar], ...]) -> tuple[Any, ...]:
        return make_inputs(self._spec, self._cases[key], device=self._device)

    def __iter__(self) -> Iterator[tuple[tuple[str, Scalar], ...]]:
        return iter(self._cases)

    def __len__(self) -> int:
        return len(self._cases)


def _with_check(
    report: KernelReport, ready: _Ready | KernelReport, machine: Machine
) -> KernelReport:
    if report.status != "registered" or not isinstance(ready, _Ready):
        return report
    kernel = get_kernel_by_name(report.op)
    assert kernel is not None
    return evolve(report, check=smoke_check(ready.spec, kernel, device=machine.device))
