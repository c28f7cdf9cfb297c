"""The JSON Schema of what each command prints with `--json`, made of the types of `documents`."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import (
    Any,
    Final,
    Literal,
    NewType,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import attrs

from kernelpkg.cli import documents, tuning_documents
from kernelpkg.cli.console import FORMAT
from kernelpkg.manifest.keys import DIALECT
from kernelpkg.manifest.spec import Scalar

DOCUMENTS: Final[Mapping[str, Mapping[str, type]]] = {
    "new": {"": documents.NewDocument},
    "test": {"": documents.TestDocument},
    "list": {"": documents.ListDocument},
    "show": {"": documents.ShowDocument},
    "load": {"": documents.LoadDocument},
    "warm": {"": documents.WarmDocument},
    "schema": {"with `--write`": documents.SchemaDocument},
    "doctor": {"": documents.DoctorDocument},
    "explain": {
        "of a call": tuning_documents.ExplainDocument,
        "of a code": tuning_documents.CodeDocument,
    },
    "coverage": {"": tuning_documents.CoverageDocument},
    "check": {"": documents.CheckDocument},
    "autotune": {
        "": tuning_documents.AutotuneDocument,
        "with `--dry-run`": tuning_documents.TuningPlanDocument,
    },
    "bench": {"": tuning_documents.BenchDocument},
    "build": {
        "": tuning_documents.BuildDocument,
        "with `--check`": tuning_documents.BuildCheckDocument,
    },
    "lock": {
        "": tuning_documents.LockDocument,
        "with `--check`": tuning_documents.LockCheckDocument,
    },
    "report": {"": tuning_documents.ReportDocument},
    "vendor": {
        "": documents.VendorDocument,
        "with `--check`": documents.VendorCheckDocument,
    },
    "import": {"": documents.TransferDocument},
    "export": {"": documents.TransferDocument},
}
"""By command, in the order of the help, its documents by when it prints them."""

_SCALARS: Final = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    types.NoneType: "null",
}


_ELSEWHERE: Final = {documents.Loaded: "load", documents.CheckedPack: "check"}
"""What is part of another document, by the command whose own it is."""


def schema_text(command: str) -> str:
    """Return the schema of what a command prints, as text."""
    return json.dumps(document_schema(command), indent=2) + "\n"


def document_schema(command: str) -> dict[str, Any]:
    """Return the schema of what a command prints: one of its documents, or why there is none."""
    kinds = (*DOCUMENTS[command].values(), documents.FailureDocument)
    defined: dict[str, Any] = {}
    return {
        "$schema": DIALECT,
        "title": f"kernelpkg {command} --json, format {FORMAT}",
        "anyOf": [_schema(kind, defined) for kind in kinds],
        "$defs": dict(sorted(defined.items())),
    }


def document_rows(kind: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the keys of a document with their types in words, those within others behind them.

    `[]` stands for the entries of an array, and `*` for keys that are not ours.
    """
    for name, (value, needed) in _keys(kind).items():
        place = f"{path}{name}"
        words = _words(value)
        yield place, words if needed else f"{words}; not always there"
        yield from _within(value, place)


def _within(kind: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yield the rows of what a value is made of."""
    kind = _plain(kind)
    for part in get_args(kind) if _is_union(kind) else (kind,):
        if part in _ELSEWHERE:
            continue
        if _is_object(part):
            yield from document_rows(part, f"{place}.")
        elif (item := _item(part)) is not None:
            yield from _within(item, f"{place}[]")
        elif (value := _value(part)) is not None:
            yield from _within(value, f"{place}.*")


def _words(kind: Any) -> str:
    """Return a type in words."""
    kind = _plain(kind)
    if kind is Any:
        return "anything"
    if kind == Scalar:
        return "scalar"
    if _is_union(kind):
        return " or ".join(map(_words, get_args(kind)))
    if get_origin(kind) is Literal:
        return " or ".join(f"`{json.dumps(value)}`" for value in get_args(kind))
    if kind in _SCALARS:
        return _SCALARS[kind]
    if kind in _ELSEWHERE:
        return "as [`{0}`](#{0}) prints it, without `format`".format(_ELSEWHERE[kind])
    if (value := _value(kind)) is not None:
        return "object" if value is Any or any(_within(value, "")) else f"object of {_words(value)}"
    if (item := _item(kind)) is None:
        return "object"
    return "array of objects" if _is_object(_plain(item)) else f"array of {_words(item)}"


def _schema(kind: Any, defined: dict[str, Any]) -> Any:
    """Return the schema of a type; those of objects are put among what is defined."""
    kind = _plain(kind)
    if kind is Any:
        return {}
    if _is_union(kind):
        parts = [_schema(part, defined) for part in get_args(kind)]
        if all(part.keys() == {"type"} for part in parts):
            return {"type": [part["type"] for part in parts]}
        return {"anyOf": parts}
    if get_origin(kind) is Literal:
        return {"enum": [*get_args(kind)]}
    if kind in _SCALARS:
        return {"type": _SCALARS[kind]}
    if (item := _item(kind)) is not None:
        return {"type": "array", "items": _schema(item, defined)}
    if (value := _value(kind)) is not None:
        return {"type": "object", "additionalProperties": _schema(value, defined)}
    if kind.__name__ not in defined:
        keys = _keys(kind)
        defined[kind.__name__] = {
            "type": "object",
            "properties": {name: _schema(value, defined) for name, (value, _) in keys.items()},
            "required": [name for name, (_, needed) in keys.items() if needed],
            "additionalProperties": False,
        }
    return {"$ref": f"#/$defs/{kind.__name__}"}


def _keys(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Return the keys of an object with their types, and whether they are always there."""
    hints = get_type_hints(kind, include_extras=True)
    names = [field.name for field in attrs.fields(kind)] if attrs.has(kind) else [*hints]
    return {
        name: (hints[name], get_origin(hints[name]) is not NotRequired)
        for name in sorted(names, key=lambda name: name != "format")
    }


def _plain(kind: Any) -> Any:
    """Return a type without what does not change how it is written."""
    while get_origin(kind) is NotRequired or isinstance(kind, NewType):
        kind = kind.__supertype__ if isinstance(kind, NewType) else get_args(kind)[0]
    return kind


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def _is_object(kind: Any) -> bool:
    return is_typeddict(kind) or (isinstance(kind, type) and attrs.has(kind))


def _item(kind: Any) -> Any:
    """Return the type of the items of a sequence; None for what is none."""
    return get_args(kind)[0] if get_origin(kind) in (list, tuple, Sequence) else None


def _value(kind: Any) -> Any:
    """Return the type of the values of a mapping with any keys; None for what is none."""
    return get_args(kind)[1] if get_origin(kind) in (dict, Mapping) else None
