"""From a pack on disk to ops in PyTorch: find, parse all, check all, register all, report.

Nothing is registered before everything has been read and checked, and a broken kernel keeps no
other from loading.

Before: `configs/selection`. After: `runtime/register`.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from attrs import evolve, frozen

from kernelpkg.bench.reference import smoke_check
from kernelpkg.configs import directories
from kernelpkg.configs.platforms import Platform
from kernelpkg.errors import (
    LoadWarning,
    PackError,
    Problem,
    Progress,
    RegistrationError,
    suggestion,
)
from kernelpkg.launch import native
from kernelpkg.locks import make_lock
from kernelpkg.manifest.spec import KernelName, KernelSpec, PackSpec
from kernelpkg.packs import find
from kernelpkg.packs.builds import Build, find_builds
from kernelpkg.packs.find import DISABLE_VARIABLE, disabled_ops
from kernelpkg.packs.read import collector_at_rest, pack_problem, problem_at, read_pack
from kernelpkg.packs.routes import condition_problems
from kernelpkg.packs.verify import make_verifier
from kernelpkg.runtime import graphs, torch_ops
from kernelpkg.runtime.prepare import Preparation, Ready
from kernelpkg.runtime.register import (
    HelionKernelWrapper,
    get_kernel_by_name,
    get_registered_kernels,
)
from kernelpkg.runtime.reports import KernelReport, LoadReport
from kernelpkg.runtime.torch_ops import Device, Machine, detect


@frozen(kw_only=True)
class _Loaded:
    """An op that this module registered: the root it came from, and the digest of all it is."""

    root: str
    digest: str
    wrapper: HelionKernelWrapper


_LOADED: dict[str, _Loaded] = {}
_LOCK: Final = make_lock()


def load(
    pack: str | None = None,
    *,
    root: str | os.PathLike[str] | None = None,
    ops: Sequence[str] = (),
    device: Device = "auto",
    smoke: bool = False,
    strict: bool | None = None,
    configs: Sequence[str | os.PathLike[str]] = (),
    locked: bool = False,
    builds: Sequence[str | os.PathLike[str]] = (),
    prebuilt: bool = False,
    progress: Progress = lambda *_: None,
    environment: Mapping[str, str] | None = None,
) -> LoadReport:
    """Load a pack and register its ops; loading it again changes nothing but what was edited.

    A second load keeps every op whose manifest, Python files and configs are as before; so does one
    of the same bytes at another place. An edited kernel takes the place of its op, which other
    threads may be calling; `torch.ops` objects of it stay good unless its schema is another one,
    and graphs of `torch.compile` are made anew where they no longer fit. Where an edited kernel is
    broken, the op as it was loaded before stays, and the report says so. An op that
    KERNELPKG_DISABLE names by then is given back. Ops whose kernels are gone from the disk stay
    until `unload`.

    Args:
        pack: Its name, found below `root`, in KERNELPKG_PATH, among installed packages, or as our
            own; without one, the only pack of `root`, of the first root of KERNELPKG_PATH, or ours.
        root: The directory that holds manifests/, kernels/ and configs/.
        ops: Those to load, with or without namespace; all of the pack, without any. Others that are
            loaded stay as they are.
        device: "auto", "cpu" or "cuda": what the report speaks of. An op runs on CPU and CUDA
            tensors alike.
        smoke: Run the smallest cases of each op against its reference.
        strict: True raises where a kernel failed, after all that could be registered was; False
            leaves it to the report. Unless given, there is a LoadWarning beside the report.
        configs: Directories of configs that go before the pack's own, in the order of preference;
            without any, those of KERNELPKG_CONFIGS.
        locked: Load only kernels that are as the pack's kernelpkg.lock says. A pack of an installed
            package that came with a lock is held to it in any case.
        builds: Directories of builds that go before the pack's own, in the order of preference;
            without any, those of KERNELPKG_BUILDS.
        prebuilt: Let nothing be compiled: a kernel without a build that fits fails, and so does a
            call that the build has no code for.
        progress: Called with what is about to be done, how many steps are done, and of how many.
        environment: Holds the KERNELPKG_ variables; that of the process unless given.

    Returns:
        What became of the pack and of each of its kernels, in the order of the manifest.

    Raises:
        UsageError: The pack, one of the ops or the device is not there.
        PackError: The pack cannot be loaded at all, or a part of it failed and `strict` was given;
            it carries every problem.
    """
    start = time.perf_counter()
    environment = os.environ if environment is None else environment
    place, name = find.find_pack(pack, None if root is None else Path(root), environment)
    verifier = make_verifier(place.path, name, demanded=locked, installed=place.installed)
    spec = read_pack(place.path, name, check=verifier.check_manifest)
    spec = directories.with_overlays(spec, configs, environment)
    names = find.chosen_kernels(spec, ops)
    machine = detect(device, extra=spec.platforms, variants=spec.variants)
    native.choose()  # a launcher that cannot be had is told before any kernel needs it
    if spec.namespace in torch_ops.RESERVED:
        message = f"namespace '{spec.namespace}' is in use by PyTorch or vLLM; choose another"
        raise PackError(problems=(pack_problem(spec, "KP605", message, "pack", "namespace"),))
    here = _platform(spec, machine)
    builds_here: tuple[Build, ...] = ()
    notes: tuple[Problem, ...] = ()
    if not machine.interpret:
        must = verifier.builds if verifier.required else None
        builds_here, notes = find_builds(
            spec, here.name, builds, environment, arch=here.arch, locked=must
        )
        if prebuilt and not builds_here and notes:
            raise PackError(problems=notes)
    with _LOCK, collector_at_rest():
        preparation = Preparation(
            pack=spec,
            machine=machine,
            here=here,
            verifier=verifier,
            taken=partial(_taken, _identity(spec)),
            builds=builds_here,
            prebuilt=prebuilt,
            smoke=smoke,
        )
        reports, noted = _load(preparation, names, environment, progress)
        notes = (*notes, *noted)
    graphs.drop_stale()
    problems = tuple(problem for kernel in reports for problem in kernel.problems)
    found = LoadReport(
        pack=name,
        device=machine.device,
        platform=machine.platform.name,
        seconds=time.perf_counter() - start,
        kernels=reports,
        problems=problems,
        notes=notes,
    )
    if strict and not found.ok:
        raise PackError(problems=found.failures())
    if strict is None and not found.ok:
        warnings.warn(found.warning(), LoadWarning, stacklevel=2)
    return found


def _load(
    preparation: Preparation,
    names: Sequence[KernelName],
    environment: Mapping[str, str],
    progress: Progress,
) -> tuple[tuple[KernelReport, ...], tuple[Problem, ...]]:
    pack, machine, verifier = preparation.pack, preparation.machine, preparation.verifier
    root, smoke = _identity(pack), preparation.smoke
    torch_ops.know_this_module()
    steps = len(names) * (2 if smoke else 1)
    disabled = disabled_ops(environment)
    prepared: list[Ready | KernelReport] = []
    for number, name in enumerate(names):
        waits = not preparation.builds and "helion" not in sys.modules
        progress(f"{'importing Helion, ' * waits}reading {name}", number, steps)
        prepared.append(_prepare(preparation, name, disabled))
    reports = [_finish(ready, root) if isinstance(ready, Ready) else ready for ready in prepared]
    for report in reports:
        before = _own_before(pack, report.op) if report.status == "disabled" else None
        if before is not None:
            before.wrapper.unregister()
    for number, ready in enumerate(prepared) if smoke else ():
        progress(f"checking {names[number]}", len(names) + number, steps)
        report = reports[number]
        if report.status == "registered" and isinstance(ready, Ready):
            kernel = get_kernel_by_name(report.op)
            assert kernel is not None
            finding = smoke_check(ready.spec, kernel, device=machine.device, files=ready.files)
            check = "ok" if finding is None else str(finding)
            reports[number] = evolve(report, check=check, finding=finding)
    progress("done", steps, steps)
    whole = len(names) == len(pack.kernels)
    for gone, problem in verifier.gone(pack).items() if whole else ():
        reports.append(_failed(_blank(preparation, gone), (problem,)))
    specs: dict[str, KernelSpec] = {
        ready.spec.name: ready.spec for ready in prepared if isinstance(ready, Ready)
    }
    routes = [(route, specs[route.op]) for route in pack.routes if route.op in specs]
    notes = [*verifier.notes, *_unknown(disabled, pack), *directories.strangers(pack)]
    notes += [note for route, spec in routes for note in condition_problems(pack, route, spec)]
    return tuple(reports), tuple(notes)


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
        message = f"'{word}' is not an op of pack '{pack.name}', so nothing is switched off{hint}"
        yield Problem(path=DISABLE_VARIABLE, code="KP607", message=message)


def _blank(preparation: Preparation, name: str) -> KernelReport:
    """Return the report of a kernel that nothing has been done for."""
    return KernelReport(
        name=name,
        op=f"{preparation.pack.namespace}::{name}",
        status="failed",
        platform=preparation.machine.platform.name,
    )


def _prepare(preparation: Preparation, name: str, disabled: Sequence[str]) -> Ready | KernelReport:
    """Read and check one kernel; registers nothing."""
    pack, report = preparation.pack, _blank(preparation, name)
    if name in disabled or report.op in disabled:
        reason = f"switched off by {DISABLE_VARIABLE}"
        return evolve(report, status="disabled", reason=reason)
    try:
        return preparation.prepare(report)
    except PackError as error:
        return _failed(report, error.problems, stays=_own_before(pack, report.op) is not None)


def _failed(
    report: KernelReport, problems: tuple[Problem, ...], *, stays: bool = False
) -> KernelReport:
    count = len(problems)
    reason = str(problems[0]) + (f" (and {count - 1} more)" if count > 1 else "")
    reason += "; the op as it was loaded before stays" if stays else ""
    return evolve(report, status="failed", mode=None, lock=None, reason=reason, problems=problems)


def _platform(pack: PackSpec, machine: Machine) -> Platform:
    """The platform that calls on CUDA tensors run on, also where the report is of the CPU."""
    if machine.device == "cuda":
        return machine.platform
    return detect("auto", extra=pack.platforms, variants=pack.variants).platform


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


def _taken(root: str, qualified: str, digest: str) -> str | None:
    """Say why a pack below a root cannot have the name of an op, or return None.

    What is registered already, byte by byte, may be loaded from a second place.
    """
    before = _before(qualified)
    if before is not None:
        if root == before.root or digest == before.digest:
            return None
        who = f"by the pack in {before.root}"
    elif get_kernel_by_name(qualified) is not None:
        who = "with register_kernel"
    else:
        return torch_ops.name_problem(*qualified.split("::"))
    return f"op '{qualified}' is registered already, {who}; rename one, or unload the other"


def _finish(ready: Ready, root: str) -> KernelReport:
    """Register one kernel that was checked; one that is there already and has not changed stays."""
    wrapper, before = ready.wrapper, _before(ready.report.op)
    if before is not None:
        same = before.wrapper.plan.platform == wrapper.plan.platform
        if before.digest == ready.digest and same:
            return ready.report
    try:
        wrapper.register(None if before is None else before.wrapper)
    except RegistrationError as error:
        problem = problem_at(ready.spec, "KP605", str(error), "op", "schema")
        return _failed(ready.report, (problem,), stays=before is not None)
    _LOADED[wrapper.qualified] = _Loaded(root=root, digest=ready.digest, wrapper=wrapper)
    return ready.report
