"""Level 1 of a check: every variant bound on the CPU, and configs held against what they bind to.

What only a GPU can tell is unverified.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import define, evolve, field

from kernelpkg.bench.inputs import make_inputs
from kernelpkg.check.causes import Occurrence, once_each
from kernelpkg.check.config_fit import fit, overfull
from kernelpkg.compile import helion
from kernelpkg.compile.bind import MOST, Binder, Binding, NoInputs, Target, Unbound
from kernelpkg.compile.variants import FiledConfig, Variant, filed_configs, known_cases, variants_of
from kernelpkg.configs import directories
from kernelpkg.configs.platforms import CPU, Platform, platform_of
from kernelpkg.errors import (
    Checked,
    PackError,
    Problem,
    Progress,
    RegistrationError,
    Severity,
    counted,
    error_line,
)
from kernelpkg.expr.language import Expr
from kernelpkg.jobs.pool import Job, cores, run_jobs
from kernelpkg.manifest.cases import Case, CaseProblem, Evaluator, uses_function
from kernelpkg.manifest.helion_config import Config
from kernelpkg.manifest.spec import KernelSpec, PackSpec, Reference
from kernelpkg.packs.read import problem_at, read_kernel, read_pack
from kernelpkg.packs.signature import constant_axes
from kernelpkg.packs.sources import raised_in, read_source

_EACH: Final = 2
"""How many kernels a process is started for at least: it takes 5 to 10 s to import Helion in one,
which is as long as binding two or three takes (2026-12-01)."""

_TIMEOUT: Final = 600.0
"""Seconds that one kernel may take; the slowest of the first pack takes 12."""


def check_bindings(
    pack: PackSpec,
    specs: Sequence[KernelSpec],
    platforms: Sequence[str] | None = None,
    progress: Progress = lambda *_: None,
    jobs: int | None = None,
) -> Checked:
    """Bind the variants of kernels, and check all of their configs that way.

    `platforms` are those whose configs are looked at; with none, all. `jobs` is how many processes
    work; by default one per core, each for two kernels or more. A single one is this process.
    """
    count = min(jobs or min(cores(), len(specs) // _EACH), len(specs))
    if count < 2:
        found = []
        for number, spec in enumerate(specs):
            progress(f"binding {spec.name}", number, len(specs))
            found.append(check_kernel(pack, spec, platforms))
    else:
        found = list(_spread(pack, specs, platforms, progress, count))
    progress("bound", len(specs), len(specs))
    return Checked(
        findings=tuple(finding for checked in found for finding in checked.findings),
        counts={
            name: sum(checked.counts[name] for checked in found)
            for name in ("variants", "bindings", "normalised")
        },
    )


def _spread(
    pack: PackSpec,
    specs: Sequence[KernelSpec],
    platforms: Sequence[str] | None,
    progress: Progress,
    count: int,
) -> Iterator[Checked]:
    here = {"root": pack.root, "pack": pack.name, "overlays": pack.overlays, "platforms": platforms}
    work = [
        Job(id=spec.name, payload={**here, "kernel": spec.name}, timeout=_TIMEOUT) for spec in specs
    ]
    by_name = {str(spec.name): spec for spec in specs}
    devices = [f"cpu:{number}" for number in range(count)]
    progress(f"starting {counted(count, 'process', 'processes')}", 0, len(specs))
    for number, outcome in enumerate(run_jobs(work, "kernelpkg.check.level1:perform", devices), 1):
        progress(f"bound {outcome.job.id}", number, len(specs))
        if outcome.status == "done":
            findings = tuple(Problem(**finding) for finding in outcome.value["findings"])
            yield Checked(findings=findings, counts=outcome.value["counts"])
        else:
            check = _KernelCheck(pack=pack, spec=by_name[outcome.job.id])
            ended = f"binding it ended in '{outcome.status}': {outcome.reason}"
            check.source("KP240", f"{ended}; correct the function")
            yield check.result()


def perform(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Check one kernel in a process of its own; takes and returns JSON."""
    root = Path(payload["root"])
    pack = evolve(read_pack(root, payload["pack"]), overlays=tuple(payload["overlays"]))
    checked = check_kernel(pack, read_kernel(root, payload["kernel"]), payload["platforms"])
    findings = [finding.to_json() for finding in checked.findings]
    return {"findings": findings, "counts": dict(checked.counts)}


def check_kernel(
    pack: PackSpec, spec: KernelSpec, platforms: Sequence[str] | None = None
) -> Checked:
    """Check one kernel and its configs."""
    check = _KernelCheck(pack=pack, spec=spec)
    try:
        check.run(platforms)
    except RegistrationError as error:
        check.manifest("KP153", str(error), "helion", "settings")
    except PackError as error:
        check.found += [evolve(problem, level=1) for problem in error.problems]
    return check.result()


def restricted(pack: PackSpec, spec: KernelSpec, platforms: Sequence[str] | None) -> list[Platform]:
    """The platforms whose configs are looked at; what runs interpreted has none to check."""
    try:
        names = directories.platforms_of(pack, spec.name)
    except PackError:  # level 0 tells it
        return []
    return [
        evolve(platform_of(pack, name), name=name)
        for name in names
        if name != CPU and (not platforms or name in platforms)
    ]


@define(kw_only=True)
class _KernelCheck:
    """One kernel in work: what was found, each thing once."""

    pack: PackSpec
    spec: KernelSpec
    found: list[Problem] = field(factory=list)
    occurred: list[Occurrence] = field(factory=list)
    unfed: bool = False
    variants: int = 0
    normalised: int = 0
    binder: Binder | None = None

    def result(self) -> Checked:
        bindings = 0 if self.binder is None else self.binder.count()
        counts = {"variants": self.variants, "bindings": bindings, "normalised": self.normalised}
        found = dict.fromkeys([*self.found, *once_each(self.occurred)])
        return Checked(findings=tuple(found), counts=counts)

    def add(self, path: str, line: int, code: str, message: str, severity: Severity) -> None:
        self.found.append(
            Problem(path=path, line=line, code=code, message=message, severity=severity, level=1)
        )

    def manifest(
        self, code: str, message: str, *at: str | int, severity: Severity = "error"
    ) -> None:
        problem = problem_at(self.spec, code, message, *at)
        self.add(problem.path, problem.line, code, message, severity)

    def source(self, code: str, message: str) -> None:
        """Add an error of the Helion function as a whole."""
        self.add(*self.function(self.spec.source), code, message, "error")

    def function(self, reference: Reference) -> tuple[str, int]:
        """Return the file and the line of a function of the kernel."""
        return f"kernels/{self.spec.name}/{reference.file}", self.definition(reference).lineno

    def definition(self, reference: Reference | None = None) -> ast.FunctionDef:
        """Return a function of the kernel as a tree, its Helion function unless one is given."""
        found, source = reference or self.spec.source, self.spec.source
        path = Path(self.spec.directory, found.file)
        return read_source(path, "", helion=found.file == source.file).functions[found.name]

    def occur(
        self,
        case: Case,
        place: tuple[str, int],
        code: str,
        label: str,
        message: str,
        severity: Severity = "error",
    ) -> None:
        """Add what one case shows; its label ends with the case."""
        path, line = place
        problem = Problem(
            path=path, line=line, code=code, message=message, severity=severity, level=1
        )
        one = Occurrence(problem=problem, label=f"{label} {case}", size=case.size())
        self.occurred.append(one)

    def run(self, platforms: Sequence[str] | None) -> None:
        wrong = helion.requires_problem(self.spec.requires)
        if wrong is not None:
            message = f"{wrong}, so its code and configs cannot be checked"
            self.manifest("KP248", message, "helion", "requires", severity="unverified")
            return
        self.binder = Binder(self.spec)
        places = restricted(self.pack, self.spec, platforms)
        filed = [(p, filed_configs(self.pack, self.spec, p.name)) for p in places]
        cases = [*known_cases(self.spec)]
        cases += [c for _, made in filed for one in made for v in one.variants for c in v.cases]
        variants = variants_of(self.spec, cases)
        self.variants = len(variants)
        targets = [Target.of(platform) for platform in places]
        first = max(targets, key=Target.known, default=Target(capability=(9, 0)))
        self.inputs(variants_of(self.spec, known_cases(self.spec)))
        bound = {variant.facts: self.bind(variant, first, both=False) for variant in variants}
        pairs = [(variant, found) for variant in variants for found in bound[variant.facts]]
        self.specialised(pairs)
        self.default(pairs)
        whole = {variant.facts: variant for variant in variants}
        for platform, made in filed:
            target = Target.of(platform)
            if target.capability is None and made:
                message = f"what Helion makes of configs for {platform.name} " + (
                    f"({platform.arch}) cannot be checked without the GPU"
                    if platform.arch
                    else "cannot be checked, because its architecture is not known"
                )
                self.add(made[0].path, 0, "KP248", message, "unverified")
            for one in made:
                pairs = [
                    (variant, binding)
                    for variant in one.variants
                    for binding in self.bindings(one.config, variant, whole[variant.facts], target)
                ]
                self.occurred += fit(one, platform, pairs)
                self.normalised += len(pairs)

    def inputs(self, variants: Sequence[Variant]) -> None:
        """Let functions of the kernel make inputs of its own cases, where it has any."""
        if self.spec.generator is None and not uses_function(self.spec):
            return
        ends = [(one.smallest, one.largest, min(one.cases, key=Case.size)) for one in variants]
        for case in {id(case): case for found in ends for case in found}.values():
            if case.size() > MOST:
                continue
            try:
                make_inputs(self.spec, case)
            except CaseProblem as error:
                place = problem_at(self.spec, error.code, "", "inputs")
                at = (place.path, place.line)
                wrong = str(error).removeprefix(f"case {case}: ")
                message = f": {wrong}; correct their function"
                self.occur(case, at, error.code, "inputs of", message)
            except Exception as error:  # whatever the function raises
                self.unmade(case, error)

    def unmade(self, case: Case, error: Exception) -> None:
        """Add what a function of the kernel raises; where a GPU is asked for, it is no error."""
        lacks = isinstance(error, NotImplementedError | MemoryError) or "CUDA" in str(error)
        file, line = raised_in(error, Path(self.spec.directory))
        inits = [variant.init for arg in self.spec.args for variant in arg.variants]
        functions = [f for f in (self.spec.generator, *inits) if isinstance(f, Reference)]
        place = (f"kernels/{self.spec.name}/{file}", line) if file else self.function(functions[0])
        self.occur(
            case,
            place,
            "KP248" if lacks else "KP249",
            "no inputs are made for",
            f": {error_line(error)}; {'check it on a GPU' if lacks else 'correct the function'}",
            "unverified" if lacks else "error",
        )
        self.unfed = True

    def bind(self, variant: Variant, target: Target, *, both: bool) -> list[Binding]:
        """Bind the largest case of a variant, and where `both`, the smallest; what works of it."""
        assert self.binder is not None
        found = []
        cases = (variant.largest, variant.smallest) if both else (variant.largest,)
        for case in cases:
            try:
                found.append(self.binder.bind(case, target))
            except Unbound as error:
                path, line = self.function(self.spec.source)
                message = f": {error}; correct the function"
                self.occur(case, (path, error.line or line), "KP240", "does not bind for", message)
                break
            except NoInputs as error:
                if not self.unfed:
                    place = self.function(self.spec.source)
                    message = f" cannot be told: {error}"
                    self.occur(case, place, "KP248", "what becomes of", message, "unverified")
        return found

    def bindings(
        self, config: Config, own: Variant, whole: Variant, target: Target
    ) -> list[Binding]:
        """Return what a variant of a config binds to.

        Where sizes decide, the config's own are bound: they may change which lists there are, or
        a block be larger than the smallest of them, or a grid too long for its kind of program
        ids. Elsewhere any sizes do.
        """
        found = self.bind(whole, target, both=True)
        if len({tuple(binding.lengths.items()) for binding in found}) > 1:
            return self.bind(own, target, both=True)
        kind = config.get("pid_type", "flat")
        if any(overfull(config, b) or kind not in b.choices["pid_type"] for b in found):
            return self.bind(own, target, both=False)
        return found[:1]

    def specialised(self, pairs: list[tuple[Variant, Binding]]) -> None:
        """Check that `specialize` says what Helion makes constants of the code, in every call."""
        stated = self.spec.specialize
        found = [(variant, specialised_axes(self.spec, binding)) for variant, binding in pairs]
        for place, name in enumerate(stated):
            variant = next((variant for variant, axes in found if name not in axes), None)
            if variant is not None:
                message = (
                    f"specialize names axis '{name}', and Helion specialises no size that tells it "
                    f"for {str(variant) or 'any call'}; remove it, or call hl.specialize in the "
                    "kernel, whatever the call"
                )
                self.manifest("KP247", message, "helion", "specialize", place)
        everywhere = frozenset[str].intersection(*(axes for _, axes in found)) if found else ()
        unnamed = {*everywhere} - {*stated} - constant_axes(self.spec, self.definition())
        lacking = [axis.name for axis in self.spec.axes if axis.name in unnamed]
        if lacking:
            listed = ", ".join(f'"{name}"' for name in (*stated, *lacking))
            message = (
                f"Helion specialises {' and '.join(lacking)}, which specialize does not name; "
                f"write specialize = [{listed}]"
            )
            self.manifest("KP247", message, "helion", "specialize")

    def default(self, pairs: list[tuple[Variant, Binding]]) -> None:
        """Check the default config, which every variant may get."""
        if self.spec.default is None:
            return
        lines = {
            at: problem_at(self.spec, "KP243", "", "helion", "default", *filter(None, (at,))).line
            for at in ("", *self.spec.default)
        }
        filed = FiledConfig(
            path=self.spec.path,
            place=-1,
            lines=lines,
            platform="",
            config=self.spec.default,
            variants=tuple(variant for variant, _ in pairs),
        )
        anywhere = Platform(name="", gpu="", base="", arch="sm_90")
        self.occurred += fit(filed, anywhere, pairs)
        lists = [n for n, v in self.spec.default.items() if isinstance(v, tuple)]
        name = next((name for name in lists if name != "block_sizes"), None)
        first = next(iter(pairs), None)
        other = next((v for v, b in pairs if first and b.lengths != first[1].lengths), None)
        if name is not None and first is not None and other is not None:
            message = (
                f"[helion] default has a list in '{name}', and code of {other} has other parts "
                f"than that of {first[0]}; leave it out, because a default serves both"
            )
            self.add(self.spec.path, lines[name], "KP246", message, "error")
        self.normalised += len(pairs)


def specialised_axes(spec: KernelSpec, binding: Binding) -> frozenset[str]:
    """Return the axes that have one value in all calls which share the code of a binding.

    They are numbers and sizes that Helion's key has, and what follows from these by [args]. Sizes
    that a shape spreads do not count: their product says nothing of each.
    """
    whole = {name for name, values in spec.axis_types.items() if values.kind == "whole"}
    known = {axis.name for axis in spec.axes} - whole
    exprs: list[Expr] = []
    for arg in spec.args:
        fixed = binding.specialised.get(arg.name, ())
        variant = Evaluator().variant(arg, binding.case)
        if variant is None or variant.shape is None:
            known |= {axis.name for axis in spec.axes if _is_fixed(axis.expr, arg.name, fixed)}
            continue
        spread = next((place for place, dim in enumerate(variant.shape) if dim.spread), None)
        before = variant.shape[:spread]
        behind = () if spread is None else variant.shape[:spread:-1]
        exprs += [dim.expr for dim, sure in zip(before, fixed, strict=False) if sure]
        exprs += [dim.expr for dim, sure in zip(behind, fixed[::-1], strict=False) if sure]
    while more := {name for expr in exprs for name in _solved(expr.tree, known)} - known:
        known |= more
    return frozenset(known & whole)


def _is_fixed(expr: Expr, name: str, fixed: Sequence[bool]) -> bool:
    """Whether an axis is a number that is fixed, or such an element of a list."""
    match expr.tree:
        case ast.Name(id=read):
            return read == name and any(fixed)
        case ast.Subscript(value=ast.Name(id=read), slice=ast.Constant(value=int(place))):
            return read == name and place < len(fixed) and fixed[place]
    return False


def _solved(tree: ast.expr, known: Collection[str]) -> set[str]:
    """Return the name whose value follows from that of an expression, all others being known."""

    def is_known(node: ast.expr) -> bool:
        return all(part.id in known for part in ast.walk(node) if isinstance(part, ast.Name))

    match tree:
        case ast.Name(id=name):
            return {name}
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult(), right=right):
            if is_known(left):
                return _solved(right, known)
            return _solved(left, known) if is_known(right) else set()
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _solved(operand, known)
    return set()
