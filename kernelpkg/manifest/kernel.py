"""The document of one kernel to its spec: expressions are read, names and types are checked.

Before: `packs/read`. After: `configs/store`, which reads what is tuned for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from attrs import evolve

from kernelpkg.errors import quoted, suggestion
from kernelpkg.expr.language import Expr, ExprError, list_of, parse_expr
from kernelpkg.expr.types import Scope, ValueType, infer, value_problem, wants
from kernelpkg.manifest import validate
from kernelpkg.manifest.decode import MISSING, TomlPath
from kernelpkg.manifest.document import Document
from kernelpkg.manifest.keys import USES
from kernelpkg.manifest.opschema import (
    NO_DEFAULT,
    VALUES,
    OpArg,
    OpSchema,
    SchemaError,
    name_problem,
    parse_schema,
    scope_of,
)
from kernelpkg.manifest.spec import (
    Accuracy,
    ArgSpec,
    ArgVariant,
    Axis,
    Backward,
    Dim,
    Grid,
    KernelSpec,
    Properties,
    Reference,
    Rule,
)

_ANY: Final = "*"


def read_expr(document: Document, at: TomlPath, text: str) -> Expr | None:
    """Return the expression, or report why it is none and return None."""
    try:
        return parse_expr(text)
    except ExprError as error:
        document.report(at, "KP120", f"expression {quoted(text)} {error}")
        return None


def check_identifier(document: Document, at: TomlPath, name: str) -> None:
    """Report a name that Python, or an attribute of `torch.ops.<namespace>`, cannot have."""
    wrong = name_problem(name)
    if wrong is not None:
        document.report(at, "KP101", wrong)


def _is_like(entry: Any) -> bool:
    """Whether an entry of [args] takes over what another one says."""
    tables = entry if isinstance(entry, tuple) else (entry,)
    return any(isinstance(table, dict) and table.get("like") is not None for table in tables)


class KernelReader:
    """Builds the spec of one kernel out of its decoded document.

    `references` are the places in Python files that it names, with the paths of their keys.
    `checked` says that a lock vouches for the document, so that no types are held against it.
    """

    def __init__(self, document: Document, directory: Path, *, checked: bool = False) -> None:
        self.document = document
        self.directory = directory
        self.checked = checked
        self.get = document.get
        self.report = document.report
        self.references: list[tuple[TomlPath, Reference]] = []
        self.schema = self._schema()
        self.axis_types: dict[str, ValueType | None] = {}
        self.over_args = scope_of(self.schema, {})
        self.axes = self._axes()
        self.over_axes = Scope(axes=self.axis_types)
        self.over_both = scope_of(self.schema, self.axis_types)

    def read(self) -> KernelSpec | None:
        """Return the spec, or None where the document is too broken to make one."""
        parts: dict[str, Any] = {
            **self.head(),
            "specialize": self._specialize(),
            "axes": self.axes,
            "guards": self._guards(),
            "rules": self._rules(),
            "miss": "default" if self.get("miss") is None else self.get("miss", "action"),
            "defaults": self._defaults(),
            "grids": self._grids(),
            "generator": self._reference("inputs", "generator"),
            "args": self._args(),
            "accuracy": self._accuracy(),
            "properties": self._properties(),
        }
        return None if any(part is MISSING for part in parts.values()) else KernelSpec(**parts)

    def head(self) -> dict[str, Any]:
        """Return what [kernel], [op] and [helion] say of the spec without the other tables."""
        self._check_name()
        return {
            "name": self.get("kernel", "name"),
            "path": self.document.shown,
            "directory": str(self.directory),
            "digest": self.document.digest,
            "version": self.get("kernel", "version"),
            "summary": self.get("kernel", "summary"),
            "source": self._source(),
            "reference": self._eager(),
            "picker": self._reference("kernel", "picker"),
            "schema": self.schema,
            "fake_impl": self._fake_impl(),
            "backward": self._backward(),
            "requires": self.get("helion", "requires"),
            "settings": self.get("helion", "settings"),
            "default": self.get("helion", "default"),
        }

    def _check_name(self) -> None:
        name, at = self.get("kernel", "name"), ("kernel", "name")
        if name is MISSING:
            return
        if name != self.directory.name:
            message = f"kernel is named '{name}', its directory '{self.directory.name}'"
            self.report(at, "KP101", f"{message}; give both the same name")
        check_identifier(self.document, at, name)

    def _schema(self) -> OpSchema | Any:
        text = self.get("op", "schema")
        if text is MISSING:
            return MISSING
        try:
            return parse_schema(text)
        except SchemaError as error:
            for problem in error.args:
                self.report(("op", "schema"), "KP102", f"schema {problem}")
            return MISSING

    def _reference(self, *at: str) -> Reference | Any:
        text = self.get(*at)
        return text if text is MISSING or text is None else self._refer(at, text)

    def _refer(self, at: TomlPath, text: str) -> Reference:
        file, _, name = text.rpartition(":")
        reference = Reference(file=file, name=name)
        self.references.append((at, reference))
        return reference

    def _source(self) -> Reference | Any:
        if self.get("kernel", "source") is None:
            return self._refer(("kernel", "source"), f"kernel.py:{self.directory.name}")
        return self._reference("kernel", "source")

    def _eager(self) -> Reference | Any:
        none = self.get("kernel", "reference") == "none"
        return None if none else self._reference("kernel", "reference")

    def _fake_impl(self) -> Any:
        text = self.get("op", "fake_impl")
        return text if text in ("none", "infer") else self._reference("op", "fake_impl")

    def _backward(self) -> Backward | Any:
        table = self.get("op", "backward")
        if not isinstance(table, dict):
            return table
        return MISSING if MISSING in table.values() else Backward(**table)

    def _typed(
        self, at: TomlPath, text: str | int, scope: Scope, wanted: ValueType | None = None
    ) -> tuple[Expr | None, ValueType | None]:
        expr = read_expr(self.document, at, str(text))
        if expr is None or self.schema is MISSING or self.checked:
            return expr, None
        found, problems = infer(expr, scope)
        for code, message in problems:
            self.report(at, code, f"expression {quoted(str(text))}: {message}")
        wrong = None if wanted is None or problems else wants(found, wanted)
        if wrong is not None:
            self.report(at, "KP122", f"expression {quoted(str(text))} {wrong}")
        return expr, found

    def _expr(self, at: TomlPath, text: str | int, scope: Scope, wanted: ValueType) -> Expr | None:
        return self._typed(at, text, scope, wanted)[0]

    def _axes(self) -> tuple[Axis, ...]:
        found = []
        for name, text in self.get("axes", missing={}).items():
            at = ("axes", name)
            expr, self.axis_types[name] = self._typed(at, text, self.over_args)
            if expr is not None:
                found.append(Axis(name=name, expr=expr))
        return tuple(found)

    def _specialize(self) -> Any:
        names = self.get("helion", "specialize")
        for place, name in enumerate(() if names is MISSING else names):
            wrong = validate.specialize_problem(name, self.axis_types, names[:place])
            if wrong is not None:
                self.report(("helion", "specialize", place), "KP154", wrong)
        return names

    def _guards(self) -> tuple[Expr, ...]:
        found = [
            self._expr(("guard", "when", place), text, self.over_both, "flag")
            for place, text in enumerate(self.get("guard", "when", missing=()))
        ]
        return tuple(expr for expr in found if expr is not None)

    def _rules(self) -> tuple[Rule, ...]:
        rules: list[Rule] = []
        for place, table in enumerate(self.get("key", missing=())):
            if any(value is MISSING for value in table.values()):
                continue
            for key, code, message in validate.option_problems(table, rules):
                self.report(("key", place, key), code, message)
            options = {key: value for key, value in table.items() if value is not None}
            axes = options.pop("axis")
            for axis in (axes,) if isinstance(axes, str) else axes:
                for key, code, message in validate.axis_problems(axis, self.axis_types, rules):
                    self.report(("key", place, key), code, message)
                rules.append(Rule(axis=axis, **options))
        return tuple(rules)

    def _defaults(self) -> Any:
        defaults = self.get("inputs", "default")
        for axis, value in {} if defaults is MISSING else defaults.items():
            self._check_value(("inputs", "default", axis), axis, (value,))
        return defaults

    def _grids(self) -> tuple[Grid, ...]:
        found = []
        for place, table in enumerate(self.get("inputs", "grid", missing=())):
            at = ("inputs", "grid", place)
            axes = {key: value for key, value in table.items() if key not in ("use", "rows")}
            for axis, values in axes.items():
                self._check_value((*at, axis), axis, values)
            rows = () if table["rows"] is MISSING else table["rows"]
            for number, row in enumerate(rows):
                for axis, value in row.items():
                    self._check_value((*at, "rows", number, axis), axis, (value,), axes)
            if table["use"] is not MISSING:
                found.append(Grid(use=tuple(table["use"] or USES), axes=axes, rows=rows))
        return tuple(found)

    def _check_value(
        self, at: TomlPath, axis: str, values: tuple[Any, ...], taken: Mapping[str, Any] = {}
    ) -> None:
        """Report values of an axis that no call can have, and an axis that is not there."""
        if self.checked:
            return
        if axis not in self.axis_types:
            hint = suggestion(axis, self.axis_types) or "; define it, or remove it here"
            self.report(at, "KP140", f"axis '{axis}' is not defined in [axes]{hint}")
            return
        if axis in taken:
            message = f"axis '{axis}' is in the grid and in one of its rows; remove one"
            self.report(at, "KP140", message)
        for place, value in enumerate(values):
            wrong = value_problem(value, self.axis_types[axis])
            if wrong is not None:
                path = (*at, place) if len(values) > 1 else at
                self.report(path, "KP146", f"axis '{axis}' {wrong}")

    def _args(self) -> tuple[ArgSpec, ...] | Any:
        given = self.get("args")
        if given is MISSING or self.schema is MISSING:
            return MISSING
        names = self.schema.arg_names
        for name in given:
            if name not in names:
                hint = suggestion(name, names) or f"; it has {', '.join(names)}"
                message = f"argument '{name}' is not in the schema{hint}"
                self.report(("args", name), "KP131", message)
        made: dict[str, ArgSpec] = {}
        for name in sorted(names, key=lambda name: _is_like(given.get(name))):
            made[name] = self._arg(name, given, made)
        return tuple(made[name] for name in names)

    def _arg(self, name: str, given: Mapping[str, Any], made: Mapping[str, ArgSpec]) -> ArgSpec:
        if name in given:
            return ArgSpec(name=name, variants=tuple(self._variants(name, given, made)))
        arg = self.schema.arg(name)
        if name in self.axis_types and not arg.is_tensor:
            return ArgSpec(name=name, variants=(ArgVariant(value=parse_expr(name)),))
        if not arg.is_tensor and arg.default is None:
            return ArgSpec(name=name, variants=())
        if not arg.is_tensor and arg.default is not NO_DEFAULT:
            return ArgSpec(name=name, variants=(ArgVariant(value=parse_expr(repr(arg.default))),))
        remedy = "a shape and a dtype" if arg.is_tensor else "a value, or an axis of its name"
        remedy = "its elements" if arg.type == "int[]" else remedy
        at = ("args", name) if isinstance(self.document.get("args"), dict) else ("args",)
        self.report(at, "KP130", f"argument '{name}' is not given in [args]; give {remedy}")
        return ArgSpec(name=name, variants=())

    def _variants(
        self, name: str, entries: Mapping[str, Any], made: Mapping[str, ArgSpec]
    ) -> Iterator[ArgVariant]:
        entry = entries[name]
        several = isinstance(entry, tuple) and any(isinstance(part, dict) for part in entry)
        tables = entry if several else (entry,)
        arg = self.schema.arg(name)
        open_ended = False
        for place, given in enumerate(tables):
            table = given if isinstance(given, dict) else {"value": given}
            at = ("args", name, place) if several else ("args", name)
            value_at = (*at, "value") if isinstance(given, dict) else at
            if any(value is MISSING for value in table.values()):
                continue
            problems = validate.variant_problems(name, table, tensor=arg.is_tensor)
            for key, code, message in problems:
                self.report((*at, key) if key else at, code, message)
            if open_ended:
                message = f"argument '{name}' has a variant without 'when' before this one; "
                self.report(at, "KP132", f"{message}only the last may omit it")
            open_ended = table.get("when") is None
            variant = self._variant(table, at, self._value(arg, value_at, table.get("value")))
            like = table.get("like") if arg.is_tensor else None
            if like is None:
                yield variant
                continue
            alone = len(tables) == 1 and variant.when is None
            wrong = validate.like_problem(name, like, entries, self.schema, alone=alone)
            if wrong is not None:
                self.report((*at, "like"), "KP132", wrong)
            others = made[like].variants if wrong is None and like in made else ()
            for other in others:
                found = validate.likened(variant, like, other)
                for key, code, message in validate.like_problems(name, like, found):
                    self.report((*at, key), code, message)
                yield found if others[1:] else evolve(found, when=variant.when)

    def _value(self, arg: OpArg, at: TomlPath, value: Any) -> Expr | None:
        """Return the value of a scalar, or that of a list by its elements."""
        if value is None or arg.is_tensor:
            return None
        if isinstance(value, tuple) != (arg.type == "int[]"):
            what = (
                "a list; give its elements" if arg.type == "int[]" else "not a list; give one value"
            )
            self.report(at, "KP132", f"argument '{arg.name}' is {what}")
            return None
        if not isinstance(value, tuple):
            return self._expr(at, value, self.over_axes, VALUES[arg.type])
        items = [
            self._expr((*at, i), item, self.over_axes, "whole") for i, item in enumerate(value)
        ]
        return list_of([item for item in items if item is not None])

    def _variant(self, table: Mapping[str, Any], at: TomlPath, value: Expr | None) -> ArgVariant:
        def expr(key: str, wanted: ValueType) -> Expr | None:
            text = table.get(key)
            return None if text is None else self._expr((*at, key), text, self.over_axes, wanted)

        def sizes(key: str) -> list[tuple[str | int, Expr | None]]:
            found = []
            for place, text in enumerate(table.get(key) or ()):
                size = str(text).removeprefix(_ANY) or "0"
                found.append((text, self._expr((*at, key, place), size, self.over_axes, "whole")))
            return found

        dims = tuple(
            Dim(expr=size, spread=str(text).startswith(_ANY))
            for text, size in sizes("shape")
            if size is not None
        )
        strides = tuple(None if text == _ANY else stride for text, stride in sizes("strides"))
        init = table.get("init")
        if isinstance(init, str) and ":" in init:
            init = self._refer((*at, "init"), init)
        return ArgVariant(
            when=expr("when", "flag"),
            shape=None if table.get("shape") is None else dims,
            dtype=expr("dtype", "dtype"),
            strides=None if table.get("strides") is None else strides,
            init=init,
            low=expr("low", "whole"),
            high=expr("high", "whole"),
            total=expr("total", "whole"),
            bits=table.get("bits"),
            value=value,
        )

    def _accuracy(self) -> dict[str, Accuracy]:
        found = {}
        for name, table in self.get("accuracy", missing={}).items():
            if any(value is MISSING for value in table.values()):
                continue
            found[name] = Accuracy(**table)
            self._check_rounding(name, table["rounding"])
        return found

    def _properties(self) -> dict[str, Properties]:
        found = {}
        for name, table in self.get("properties", missing={}).items():
            if any(value is MISSING for value in table.values()):
                continue
            at, zeros, holds = ("properties", name), table["zeros"], table["holds"]
            share = None
            if zeros is not None:
                share = self._expr((*at, "zeros"), str(zeros), self.over_axes, "number")
            found[name] = Properties(
                zeros=share,
                within=table["within"],
                seed=table["seed"],
                holds=None if holds is None else self._refer((*at, "holds"), holds),
            )
        return found

    def _check_rounding(self, name: str, argument: str | None) -> None:
        if argument is None or self.schema is MISSING:
            return
        tensors = [arg.name for arg in self.schema.args if arg.is_tensor and not arg.optional]
        if argument not in tensors:
            remedy = suggestion(argument, tensors) or f"; there are {', '.join(tensors)}"
            message = f"'rounding' names '{argument}', which is not a tensor that is always given"
            self.report(("accuracy", name, "rounding"), "KP109", message + remedy)
