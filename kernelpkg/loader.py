"""From a pack on disk to ops in PyTorch: discover, parse all, check all, register all, report.

Nothing is registered before everything has been read and checked, and a broken kernel keeps no
other from loading.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from attrs import evolve, frozen

from kernelpkg import discover, hostpart, ops, overlays, seam
from kernelpkg.accept import Acceptance
from kernelpkg.check import smoke_check
from kernelpkg.collector import collector_at_rest
from kernelpkg.digest import digest_value
from kernelpkg.discover import DISABLE_VARIABLE, disabled_ops
from kernelpkg.document import Document
from kernelpkg.errors import PackError, Problem, RegistrationError, suggestion
from kernelpkg.fallback import ConfigPlan, read_plan
from kernelpkg.files import Files
from kernelpkg.inputs import CaseInputs
from kernelpkg.keys import PACK_MANIFEST
from kernelpkg.machine import Device, Machine, detect
from kernelpkg.manifest import problem_at, read_kernel, read_pack
from kernelpkg.pins import Pins
from kernelpkg.platforms import CPU, Platform
from kernelpkg.register import HelionKernelWrapper, get_kernel_by_name, get_registered_kernels
from kernelpkg.report import KernelReport, LoadReport, Mode
from kernelpkg.routing import condition_problems
from kernelpkg.source import load_function
from kernelpkg.spec import KernelSpec, PackSpec, Reference

Progress = Callable[[str, int, int], None]
"""Takes what is about to be done, how many steps are done, and of how many."""


@frozen(kw_only=True)
class _Loaded:
    """An op that this module registered: the root it came from, and the digest of all it is."""

    root: str
    digest: str
    wrapper: HelionKernelWrapper


@frozen(kw_only=True)
class _Ready:
    """A kernel that was read and checked, and waits to be registered."""

    spec: KernelSpec
    loaded: _Loaded
    before: _Loaded | None
    report: KernelReport


_LOADED: dict[str, _Loaded] = {}
_LOCK: Final = threading.RLock()


def load(
    pack: str | None = None,
    *,
    root: str | os.PathLike[str] | None = None,
    device: Device = "auto",
    smoke: bool = False,
    strict: bool = False,
    configs: Sequence[str | os.PathLike[str]] = (),
    progress: Progress = lambda *_: None,
    environment: Mapping[str, str] = os.environ,
) -> LoadReport:
    """Load a pack and register its ops; loading it again changes nothing but what was edited.

    `pack` is its name, found below `root`, in KERNELPKG_PATH, among installed packages, or as our
    own; without a name it is the only pack of `root`, of the first root of KERNELPKG_PATH, or our
    own. `device` is what the report speaks of: an op runs on CPU and CUDA tensors alike. `smoke`
    runs the smallest case of each op against its reference. `strict` raises PackError where
    anything failed, after all that could be registered was. `configs` are directories of configs
    that go before the pack's own, in the order of preference; without any, those of
    KERNELPKG_CONFIGS.

    A second load keeps every op whose manifest, Python files and configs are as before, so that
    `torch.ops` objects taken earlier stay good, and registers the others anew. Where an edited
    kernel is broken, the op as it was loaded before stays, and the report says so. An op that
    KERNELPKG_DISABLE names by then is given back. Ops whose kernels are gone from the disk stay
    until `unload`.

    Raises UsageError for a pack or a device that is not there.
    """
    start = time.perf_counter()
    name = pack or ""
    try:
        place, name = discover.find_pack(pack, None if root is None else Path(root), environment)
        spec = overlays.with_overlays(read_pack(place.path, name), configs, environment)
        machine = detect(device, extra=spec.platforms, variants=spec.variants)
        _check_namespace(spec)
    except PackError as error:
        if strict:
            raise
        machine = detect(device)
        return LoadReport(
            pack=name,
            device=machine.device,
            platform=machine.platform.name,
            seconds=time.perf_counter() - start,
            kernels=(),
            problems=error.problems,
        )
    with _LOCK, collector_at_rest():
        reports, notes = _load(spec, machine, environment, smoke=smoke, progress=progress)
    found = LoadReport(
        pack=spec.name,
        device=machine.device,
        platform=machine.platform.name,
        seconds=time.perf_counter() - start,
        kernels=reports,
        problems=tuple(problem for report in reports for problem in report.problems),
        notes=notes,
    )
    if strict and not found.ok:
        raise PackError(problems=found.failures())
    return found


def _load(
    pack: PackSpec,
    machine: Machine,
    environment: Mapping[str, str],
    *,
    smoke: bool,
    progress: Progress,
) -> tuple[tuple[KernelReport, ...], tuple[Problem, ...]]:
    names, root = pack.kernels, _identity(pack)
    ops.know_this_module()
    steps = len(names) * (2 if smoke else 1)
    disabled = disabled_ops(environment)
    here = _platform(pack, machine)
    prepared: list[_Ready | KernelReport] = []
    for number, name in enumerate(names):
        progress(f"reading {name}", number, steps)
        prepared.append(_prepare(pack, root, name, machine, here, disabled))
    reports = [_finish(ready) if isinstance(ready, _Ready) else ready for ready in prepared]
    for report in reports:
        if report.status == "disabled":
            _give_back(report.op, pack)
    if smoke:
        for number, ready in enumerate(prepared):
            progress(f"checking {names[number]}", len(names) + number, steps)
            reports[number] = _with_check(reports[number], ready, machine)
    progress("done", steps, steps)
    specs: dict[str, KernelSpec] = {
        ready.spec.name: ready.spec for ready in prepared if isinstance(ready, _Ready)
    }
    routes = [(route, specs[route.op]) for route in pack.routes if route.op in specs]
    notes = [*_unknown(disabled, pack), *overlays.strangers(pack)]
    notes += [note for route, spec in routes for note in condition_problems(pack, route, spec)]
    return tuple(reports), tuple(notes)


def _check_namespace(pack: PackSpec) -> None:
    if pack.namespace in ops.RESERVED:
        document = Document(Path(pack.root, pack.path), pack.path, PACK_MANIFEST)
        message = f"namespace '{pack.namespace}' is in use by PyTorch or vLLM; choose another"
        line = document.line("pack", "namespace")
        raise PackError(
            problems=(Problem(path=pack.path, line=line, code="KP605", message=message),)
        )


def _unknown(disabled: list[str], pack: PackSpec) -> Iterator[Problem]:
    """Yield a note for each name to disable that neither this pack nor a loaded one has."""
    ours = [f"{pack.namespace}::{kernel}" for kernel in pack.kernels]
    known = {*ours, *pack.kernels}
    for qualified in get_registered_kernels():
        known |= {qualified, qualified.split("::")[1]}
    for word in disabled:
        namespace, separator, _ = word.rpartition("::")
        if word in known or (separator and namespace != pack.namespace):
            continue
        hint = suggestion(word, ours if separator else pack.kernels)
        message = f"'{word}' is no op of pack '{pack.name}', so nothing is switched off{hint}"
        yield Problem(path=DISABLE_VARIABLE, code="KP607", message=message)


def _prepare(
    pack: PackSpec, root: str, name: str, machine: Machine, here: Platform, disabled: list[str]
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
    pins, files = Pins(), Files()
    try:
        spec = read_kernel(Path(pack.root), name, files)
        return _check(pack, root, spec, machine, here, failed, pins, files)
    except PackError as error:
        problems = error.problems
    except Exception as error:  # whatever it is, it must not keep the other kernels from loading
        text = " ".join(f"{type(error).__name__}: {error}".split())
        message = f"cannot be loaded: {text}; kernelpkg did not foresee this, please report it"
        path = f"kernels/{name}/kernel.toml"
        problems = (Problem(path=path, code="KP700", message=message),)
    pins.undo()
    return _failed(failed, problems, stays=_own_before(pack, failed.op) is not None)


def _failed(
    report: KernelReport, problems: tuple[Problem, ...], *, stays: bool = False
) -> KernelReport:
    count = len(problems)
    reason = str(problems[0]) + (f" (and {count - 1} more)" if count > 1 else "")
    reason += "; the op as it was loaded before stays" if stays else ""
    return evolve(report, status="failed", mode=None, reason=reason, problems=problems)


def _check(
    pack: PackSpec,
    root: str,
    spec: KernelSpec,
    machine: Machine,
    here: Platform,
    report: KernelReport,
    pins: Pins,
    files: Files,
) -> _Ready:
    """Check one kernel against this machine; raises PackError with every problem of it."""
    problems: list[Problem] = []

    def attempt(step: Callable[[], Any]) -> Any:
        try:
            return step()
        except PackError as error:
            problems.extend(error.problems)
        except RegistrationError as error:
            problems.append(problem_at(spec, "KP153", str(error), "helion"))
        return None

    attempt(lambda: _check_requires(spec))
    settings = attempt(lambda: seam.check_settings(spec.settings, spec.name))
    functions = {
        reference: attempt(partial(_function, spec, reference, pins, files))
        for reference in _references(spec)
    }
    function = functions[spec.source]
    custom = None if spec.picker is None else functions[spec.picker]
    dropped: list[Problem] = []
    plan = attempt(lambda: read_plan(pack, spec, here, custom=custom, files=files, dropped=dropped))
    fake = functions.get(spec.fake_impl) if isinstance(spec.fake_impl, Reference) else None
    if spec.fake_impl == "infer" and function is not None:
        tree = files.tree(Path(spec.directory, spec.source.file), spec.source.file)
        fake = attempt(lambda: hostpart.infer_fake(function, tree))
    before = _before(report.op)
    if before is None or before.root != root:
        taken = _taken(report.op, before)
        if taken is not None:
            problems.append(problem_at(spec, "KP605", taken, "kernel", "name"))
    if problems:
        raise PackError(problems=tuple(dict.fromkeys([*problems, *dropped])))
    wrapper = HelionKernelWrapper(
        op_name=spec.name,
        namespace=pack.namespace,
        raw_kernel_func=function,
        schema=spec.schema,
        fake_impl=fake,
        helion_settings=settings,
        acceptance=lambda: Acceptance(spec, report.op),
        plan=plan,
        input_generator=lambda: CaseInputs(spec, machine.device),
    )
    return _Ready(
        spec=spec,
        loaded=_Loaded(root=root, digest=_digest(pack, spec, files), wrapper=wrapper),
        before=before,
        report=evolve(_described(report, pack, spec, plan, machine), problems=tuple(dropped)),
    )


def _check_requires(spec: KernelSpec) -> None:
    wrong = seam.requires_problem(spec.requires)
    if wrong is not None:
        raise PackError(problems=(problem_at(spec, "KP151", wrong, "helion", "requires"),))


def _references(spec: KernelSpec) -> tuple[Reference, ...]:
    """Every function that the manifest names, the source first."""
    inits = [variant.init for arg in spec.args for variant in arg.variants]
    named = [spec.source, spec.reference, spec.fake_impl, spec.picker, spec.generator, *inits]
    return tuple(dict.fromkeys(item for item in named if isinstance(item, Reference)))


def _function(spec: KernelSpec, reference: Reference, pins: Pins, files: Files) -> Any:
    """Load one function of a kernel; raises PackError where its file cannot be run."""
    directory = Path(spec.directory)
    path = directory / reference.file
    found = load_function(directory, reference, files)
    pins.pin(path, files.read(path))
    return found


def _platform(pack: PackSpec, machine: Machine) -> Platform:
    """The platform that calls on CUDA tensors run on, also where the report is of the CPU."""
    if machine.device == "cuda":
        return machine.platform
    return detect("auto", extra=pack.platforms, variants=pack.variants).platform


def _described(
    report: KernelReport, pack: PackSpec, spec: KernelSpec, plan: ConfigPlan, machine: Machine
) -> KernelReport:
    """Fill in how the op will run here, and why not better."""
    own = plan.own() if plan.platform == machine.platform.name else None
    cases, distinct = (0, 0) if own is None else own.file.counts()
    place = None if own is None else overlays.locate(pack, spec.name, own.platform)
    mode: Mode = "tuned" if own is not None else "default"
    reason = "" if place is None or not place.overlay else f"configs of {place.shown}"
    if machine.interpret:
        mode = "interpret"
        reason = "HELION_INTERPRET is set"
        if machine.device == "cpu":
            reason = "no GPU" if plan.platform == CPU else "device cpu was asked for"
    elif own is None:
        default = "Helion's own default" if spec.default is None else "[helion] default"
        borrowed = [table.platform for table in plan.tables]
        source = f"borrows from {', '.join(borrowed)}, then {default}" if borrowed else default
        if spec.miss == "error":
            source = "[miss] action is 'error'"
        reason = f"no config for {machine.platform.name}; {source}"
    return evolve(
        report,
        status="registered",
        mode=mode,
        cases=cases,
        configs=distinct,
        file=None if place is None else place.shown,
        reason=reason,
    )


def _identity(pack: PackSpec) -> str:
    """The root of a pack, however it was spelled."""
    return str(Path(pack.root).resolve())


def _before(qualified: str) -> _Loaded | None:
    """What this module registered under a name, if it is there still."""
    loaded = _LOADED.get(qualified)
    if loaded is None or get_kernel_by_name(qualified) is not loaded.wrapper:
        return None
    return loaded


def _own_before(pack: PackSpec, qualified: str) -> _Loaded | None:
    before = _before(qualified)
    return before if before is not None and before.root == _identity(pack) else None


def _taken(qualified: str, before: _Loaded | None) -> str | None:
    """Say why the op's name cannot be had, or return None."""
    if before is not None:
        who = f"by the pack in {before.root}"
    elif get_kernel_by_name(qualified) is not None:
        who = "with register_kernel"
    else:
        return ops.name_problem(*qualified.split("::"))
    return f"op '{qualified}' is registered already, {who}; rename one, or unload the other"


def _digest(pack: PackSpec, spec: KernelSpec, files: Files) -> str:
    """The digest of all that makes up the op of a kernel: what was read for it."""
    platforms = [dict(pack.platforms), pack.variants]
    return digest_value([spec.digest, platforms, files.digests(Path(pack.root))])


def _finish(ready: _Ready) -> KernelReport:
    """Register one kernel that was checked; one that is there already and has not changed stays."""
    loaded, before = ready.loaded, ready.before
    wrapper = loaded.wrapper
    if before is not None:
        same = before.wrapper.plan.platform == wrapper.plan.platform
        if before.digest == loaded.digest and same:
            return ready.report
        before.wrapper.unregister()
    try:
        wrapper.register()
    except RegistrationError as error:
        if before is not None:
            before.wrapper.register()
        problem = problem_at(ready.spec, "KP605", str(error), "op", "schema")
        return _failed(ready.report, (problem,), stays=before is not None)
    _LOADED[wrapper.qualified] = loaded
    return ready.report


def _give_back(qualified: str, pack: PackSpec) -> None:
    """Unregister an op that an earlier load of this pack registered."""
    before = _own_before(pack, qualified)
    if before is not None:
        before.wrapper.unregister()


def _with_check(
    report: KernelReport, ready: _Ready | KernelReport, machine: Machine
) -> KernelReport:
    if report.status != "registered" or not isinstance(ready, _Ready):
        return report
    kernel = get_kernel_by_name(report.op)
    assert kernel is not None
    return evolve(report, check=smoke_check(ready.spec, kernel, device=machine.device))
