"""One kernel made ready: read, held against its lock, checked against this machine.

Nothing is registered here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from kernelpkg.bench.inputs import CaseInputs
from kernelpkg.configs import directories
from kernelpkg.configs.platforms import CPU, Platform
from kernelpkg.configs.selection import ConfigSelection, read_selection
from kernelpkg.errors import PackError, Problem, RegistrationError, error_line, pack_error
from kernelpkg.files import Files, digest_value
from kernelpkg.manifest.guards import CallCheck
from kernelpkg.manifest.spec import KernelSpec, PackSpec, Reference
from kernelpkg.packs.builds import Build
from kernelpkg.packs.lock import LockedKernel
from kernelpkg.packs.read import problem_at, read_kernel
from kernelpkg.packs.sources import Pins, load_function
from kernelpkg.packs.verify import Verifier
from kernelpkg.runtime.prebuilt import BuiltCode
from kernelpkg.runtime.register import HelionKernelWrapper, KernelParts
from kernelpkg.runtime.reports import KernelReport, Mode
from kernelpkg.runtime.torch_ops import Machine


@frozen(kw_only=True)
class Ready:
    """A kernel that was read and checked, and waits to be registered.

    `digest` is that of all that makes up its op, and `files` have what was read for it, where a
    smoke check follows.
    """

    spec: KernelSpec
    digest: str
    wrapper: HelionKernelWrapper
    report: KernelReport
    files: Files | None


@frozen(kw_only=True)
class Preparation:
    """What the kernels of a pack are made ready with.

    `here` is the platform that calls on CUDA tensors run on. `builds` are asked before anything is
    compiled, and with `prebuilt` nothing is. For a `smoke` check what only tests need is verified
    too. `taken` says why what has a digest cannot have the name of an op, or returns None.
    """

    pack: PackSpec
    machine: Machine
    here: Platform
    verifier: Verifier
    taken: Callable[[str, str], str | None]
    builds: tuple[Build, ...] = ()
    prebuilt: bool = False
    smoke: bool = False

    def prepare(self, report: KernelReport) -> Ready:
        """Read and check the kernel that a report is about.

        Raises PackError with every problem of it; whatever else goes wrong is one of them, for it
        must not keep other kernels from loading.
        """
        pins, files = Pins(), Files()
        try:
            locked = self.verifier.check_kernel(self.pack, report.name, files)
            root, checked = Path(self.pack.root), locked is not None
            spec = read_kernel(root, report.name, files, checked=checked)
            return self._check(spec, report, pins, files, locked)
        except PackError:
            pins.undo()
            raise
        except Exception as error:
            pins.undo()
            what = "kernelpkg did not foresee this, please report it"
            message = f"cannot be loaded: {error_line(error)}; {what}"
            raise pack_error(f"kernels/{report.name}/kernel.toml", "KP700", message) from error

    def _check(
        self,
        spec: KernelSpec,
        report: KernelReport,
        pins: Pins,
        files: Files,
        locked: LockedKernel | None,
    ) -> Ready:
        """Check one kernel against this machine."""
        problems: list[Problem] = []

        def attempt(step: Callable[[], Any], *at: str) -> Any:
            try:
                return step()
            except PackError as error:
                problems.extend(error.problems)
            except RegistrationError as error:
                problems.append(problem_at(spec, "KP153", str(error), *at))
            return None

        build, unfit = self._fitting(spec, files)
        if self.prebuilt and build is None and not self.machine.interpret:
            again = "; run 'kernelpkg build' again" if self.builds else ""
            message = f"cannot run prebuilt: {unfit}{again}"
            problems.append(problem_at(spec, "KP328", message, "kernel"))
        if build is None:  # else Helion is imported when a call needs what the build lacks
            attempt(lambda: _check_requires(spec))
            attempt(lambda: _settings(spec), "helion", "settings")
        self._verify(spec, _references(spec, tests=locked is None or self.smoke), files)
        functions = {
            reference: attempt(partial(_function, spec, reference, pins, files))
            for reference in _references(spec, tests=locked is None)
            if build is None or reference.file != spec.source.file
        }
        function, source = functions.get(spec.source), Path(spec.directory, spec.source.file)
        custom = None if spec.picker is None else functions[spec.picker]
        dropped: list[Problem] = []
        selection = attempt(
            lambda: read_selection(
                self.pack,
                spec,
                self.here,
                custom=custom,
                files=files,
                dropped=dropped,
                locked=None if locked is None else locked.counts(),
            )
        )
        fake = functions.get(spec.fake_impl) if isinstance(spec.fake_impl, Reference) else None
        if spec.fake_impl == "infer" and (function is not None or build is not None):
            fake = attempt(lambda: _inferred(spec, function, files), "op", "fake_impl")
        digest = _digest(self.pack, spec, files, build, prebuilt=self.prebuilt)
        taken = self.taken(report.op, digest)
        if taken is not None:
            problems.append(problem_at(spec, "KP605", taken, "kernel", "name"))
        differing = self.verifier.differences(self.pack, spec.name, files)
        if self.verifier.required:  # a file may have come in beside the locked ones
            problems.extend(differing)
        if problems:
            raise PackError(problems=tuple(dict.fromkeys([*problems, *dropped])))
        parts = KernelParts(
            op_name=spec.name,
            namespace=self.pack.namespace,
            raw_kernel_func=partial(_source, spec, function, files.only(source)),
            schema=spec.schema,
            fake_impl=fake,
            helion_settings=partial(_settings, spec),
            acceptance=lambda: CallCheck(spec, report.op),
            plan=selection,
            input_generator=lambda: CaseInputs(spec, self.machine.device),
            built=None if build is None else BuiltCode(build, spec.name, spec.source.name),
            prebuilt=self.prebuilt,
            backward=spec.backward,
            spec=spec,
        )
        report = _described(report, self.pack, spec, selection, self.machine)
        if build is not None:
            reasons = (f"build {build.shown}", report.reason)
            report = evolve(report, mode="prebuilt", reason="; ".join(filter(None, reasons)))
        elif unfit and self.builds:
            report = evolve(report, reason="; ".join(filter(None, [report.reason, unfit])))
        lock = self.verifier.state(self.pack, spec.name, differs=bool(differing))
        if lock == "locked" and build is not None and not build.is_own(self.pack):
            lock = "overlaid"
        return Ready(
            spec=spec,
            digest=digest,
            wrapper=HelionKernelWrapper.of(parts),
            report=evolve(report, lock=lock, problems=tuple(dropped)),
            files=files if self.smoke else None,
        )

    def _verify(self, spec: KernelSpec, references: Sequence[Reference], files: Files) -> None:
        """Raise PackError where a file that may be run has to be as it was locked, and is not."""
        for reference in references:
            with contextlib.suppress(OSError):  # which is said where it is run
                files.read(Path(spec.directory, reference.file))
        differing = self.verifier.differences(self.pack, spec.name, files)
        if self.verifier.required and differing:
            raise PackError(problems=differing)

    def _fitting(self, spec: KernelSpec, files: Files) -> tuple[Build | None, str]:
        """Return the build if it fits a kernel and this GPU, or None and why not."""
        if self.machine.interpret:
            return None, ""
        if not self.builds:
            return None, f"there is no build for {self.here.name}; run 'kernelpkg build'"
        names = ("kernel.toml", spec.source.file)
        digests = {name: files.digest(Path(spec.directory, name)) for name in names}
        reasons = []
        for build in self.builds:
            wrong = build.problem(self.here.arch, spec.name, digests)
            if wrong is None:
                return build, ""
            reasons.append(f"the build {build.shown} {wrong}")
        return None, "; ".join(reasons)


def _settings(spec: KernelSpec) -> Mapping[str, Any]:
    from kernelpkg.compile import helion

    return helion.check_settings(spec.settings, spec.name)


def _source(spec: KernelSpec, function: Any, files: Files) -> Any:
    """Return the Helion function; of a kernel that is prebuilt, what was read is run now."""
    return function or load_function(Path(spec.directory), spec.source, files)


def _inferred(spec: KernelSpec, function: Any, files: Files) -> Any:
    from kernelpkg.compile import host_code

    path = Path(spec.directory, spec.source.file)
    tree = files.tree(path, spec.source.file)
    if function is not None:
        return host_code.infer_fake(function, tree)
    try:
        return host_code.infer_fake_of(tree, spec.source.name, str(path))
    except Exception:  # the file needs the real Helion to run, or is wrong, which is told then
        return host_code.infer_fake(load_function(Path(spec.directory), spec.source, files))


def _check_requires(spec: KernelSpec) -> None:
    from kernelpkg.compile import helion

    wrong = helion.requires_problem(spec.requires)
    if wrong is not None:
        raise PackError(problems=(problem_at(spec, "KP151", wrong, "helion", "requires"),))


def _references(spec: KernelSpec, *, tests: bool) -> tuple[Reference, ...]:
    """The functions that calls of the op need, the source first, and those that `tests` need."""
    named: list[object] = [spec.source, spec.fake_impl, spec.picker]
    if tests:
        inits = [variant.init for arg in spec.args for variant in arg.variants]
        named += [spec.reference, spec.generator, *inits]
        named += [wanted.holds for wanted in spec.properties.values()]
    return tuple(dict.fromkeys(item for item in named if isinstance(item, Reference)))


def _function(spec: KernelSpec, reference: Reference, pins: Pins, files: Files) -> Any:
    """Load one function of a kernel; raises PackError where its file cannot be run."""
    directory = Path(spec.directory)
    path = directory / reference.file
    found = load_function(directory, reference, files)
    pins.pin(path, files.read(path))
    return found


def _described(
    report: KernelReport,
    pack: PackSpec,
    spec: KernelSpec,
    selection: ConfigSelection,
    machine: Machine,
) -> KernelReport:
    """Fill in how the op will run here, and why not better."""
    own = selection.own() if selection.platform == machine.platform.name else None
    cases, distinct = (0, 0) if own is None else own.file.counts()
    place = None if own is None else directories.locate(pack, spec.name, own.platform)
    mode: Mode = "tuned" if own is not None else "default"
    reason = "" if place is None or not place.overlay else f"configs of {place.shown}"
    if machine.interpret:
        mode = "interpret"
        reason = "HELION_INTERPRET is set"
        if machine.device == "cpu":
            reason = "no GPU" if selection.platform == CPU else "device cpu was asked for"
    elif own is None:
        default = "Helion's own default" if spec.default is None else "[helion] default"
        borrowed = [table.platform for table in selection.tables]
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


def _digest(
    pack: PackSpec, spec: KernelSpec, files: Files, build: Build | None, *, prebuilt: bool
) -> str:
    """The digest of all that makes up the op of a kernel: what was read for it, and its build."""
    platforms = [dict(pack.platforms), pack.variants]
    built = [None if build is None else build.digest, prebuilt]
    return digest_value([spec.digest, platforms, files.digests(Path(pack.root)), built])
