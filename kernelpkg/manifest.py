"""Manifests to specs: TOML in, frozen values out, every problem of a manifest in one run."""

from __future__ import annotations

import keyword
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from kernelpkg import consistency
from kernelpkg.codec import MISSING
from kernelpkg.document import Document
from kernelpkg.errors import PackError, Problem, suggestion
from kernelpkg.expr import DTYPES, Expr, ExprError, Scope, parse_expr, scope_problems
from kernelpkg.keys import KERNEL_MANIFEST, PACK_MANIFEST, USES
from kernelpkg.opschema import NO_DEFAULT, OpSchema, SchemaError, parse_schema
from kernelpkg.positions import TomlPath
from kernelpkg.spec import (
    Accuracy,
    ArgSpec,
    ArgVariant,
    Axis,
    Dim,
    Grid,
    KernelName,
    KernelSpec,
    PackSpec,
    Reference,
    Route,
    Rule,
)

_ANY: Final = "*"


def read_kernel(root: Path, name: str) -> KernelSpec:
    """Read `kernels/<name>/kernel.toml` below a root, and check it against its Python files.

    Raises PackError with every problem of the manifest and of the files that it names.
    """
    directory = root / "kernels" / name
    document = Document(directory / "kernel.toml", f"kernels/{name}/kernel.toml", KERNEL_MANIFEST)
    spec = _KernelReader(document, directory).read()
    if spec is not None:
        consistency.check_kernel(spec, document)
    if not document.sound:
        raise PackError(problems=document.problems())
    assert spec is not None
    return spec


def read_pack(root: Path, name: str) -> PackSpec:
    """Read `manifests/<name>.toml` below a root; raises PackError with every problem of it.

    Kernels are named but not read: one that is broken keeps no other from loading.
    """
    shown = f"manifests/{name}.toml"
    document = Document(root / shown, shown, PACK_MANIFEST)
    spec = _read_pack(document, root, name)
    if not document.sound:
        raise PackError(problems=document.problems())
    return spec


def kernel_names(root: Path) -> tuple[str, ...]:
    """The directories of `kernels/` that hold a manifest, in alphabetical order."""
    return tuple(sorted(path.parent.name for path in root.glob("kernels/*/kernel.toml")))


def _read_pack(document: Document, root: Path, name: str) -> PackSpec:
    get = document.get
    if get("pack", "name") not in (name, MISSING):
        document.report(
            ("pack", "name"), "KP101", f"pack is named '{get('pack', 'name')}', its file '{name}'"
        )
    found = kernel_names(root)
    wanted = get("pack", "kernels")
    kernels = found if wanted == "*" else () if wanted is MISSING else wanted
    for place, kernel in enumerate(kernels):
        if kernel in kernels[:place]:
            document.report(
                ("pack", "kernels", place), "KP602", f"kernel '{kernel}' is named twice"
            )
        if kernel not in found:
            document.report(
                ("pack", "kernels", place),
                "KP602",
                f"kernel '{kernel}' has no kernels/{kernel}/kernel.toml{suggestion(kernel, found)}",
            )
    if not kernels and wanted is not MISSING:
        document.report(
            ("pack", "kernels"),
            "KP601",
            "pack has no kernels; 'kernelpkg new NAME' writes one",
        )
    if get("pack", "namespace") is not MISSING:
        _check_identifier(document, ("pack", "namespace"), get("pack", "namespace"))
    routes = []
    for target, route in (get("vllm", "routes") or {}).items():
        if route["op"] not in (*kernels, MISSING):
            document.report(
                ("vllm", "routes", target, "op"),
                "KP603",
                f"route '{target}' names op '{route['op']}', which the pack does not have"
                + suggestion(route["op"], kernels),
            )
        when = [
            _parse(document, ("vllm", "routes", target, "when", place), text)
            for place, text in enumerate(route["when"] if route["when"] is not MISSING else ())
        ]
        routes.append(
            Route(
                target=target,
                op=route["op"],
                when=tuple(expr for expr in when if expr is not None),
                capture_only=route["capture_only"],
            )
        )
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
        routes=tuple(routes),
    )


def _parse(document: Document, at: TomlPath, text: str) -> Expr | None:
    try:
        return parse_expr(text)
    except ExprError as error:
        document.report(at, "KP120", f"expression '{text}' {error}")
        return None


def _check_identifier(document: Document, at: TomlPath, name: str) -> None:
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        document.report(at, "KP101", f"'{name}' is a keyword of Python; choose another name")


class _KernelReader:
    """Builds the spec of one kernel out of its decoded document."""

    def __init__(self, document: Document, directory: Path) -> None:
        self.document = document
        self.directory = directory
        self.get = document.get
        self.report = document.report
        self.schema = self._schema()
        axes = self.get("axes")
        self.axis_names: tuple[str, ...] = () if axes is MISSING else tuple(axes)
        self.over_args = self._scope(axes=())
        self.over_axes = Scope(axes=frozenset(self.axis_names))
        self.over_both = self._scope(axes=self.axis_names)

    def read(self) -> KernelSpec | None:
        """Return the spec, or None where the document is too broken to make one."""
        self._check_name()
        parts: dict[str, Any] = {
            "name": self.get("kernel", "name"),
            "path": self.document.shown,
            "directory": str(self.directory),
            "digest": self.document.digest,
            "version": self.get("kernel", "version"),
            "summary": self.get("kernel", "summary"),
            "source": self._reference("kernel", "source") or self._own_source(),
            "reference": self._reference("kernel", "reference"),
            "picker": self._reference("kernel", "picker"),
            "schema": self.schema,
            "fake_impl": self._fake_impl(),
            "requires": self.get("helion", "requires"),
            "settings": self.get("helion", "settings"),
            "default": self.get("helion", "default"),
            "axes": self._axes(),
            "guards": self._guards(),
            "rules": self._rules(),
            "miss": "default" if self.get("miss") is None else self.get("miss", "action"),
            "defaults": self.get("inputs", "default"),
            "grids": self._grids(),
            "generator": self._reference("inputs", "generator"),
            "args": self._args(),
            "accuracy": self._accuracy(),
        }
        if any(part is MISSING for part in parts.values()) or not self.document.sound:
            return None
        return KernelSpec(**parts)

    def _check_name(self) -> None:
        name = self.get("kernel", "name")
        if name is MISSING:
            return
        if name != self.directory.name:
            self.report(
                ("kernel", "name"),
                "KP101",
                f"kernel is named '{name}', its directory '{self.directory.name}'; "
                "give both the same name",
            )
        _check_identifier(self.document, ("kernel", "name"), name)

    def _schema(self) -> OpSchema | Any:
        text = self.get("op", "schema")
        if text is MISSING:
            return MISSING
        try:
            return parse_schema(text)
        except SchemaError as error:
            self.report(("op", "schema"), "KP102", f"schema {error}")
            return MISSING

    def _scope(self, axes: tuple[str, ...]) -> Scope:
        args = () if self.schema is MISSING else self.schema.args
        return Scope(
            tensors=frozenset(arg.name for arg in args if arg.is_tensor),
            scalars=frozenset(arg.name for arg in args if not arg.is_tensor),
            optional=frozenset(arg.name for arg in args if arg.optional),
            axes=frozenset(axes),
        )

    def _reference(self, *at: str) -> Reference | Any:
        text = self.get(*at)
        if text is MISSING or text is None:
            return text
        file, _, name = text.rpartition(":")
        return Reference(file=file, name=name)

    def _own_source(self) -> Reference:
        return Reference(file="kernel.py", name=self.directory.name)

    def _fake_impl(self) -> Any:
        text = self.get("op", "fake_impl")
        return text if text in ("none", "infer") else self._reference("op", "fake_impl")

    def _expr(self, at: TomlPath, text: str | int, scope: Scope) -> Expr | None:
        expr = _parse(self.document, at, str(text))
        if expr is None or self.schema is MISSING:
            return expr
        for name, wrong in scope_problems(expr, scope):
            remedy = wrong or f"name '{name}' is not known here{self._known(name, scope)}"
            self.report(at, "KP121", f"expression '{text}': {remedy}")
        return expr

    def _known(self, name: str, scope: Scope) -> str:
        words = [*scope.known(), *DTYPES]
        return suggestion(name, words) or f"; known are {', '.join(scope.known()) or 'none'}"

    def _axes(self) -> tuple[Axis, ...]:
        found = []
        axes = self.get("axes")
        for name, text in ({} if axes is MISSING else axes).items():
            if name in DTYPES or keyword.iskeyword(name):
                self.report(
                    ("axes", name), "KP108", f"axis '{name}' has the name of a dtype or keyword"
                )
            expr = self._expr(("axes", name), text, self.over_args)
            if expr is not None:
                found.append(Axis(name=name, expr=expr))
        return tuple(found)

    def _guards(self) -> tuple[Expr, ...]:
        texts = () if self.get("guard") is None else self.get("guard", "when")
        found = [
            self._expr(("guard", "when", place), text, self.over_both)
            for place, text in enumerate(() if texts is MISSING else texts)
        ]
        return tuple(expr for expr in found if expr is not None)

    def _rules(self) -> tuple[Rule, ...]:
        rules: list[Rule] = []
        tables = self.get("key")
        for place, table in enumerate(() if tables is MISSING else tables):
            if any(value is MISSING for value in table.values()):
                continue
            options = {key: value for key, value in table.items() if value is not None}
            axes = options.pop("axis")
            for axis in (axes,) if isinstance(axes, str) else axes:
                problems = consistency.rule_problems(axis, table, self.axis_names, rules)
                for key, code, message in problems:
                    self.report(("key", place, key), code, message)
                rules.append(Rule(axis=axis, **options))
        return tuple(rules)

    def _grids(self) -> tuple[Grid, ...]:
        tables = self.get("inputs", "grid")
        found = []
        for place, table in enumerate(() if tables is MISSING else tables):
            axes = {key: value for key, value in table.items() if key not in ("use", "rows")}
            if table["use"] is MISSING or table["rows"] is MISSING:
                continue
            for axis in (*axes, *(axis for row in table["rows"] for axis in row)):
                self._check_axis(("inputs", "grid", place, axis), axis)
            found.append(Grid(use=tuple(table["use"] or USES), axes=axes, rows=table["rows"]))
        defaults = self.get("inputs", "default")
        for axis in {} if defaults is MISSING else defaults:
            self._check_axis(("inputs", "default", axis), axis)
        return tuple(found)

    def _check_axis(self, at: TomlPath, axis: str) -> None:
        if axis not in self.axis_names:
            hint = suggestion(axis, self.axis_names)
            self.report(at, "KP140", f"axis '{axis}' is not defined in [axes]{hint}")

    def _args(self) -> tuple[ArgSpec, ...] | Any:
        given = self.get("args")
        if given is MISSING or self.schema is MISSING:
            return MISSING
        names = self.schema.arg_names
        for name in given:
            if name not in names:
                hint = suggestion(name, names)
                self.report(
                    ("args", name), "KP131", f"argument '{name}' is not in the schema{hint}"
                )
        return tuple(self._arg(arg.name, given) for arg in self.schema.args)

    def _arg(self, name: str, given: Mapping[str, Any]) -> ArgSpec:
        if name in given:
            return ArgSpec(name=name, variants=tuple(self._variants(name, given[name])))
        arg = self.schema.arg(name)
        if name in self.axis_names and not arg.is_tensor:
            return ArgSpec(name=name, variants=(ArgVariant(value=parse_expr(name)),))
        if not arg.is_tensor and arg.default is not NO_DEFAULT:
            return ArgSpec(name=name, variants=(ArgVariant(value=parse_expr(repr(arg.default))),))
        remedy = "a shape and a dtype" if arg.is_tensor else "a value, or an axis of its name"
        self.report(("args",), "KP130", f"argument '{name}' is not given in [args]; give {remedy}")
        return ArgSpec(name=name, variants=())

    def _variants(self, name: str, entry: Any) -> Iterator[ArgVariant]:
        tables = entry if isinstance(entry, tuple) else (entry,)
        tensor = self.schema.arg(name).is_tensor if name in self.schema.arg_names else False
        for place, given in enumerate(tables):
            table = given if isinstance(given, dict) else {"value": given}
            at = ("args", name, place) if isinstance(entry, tuple) else ("args", name)
            value_at = (*at, "value") if isinstance(given, dict) else at
            if any(value is MISSING for value in table.values()):
                continue
            for key, code, message in consistency.variant_problems(name, table, tensor=tensor):
                self.report((*at, key) if key else at, code, message)
            yield self._variant(table, at, value_at)

    def _variant(self, table: Mapping[str, Any], at: TomlPath, value_at: TomlPath) -> ArgVariant:
        def expr(key: str) -> Expr | None:
            text = table.get(key)
            return None if text is None else self._expr((*at, key), text, self.over_axes)

        def sizes(key: str) -> list[tuple[str | int, Expr | None]] | None:
            texts = table.get(key)
            if texts is None:
                return None
            return [
                (text, self._expr((*at, key, place), _size_text(text), self.over_axes))
                for place, text in enumerate(texts)
            ]

        shape, strides, value = sizes("shape"), sizes("strides"), table.get("value")
        return ArgVariant(
            when=expr("when"),
            shape=None
            if shape is None
            else tuple(
                Dim(expr=size, spread=str(text).startswith(_ANY))
                for text, size in shape
                if size is not None
            ),
            dtype=expr("dtype"),
            strides=None
            if strides is None
            else tuple(None if text == _ANY else stride for text, stride in strides),
            init=_init(table.get("init")),
            high=expr("high"),
            value=None if value is None else self._expr(value_at, value, self.over_axes),
        )

    def _accuracy(self) -> dict[str, Accuracy]:
        tables = self.get("accuracy")
        found = {}
        for name, table in ({} if tables is MISSING else tables).items():
            if any(value is MISSING for value in table.values()):
                continue
            found[name] = Accuracy(**table)
        return found


def _size_text(text: str | int) -> str:
    return (str(text).removeprefix(_ANY) or "0") if isinstance(text, str) else str(text)


def _init(text: str | float | None) -> str | float | Reference | None:
    if isinstance(text, str) and ":" in text:
        file, _, name = text.rpartition(":")
        return Reference(file=file, name=name)
    return text


def problem_at(spec: KernelSpec, code: str, message: str, *at: str | int) -> Problem:
    """Return a problem of a key of a manifest that was read before."""
    document = Document(Path(spec.directory) / "kernel.toml", spec.path, KERNEL_MANIFEST)
    return Problem(path=spec.path, line=document.line(*at), code=code, message=message)
