"""One kernel made ready: read, held against its lock, checked against this machine.

Nothing is registered here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from kernelpkg.bench.inputs import CaseInputs
from kernelpkg.compile import helion, host_code
from kernelpkg.configs import search_path
from kernelpkg.configs.platforms import CPU, Platform
from kernelpkg.configs.selection import ConfigPlan, read_plan
from kernelpkg.digest import digest_value
from kernelpkg.errors import PackError, Problem, RegistrationError
from kernelpkg.files import Files
from kernelpkg.manifest.guards import Acceptance
from kernelpkg.manifest.spec import KernelSpec, PackSpec, Reference
from kernelpkg.packs.pins import Pins
from kernelpkg.packs.read import problem_at, read_kernel
from kernelpkg.packs.seal import Seal
from kernelpkg.packs.sources import load_function
from kernelpkg.runtime.machine import Machine
from kernelpkg.runtime.register import HelionKernelWrapper
from kernelpkg.runtime.report import KernelReport, Mode


@frozen(kw_only=True)
class Ready:
    """A kernel that was read and checked, and waits to be registered.

    `digest` is that of all that makes up its op.
    """

    spec: KernelSpec
    digest: str
    wrapper: HelionKernelWrapper
    report: KernelReport


@frozen(kw_only=True)
class Preparation:
    """What the kernels of a pack are made ready with.

    `here` is the platform that calls on CUDA tensors run on. `taken` says why the name of an op
    cannot be had, or returns None.
    """

    pack: PackSpec
    machine: Machine
    here: Platform
    seal: Seal
    taken: Callable[[str], str | None]

    def prepare(self, report: KernelReport) -> Ready:
        """Read and check the kernel that a report is about.

        Raises PackError with every problem of it; whatever else goes wrong is one of them, for it
        must not keep other kernels from loading.
        """
        pins, files = Pins(), Files()
        try:
            self.seal.check_kernel(self.pack, report.name, files)
            spec = read_kernel(Path(self.pack.root), report.name, files)
            return self._check(spec, report, pins, files)
        except PackError:
            pins.undo()
            raise
        except Exception as error:
            pins.undo()
            text = " ".join(f"{type(error).__name__}: {error}".split())
            message = f"cannot be loaded: {text}; kernelpkg did not foresee this, please report it"
            path = f"kernels/{report.name}/kernel.toml"
            raise PackError(
                problems=(Problem(path=path, code="KP700", message=message),)
            ) from error

    def _check(self, spec: KernelSpec, report: KernelReport, pins: Pins, files: Files) -> Ready:
        """Check one kernel against this machine."""
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
        settings = attempt(lambda: helion.check_settings(spec.settings, spec.name))
        functions = {
            reference: attempt(partial(_function, spec, reference, pins, files))
            for reference in _references(spec)
        }
        function = functions[spec.source]
        custom = None if spec.picker is None else functions[spec.picker]
        dropped: list[Problem] = []
        plan = attempt(
            lambda: read_plan(
                self.pack, spec, self.here, custom=custom, files=files, dropped=dropped
            )
        )
        fake = functions.get(spec.fake_impl) if isinstance(spec.fake_impl, Reference) else None
        if spec.fake_impl == "infer" and function is not None:
            tree = files.tree(Path(spec.directory, spec.source.file), spec.source.file)
            fake = attempt(lambda: host_code.infer_fake(function, tree))
        taken = self.taken(report.op)
        if taken is not None:
            problems.append(problem_at(spec, "KP605", taken, "kernel", "name"))
        differing = self.seal.differences(self.pack, spec.name, files)
        if self.seal.required:  # a file may have come in beside the locked ones
            problems.extend(differing)
        if problems:
            raise PackError(problems=tuple(dict.fromkeys([*problems, *dropped])))
        wrapper = HelionKernelWrapper(
            op_name=spec.name,
            namespace=self.pack.namespace,
            raw_kernel_func=function,
            schema=spec.schema,
            fake_impl=fake,
            helion_settings=settings,
            acceptance=lambda: Acceptance(spec, report.op),
            plan=plan,
            input_generator=lambda: CaseInputs(spec, self.machine.device),
        )
        report = _described(report, self.pack, spec, plan, self.machine)
        lock = self.seal.state(self.pack, spec.name, differs=bool(differing))
        return Ready(
            spec=spec,
            digest=_digest(self.pack, spec, files),
            wrapper=wrapper,
            report=evolve(report, lock=lock, problems=tuple(dropped)),
        )


def _check_requires(spec: KernelSpec) -> None:
    wrong = helion.requires_problem(spec.requires)
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


def _described(
    report: KernelReport, pack: PackSpec, spec: KernelSpec, plan: ConfigPlan, machine: Machine
) -> KernelReport:
    """Fill in how the op will run here, and why not better."""
    own = plan.own() if plan.platform == machine.platform.name else None
    cases, distinct = (0, 0) if own is None else own.file.counts()
    place = None if own is None else search_path.locate(pack, spec.name, own.platform)
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


def _digest(pack: PackSpec, spec: KernelSpec, files: Files) -> str:
    """The digest of all that makes up the op of a kernel: what was read for it."""
    platforms = [dict(pack.platforms), pack.variants]
    return digest_value([spec.digest, platforms, files.digests(Path(pack.root))])
