"""The rules of a kernel manifest that no single key can break: what must agree with what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from kernelpkg.cases import Case, CaseProblem, expand, guard_problem
from kernelpkg.document import Document
from kernelpkg.errors import suggestion
from kernelpkg.expr import Expr
from kernelpkg.keys import REFUSED_SETTINGS
from kernelpkg.picker import compile_picker
from kernelpkg.source import SourceFile, find_function, read_source, signature_problem
from kernelpkg.spec import KernelSpec, Reference, Rule

_OPTIONS: Final = {
    "distance": ("nearest",),
    "max": ("nearest",),
    "over": ("ceil", "pow2"),
    "under": ("floor",),
    "bounds": ("ranges",),
}


def rule_problems(
    axis: str, table: Mapping[str, Any], axes: Sequence[str], before: Sequence[Rule]
) -> Iterator[tuple[str, str, str]]:
    """Yield (key, code, message) for what is wrong with one axis of a table of [[key]]."""
    match = table["match"]
    if axis not in axes:
        hint = suggestion(axis, axes)
        yield "axis", "KP104", f"key axis '{axis}' is not defined in [axes]{hint}"
    if any(rule.axis == axis for rule in before):
        yield "axis", "KP108", f"key axis '{axis}' has two rules; one axis takes one"
    for option, matches in _OPTIONS.items():
        if table[option] is not None and match not in matches:
            words = " and ".join(f"'{word}'" for word in matches)
            yield (
                option,
                "KP105",
                f"'{option}' says nothing for match '{match}'; it goes with {words}",
            )
    bounds = table["bounds"]
    if match == "ranges" and bounds is None:
        yield "match", "KP105", "match 'ranges' needs 'bounds', the last value of each range"
    if bounds is not None and any(a >= b for a, b in pairwise(bounds)):
        yield "bounds", "KP105", f"'bounds' must rise, and is {list(bounds)}"


def variant_problems(
    name: str, table: Mapping[str, Any], *, tensor: bool
) -> Iterator[tuple[str, str, str]]:
    """Yield (key, code, message) for what is wrong with one table of [args]."""
    given = {key for key, value in table.items() if value is not None}
    if not tensor:
        if "value" not in given:
            yield "", "KP132", f"argument '{name}' is a scalar and needs a 'value'"
        for key in sorted(given - {"when", "value"}):
            yield key, "KP132", f"argument '{name}' is a scalar and takes no '{key}'"
        return
    for key in ("shape", "dtype"):
        if key not in given:
            yield "", "KP132", f"argument '{name}' is a tensor and needs a '{key}'"
    if "value" in given:
        yield (
            "value" if len(given) > 1 else "",
            "KP132",
            (f"argument '{name}' is a tensor and takes no 'value'; 'init' says what it holds"),
        )
    shape, strides = table.get("shape"), table.get("strides")
    spread = [size for size in shape or () if str(size).startswith("*")]
    if len(spread) > 1:
        yield "shape", "KP132", f"argument '{name}': one size of a shape can be spread with '*'"
    if strides is not None and shape is not None and len(strides) != len(shape):
        yield (
            "strides",
            "KP132",
            (f"argument '{name}' has {len(shape)} sizes and {len(strides)} strides"),
        )
    if strides is not None and spread:
        yield "strides", "KP132", f"argument '{name}': a spread shape takes no 'strides'"
    if (table.get("init") == "randint") != ("high" in given):
        yield "init", "KP132", f"argument '{name}': init 'randint' and 'high' go together"


def check_kernel(spec: KernelSpec, document: Document) -> None:
    """Report everything in which the parts of a spec do not agree."""
    _check_names(spec, document)
    _check_uses(spec, document)
    _check_presence(spec, document)
    _check_writes(spec, document)
    _check_helion(spec, document)
    _check_references(spec, document)
    if document.sound:
        _check_cases(spec, document)


def _check_names(spec: KernelSpec, document: Document) -> None:
    """A name that is both an axis and an argument must mean the same thing."""
    for axis in spec.axes:
        if axis.name in spec.schema.arg_names and axis.expr.text != axis.name:
            document.report(
                ("axes", axis.name),
                "KP108",
                f"'{axis.name}' is an argument and an axis that means '{axis.expr.text}'; "
                "give the axis another name",
            )


def _check_uses(spec: KernelSpec, document: Document) -> None:
    used = set(spec.key_axes)
    exprs = [*spec.guards]
    for arg in spec.args:
        for variant in arg.variants:
            exprs += [dim.expr for dim in variant.shape or ()]
            exprs += [stride for stride in variant.strides or () if stride is not None]
            scalars = (variant.when, variant.dtype, variant.value, variant.high)
            exprs += [expr for expr in scalars if isinstance(expr, Expr)]
            if isinstance(variant.init, Reference):
                used.update(axis.name for axis in spec.axes)
    used.update(name for expr in exprs for name in expr.names())
    if spec.picker is not None or spec.generator is not None:
        return
    for axis in spec.axes:
        if axis.name not in used:
            document.report(
                ("axes", axis.name),
                "KP106",
                f"axis '{axis.name}' is used by no rule, guard or argument; remove it",
            )


def _check_presence(spec: KernelSpec, document: Document) -> None:
    exact = {rule.axis for rule in spec.rules if rule.match == "exact"}
    presence = {axis.expr.text: axis.name for axis in spec.axes}
    for arg in spec.schema.args:
        if not (arg.is_tensor and arg.optional):
            continue
        texts = (f"{arg.name} is not None", f"{arg.name} is None")
        axis = next((presence[text] for text in texts if text in presence), None)
        if axis is None:
            document.report(
                ("axes",),
                "KP107",
                f"optional tensor '{arg.name}' has no axis for its presence; add "
                f'has_{arg.name} = "{texts[0]}", for lists of a config shift without it',
            )
        elif axis not in exact and spec.picker is None:
            document.report(
                ("axes", axis),
                "KP107",
                f"axis '{axis}' tells whether '{arg.name}' is given and needs a rule with "
                "match 'exact', for lists of a config shift without it",
            )


def _check_writes(spec: KernelSpec, document: Document) -> None:
    written = (*spec.schema.written, *(("return",) if spec.schema.returns else ()))
    for name in spec.accuracy:
        if name not in written:
            document.report(
                ("accuracy", name),
                "KP109",
                f"'{name}' is not written by the op{suggestion(name, written)}",
            )
    for name in written:
        if name not in spec.accuracy:
            document.report(
                ("accuracy",), "KP109", f"'{name}' is written by the op and has no [accuracy]"
            )
    if not written:
        document.report(("op", "schema"), "KP102", "schema of an op that writes nothing")
    if (spec.fake_impl == "none") != (spec.schema.returns == 0):
        has = "returns nothing" if spec.schema.returns == 0 else "returns a tensor"
        wants = "'none'" if spec.schema.returns == 0 else "'infer' or a function"
        document.report(("op", "fake_impl"), "KP102", f"the op {has}, so fake_impl must be {wants}")


def _check_helion(spec: KernelSpec, document: Document) -> None:
    for setting in spec.settings:
        if setting in REFUSED_SETTINGS:
            document.report(
                ("helion", "settings", setting),
                "KP150",
                f"setting '{setting}' is made from the rules by kernelpkg; remove it",
            )
    for name, value in (spec.default or {}).items():
        if isinstance(value, tuple) and name != "block_sizes":
            document.report(
                ("helion", "default", name),
                "KP152",
                f"default config has a list '{name}'; scalars and block_sizes only, for lists "
                "belong to one set of given arguments",
            )


def _check_references(spec: KernelSpec, document: Document) -> None:
    places: list[tuple[tuple[str | int, ...], Reference | str | None]] = [
        (("kernel", "source"), spec.source),
        (("kernel", "reference"), spec.reference),
        (("kernel", "picker"), spec.picker),
        (("op", "fake_impl"), spec.fake_impl),
        (("inputs", "generator"), spec.generator),
    ]
    for arg in spec.args:
        for variant in arg.variants:
            if isinstance(variant.init, Reference):
                places.append((("args", arg.name), variant.init))
    files: dict[str, SourceFile | None] = {}
    directory = Path(spec.directory)
    for at, reference in places:
        if not isinstance(reference, Reference):
            continue
        if reference.file not in files:
            files[reference.file] = _read(spec, directory, reference, at, document)
        file = files[reference.file]
        if file is None or file.problems:
            continue
        function = find_function(file, reference.name)
        if isinstance(function, str):
            document.report(at, "KP112", f"'{reference}': {function}")
        elif at == ("kernel", "source"):
            wrong = signature_problem(function, spec.schema)
            if wrong is not None:
                document.report(
                    ("op", "schema"), "KP103", f"{wrong} ({file.shown}:{function.lineno})"
                )


def _read(
    spec: KernelSpec,
    directory: Path,
    reference: Reference,
    at: tuple[str | int, ...],
    document: Document,
) -> SourceFile | None:
    path = directory / reference.file
    if not path.resolve().is_relative_to(directory.resolve()):
        document.report(
            at, "KP110", f"'{reference}' leaves the directory of its kernel; move the file into it"
        )
        return None
    shown = f"kernels/{directory.name}/{reference.file}"
    try:
        file = read_source(path, shown, helion=reference.file == spec.source.file)
    except OSError as error:
        document.report(at, "KP111", f"'{reference}': {shown} cannot be read: {error.strerror}")
        return None
    for problem in file.problems:
        document.report_elsewhere(problem)
    return file


def _check_cases(spec: KernelSpec, document: Document) -> None:
    cases: list[Case] = []
    for grid in range(len(spec.grids)):
        at = ("inputs", "grid", grid)
        try:
            cases += expand(spec, grid)
        except CaseProblem as problem:
            document.report(at, problem.code, str(problem))
    if not cases:
        if document.sound:
            document.report(("inputs",), "KP144", "[inputs] has no cases; add an [[inputs.grid]]")
        return
    for case in cases:
        wrong = guard_problem(spec, case)
        if wrong is not None:
            document.report(("inputs", "grid", case.grid), "KP142", f"case {case}: {wrong}")
    if spec.picker is None and spec.rules:
        _check_reach(spec, cases, document)


def _check_reach(spec: KernelSpec, cases: Sequence[Case], document: Document) -> None:
    tuned = {case.key(spec): case for case in cases if "tune" in case.use}
    keys = [dict(zip(spec.key_axes, key, strict=True)) for key in tuned]
    kept = list(tuned.values())
    for place in compile_picker(spec.rules, keys, {}).unreachable():
        document.report(
            ("inputs", "grid", kept[place].grid),
            "KP143",
            f"case {kept[place]} would be tuned, and no call could reach it",
        )
