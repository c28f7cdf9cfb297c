"""Manifests to specs: TOML in, frozen values out, every problem of a manifest in one run.

Before: `packs/find`. After: `manifest/kernel`, for each kernel.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from kernelpkg.configs.picker import compile_picker
from kernelpkg.errors import PackError, Problem, counted, pack_error, suggestion
from kernelpkg.expr.language import Expr, without_value
from kernelpkg.files import Files, digest_bytes, read_plain
from kernelpkg.manifest import validate
from kernelpkg.manifest.backward import check_backward
from kernelpkg.manifest.cases import (
    MAX_CASES,
    Case,
    CaseProblem,
    Evaluator,
    count,
    expand,
    guard_problems,
    needed_axes,
    variant_exprs,
)
from kernelpkg.manifest.decode import MISSING
from kernelpkg.manifest.document import Document
from kernelpkg.manifest.guards import contradictions
from kernelpkg.manifest.helion_config import tunables_of
from kernelpkg.manifest.inits import init_problem, takes_numbers
from kernelpkg.manifest.kernel import (
    KernelReader,
    check_identifier,
    read_expr,
)
from kernelpkg.manifest.keys import KERNEL_MANIFEST, PACK_MANIFEST
from kernelpkg.manifest.spec import ArgVariant, KernelName, KernelSpec, PackSpec, Route, Rule
from kernelpkg.manifest.vouched import read_vouched
from kernelpkg.packs.sources import check_references


def read_kernel(
    root: Path, name: str, files: Files | None = None, *, checked: bool = False
) -> KernelSpec:
    """Read `kernels/<name>/kernel.toml` below a root, and check it against its Python files.

    `files` keeps what was read, for whoever runs it next. `checked` says that a lock vouches for
    it: its functions, the agreement of its parts and its cases are not checked again, and what only
    calls need is read when it is first asked for. Raises
    PackError with every problem of the manifest and of the files that it names.
    """
    directory, shown = root / "kernels" / name, f"kernels/{name}/kernel.toml"
    if not directory.is_dir():
        others = kernel_names(root)
        remedy = suggestion(name, others) or f"; 'kernelpkg new {name}' writes one"
        message = f"kernel '{name}' is named by the pack, but does not exist{remedy}"
        raise pack_error(shown, "KP602", message)
    files = files or Files()
    if checked:
        return read_vouched(directory, shown, files)
    document = Document(directory / "kernel.toml", shown, KERNEL_MANIFEST, read_bytes=files.read)
    reader = KernelReader(document, directory)
    spec = reader.read()
    constants = check_references(reader.references, directory, reader.schema, document, files)
    if spec is not None:
        tunables = partial(tunables_of, spec, files)
        validate.check_kernel(spec, document, constants, tunables)
        if spec.backward is not None and not document.incomplete:
            check_backward(spec, spec.backward, document, kernel_names(root), files)
        if document.sound:
            check_cases(spec, document)
    if not document.sound:
        raise PackError(problems=document.problems())
    assert spec is not None
    return spec


def read_pack(
    root: Path, name: str, *, check: Callable[[str, str], None] = lambda *_: None
) -> PackSpec:
    """Read `manifests/<name>.toml` below a root; raises PackError with every problem of it.

    Kernels are named but not read: one that is broken or missing keeps no other from loading.
    `check` takes the path and the digest of what was read, before any of it counts.
    """
    shown = f"manifests/{name}.toml"

    def read_bytes(path: Path) -> bytes:
        content = read_plain(path)
        check(shown, digest_bytes(content))
        return content

    document = Document(root / shown, shown, PACK_MANIFEST, read_bytes=read_bytes)
    spec = _read_pack(document, root, name)
    if not document.sound:
        raise PackError(problems=document.problems())
    return spec


def kernel_names(root: Path) -> tuple[str, ...]:
    """The directories of `kernels/` that hold a manifest, in alphabetical order.

    Raises PackError where `kernels/` cannot be read.
    """
    try:
        names = os.listdir(root / "kernels")
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:
        message = f"directory cannot be read: {error.strerror}; correct its permissions"
        raise pack_error("kernels", "KP001", message) from None
    shown = (name for name in names if not name.startswith("."))
    return tuple(sorted(name for name in shown if _holds_manifest(root / "kernels" / name)))


def _holds_manifest(directory: Path) -> bool:
    """Whether a directory has a manifest; one that cannot be looked into counts, to be told of."""
    try:
        os.stat(directory / "kernel.toml")
    except OSError as error:
        return not isinstance(error, FileNotFoundError | NotADirectoryError)
    return True


def _read_pack(document: Document, root: Path, name: str) -> PackSpec:
    get = document.get
    if get("pack", "name") not in (name, MISSING):
        message = f"pack is named '{get('pack', 'name')}', its file '{name}'"
        document.report(("pack", "name"), "KP101", f"{message}; give both the same name")
    if get("pack", "namespace") is not MISSING:
        check_identifier(document, ("pack", "namespace"), get("pack", "namespace"))
    kernels = _kernels(document, root)
    return PackSpec(
        name=name,
        path=document.shown,
        root=str(root),
        digest=document.digest,
        version=get("pack", "version"),
        namespace=get("pack", "namespace"),
        license=get("pack", "license"),
        kernels=tuple(KernelName(kernel) for kernel in kernels),
        platforms=get("platforms", "names"),
        variants=get("platforms", "variants"),
        models=get("models"),
        vllm_requires=_vllm_requires(document),
        vllm_axes=_vllm_axes(document, kernels),
        routes=_routes(document, kernels),
    )


def _kernels(document: Document, root: Path) -> tuple[str, ...]:
    at = ("pack", "kernels")
    wanted = document.get(*at)
    if wanted is MISSING:
        return ()
    kernels: tuple[str, ...] = kernel_names(root) if wanted == "*" else wanted
    for place, kernel in enumerate(kernels):
        if kernel in kernels[:place]:
            message = f"kernel '{kernel}' is named twice; name it once"
            document.report((*at, place), "KP602", message)
    if not kernels:
        message = "the pack has no kernels; 'kernelpkg new NAME' writes one"
        document.report(at, "KP601", message)
    return kernels


def _vllm_requires(document: Document) -> str:
    text = str(document.get("vllm", "requires", missing=""))
    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        message = f"'{text}' is not a version specifier such as '>=0.33,<0.34'"
        document.report(("vllm", "requires"), "KP608", message)
    return text


def _vllm_axes(
    document: Document, kernels: tuple[str, ...]
) -> Mapping[KernelName, Mapping[str, str]]:
    tables: Mapping[KernelName, Mapping[str, str]] = document.get("vllm", "axes", missing={})
    for kernel in tables:
        if kernel not in kernels and kernels:
            remedy = suggestion(kernel, kernels) or f"; it has {', '.join(kernels)}"
            message = f"names axes of kernel '{kernel}', which the pack does not have{remedy}"
            document.report(("vllm", "axes", kernel), "KP603", message)
    return tables


def _routes(document: Document, kernels: tuple[str, ...]) -> tuple[Route, ...]:
    routes = []
    for target, route in document.get("vllm", "routes", missing={}).items():
        at = ("vllm", "routes", target)
        if route["op"] is not MISSING and route["op"] not in kernels and kernels:
            remedy = suggestion(route["op"], kernels) or f"; it has {', '.join(kernels)}"
            message = f"route '{target}' names op '{route['op']}', which the pack does not have"
            document.report((*at, "op"), "KP603", message + remedy)
        if route["capture_only"] is True and route["eager"]:
            message = f"route '{target}' has conditions on eager calls, but takes none "
            message += "(capture_only); remove one of the two"
            document.report((*at, "eager"), "KP609", message)
        routes.append(
            Route(
                target=target,
                op=route["op"],
                when=_conditions(document, (*at, "when"), route["when"]),
                eager=_conditions(document, (*at, "eager"), route["eager"]),
                capture_only=route["capture_only"],
            )
        )
    return tuple(routes)


def _conditions(document: Document, at: tuple[str | int, ...], texts: Any) -> tuple[Expr, ...]:
    """Read a list of expressions; those that are wrong are reported and left out."""
    given = () if texts is MISSING else texts
    exprs = [read_expr(document, (*at, place), text) for place, text in enumerate(given)]
    return tuple(expr for expr in exprs if expr is not None)


def problem_at(spec: KernelSpec, code: str, message: str, *at: str | int) -> Problem:
    """Return a problem of a key of a manifest that was read before."""
    document = Document(Path(spec.directory) / "kernel.toml", spec.path, KERNEL_MANIFEST)
    return Problem(path=spec.path, line=document.line(*at), code=code, message=message)


def pack_problem(pack: PackSpec, code: str, message: str, *at: str | int) -> Problem:
    """Return a problem of a key of a pack's manifest that was read before."""
    document = Document(Path(pack.root, pack.path), pack.path, PACK_MANIFEST)
    return Problem(path=pack.path, line=document.line(*at), code=code, message=message)


_FIND_THEMSELVES: Final = ("exact", "ceil", "floor", "ranges")
"""Match kinds by which a call equal to a tuned key always gets it; `nearest` by "abs" does too."""


def check_cases(spec: KernelSpec, document: Document) -> None:
    """Report cases that lack an axis, that a guard refuses, that no argument or rule fits.

    Of each grid, the first case that is wrong in one way is told.
    """
    cases = _expanded(spec, document)
    told: set[tuple[int, str]] = set()
    wrong = (*_refused(spec, cases), *unfit(spec, cases), *_contradicted(spec, cases))
    for case, code, what, message in wrong:
        if (case.grid, what) not in told:
            told.add((case.grid, what))
            document.report(("inputs", "grid", case.grid), code, f"case {case}: {message}")
    if document.sound and spec.picker is None and not all(map(_finds_itself, spec.rules)):
        _check_reach(spec, cases, document)


def _expanded(spec: KernelSpec, document: Document) -> list[Case]:
    total = sum(map(count, spec.grids))
    if total > MAX_CASES:
        message = f"[inputs] has {total} cases, and may have {MAX_CASES}; make the grids smaller"
        document.report(("inputs",), "KP147", message)
        return []
    cases: list[Case] = []
    needed = needed_axes(spec)
    for grid in range(len(spec.grids)):
        try:
            cases += expand(spec, grid, needed)
        except CaseProblem as problem:
            document.report(("inputs", "grid", grid), problem.code, str(problem))
    if not cases and document.sound:
        document.report(("inputs",), "KP144", "[inputs] has no cases; add an [[inputs.grid]]")
    return cases


def _refused(spec: KernelSpec, cases: Sequence[Case]) -> Iterator[tuple[Case, str, str, str]]:
    names = {name for guard in spec.guards for name in guard.names()}
    for case, guard, message in guard_problems(spec, _distinct(cases, names)):
        yield case, "KP142", guard.text, f"{message}; change the case or the guard"


def _contradicted(spec: KernelSpec, cases: Sequence[Case]) -> Iterator[tuple[Case, str, str, str]]:
    for case, axis, message in contradictions(spec, cases):
        yield case, "KP145", axis, message


def unfit(spec: KernelSpec, cases: Sequence[Case]) -> Iterator[tuple[Case, str, str, str]]:
    """Yield the cases for which an argument cannot be made, as (case, code, key, message)."""
    if spec.generator is not None:
        return
    evaluate = Evaluator()
    presence = {axis.expr.tested: axis for axis in spec.axes if axis.expr.tested is not None}
    for arg in spec.args:
        optional = spec.schema.arg(arg.name).optional
        axis = presence.get(arg.name) if optional else None
        risky = {id(variant): tuple(_risky(variant)) for variant in arg.variants}
        always = arg.variants and arg.variants[-1].when is None
        bounded = [variant for variant in arg.variants if takes_numbers(variant)]
        if axis is None and always and not any(risky.values()) and not bounded:
            continue
        read = [expr for variant in arg.variants for expr in risky[id(variant)]]
        read += [variant.when for variant in arg.variants if variant.when is not None]
        read += [expr for variant in bounded for expr in variant_exprs(variant)]
        names = {name for expr in read for name in expr.names()}
        names |= set() if axis is None else {axis.name}
        for case in _distinct(cases, names):
            variant = evaluate.variant(arg, case)
            if variant is not None:
                told = 0
                for expr in risky[id(variant)]:
                    wrong = _value_problem(expr, variant, case, evaluate)
                    if wrong is not None:
                        told += 1
                        message = f"'{expr.text}' of argument '{arg.name}' {wrong}"
                        yield case, "KP133", f"{arg.name} {expr.text}", message
                if takes_numbers(variant) and not told:
                    wrong = _init_problem(variant, case, evaluate)
                    if wrong is not None:
                        yield case, "KP133", f"{arg.name} init", f"argument '{arg.name}' {wrong}"
            elif not optional:
                message = f"no variant of argument '{arg.name}' is for it; add one without 'when'"
                yield case, "KP133", arg.name, message
            if axis is not None and axis.name in case.values:
                says = case.values[axis.name] == (" not " in axis.expr.text)
                if says != (variant is not None):
                    message = (
                        f"argument '{arg.name}' is {'not ' if says else ''}given by [args], "
                        f"and {'' if says else 'not '}by axis '{axis.name}'; "
                        f"its 'when' must agree with the axis"
                    )
                    yield case, "KP133", arg.name, message


def _distinct(cases: Iterable[Case], names: Collection[str]) -> Iterator[Case]:
    """Yield the first case of a grid with its values of some axes; the others say nothing new."""
    seen = set()
    for case in cases:
        values = case.values
        mark = (case.grid, *[values.get(name, MISSING) for name in names])
        if mark not in seen:
            seen.add(mark)
            yield case


def _risky(variant: ArgVariant) -> Iterator[Expr]:
    """The expressions of a variant that may have no value, or one below zero."""
    sizes = [dim.expr for dim in variant.shape or ()]
    sizes += [stride for stride in variant.strides or () if stride is not None]
    for expr in (*sizes, variant.low, variant.high, variant.total):
        if expr is not None and (expr.can_fail or expr.names()):
            yield expr
    if variant.value is not None and variant.value.can_fail and variant.value.names():
        yield variant.value


def _init_problem(variant: ArgVariant, case: Case, evaluate: Evaluator) -> str | None:
    """Say why an argument cannot hold in a case what its `init` says, or return None."""
    assert variant.shape is not None and variant.dtype is not None
    value_of = partial(evaluate, values=case.values)
    shape = [value_of(dim.expr) for dim in variant.shape]
    return init_problem(variant, shape, str(value_of(variant.dtype)), value_of)


def _value_problem(expr: Expr, variant: ArgVariant, case: Case, evaluate: Evaluator) -> str | None:
    try:
        value: Any = evaluate(expr, case.values)
    except ArithmeticError as error:
        return without_value(error)
    bounds = (variant.value, variant.low, variant.high, variant.total)  # of these, see `inits`
    if all(expr is not other for other in bounds) and value < 0:
        return f"is {value}, and cannot be below zero"
    return None


def _finds_itself(rule: Rule) -> bool:
    """Whether a call equal to a tuned key surely gets it by this rule, whatever the others do."""
    nearest = rule.match == "nearest" and rule.distance == "abs"
    return nearest or rule.match in _FIND_THEMSELVES


def _check_reach(spec: KernelSpec, cases: Sequence[Case], document: Document) -> None:
    tuned = {case.key(spec): case for case in cases if "tune" in case.use}
    keys = [dict(zip(spec.key_axes, key, strict=True)) for key in tuned]
    kept = list(tuned.values())
    lost: dict[int, list[Case]] = {}
    for place in compile_picker(spec.rules, keys, {}).unreachable():
        lost.setdefault(kept[place].grid, []).append(kept[place])
    for grid, found in lost.items():
        others = f" (nor {counted(len(found) - 1, 'other')})" if len(found) > 1 else ""
        message = f"case {found[0]} would be tuned, but no call could reach it{others}"
        document.report(
            ("inputs", "grid", grid), "KP143", f"{message}; change the case or the rules"
        )


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """Switch the collector off, and back to what it was before, whatever happens in between.

    What a load makes it keeps, and the collector would go through all of it again and again:
    0.7 of 6.2 s of CPU time for 1,000 kernels (2 shared cores, CPython 3.11, 2026-11-22).
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
