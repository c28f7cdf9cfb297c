"""The schema of an op, in PyTorch's schema language, read without importing PyTorch."""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from attrs import frozen

from kernelpkg.expr.types import Scope, ValueType

NO_DEFAULT: Final = object()
"""Stands for the default of an argument that has none (None is a default of its own)."""

_ARG = re.compile(
    r"(?P<type>[A-Za-z]+(?:\??\[[0-9]*\])?)"
    r"(?:\((?P<alias>[a-z][a-z0-9]*)(?P<mutated>!?)\))?(?P<optional>\??)"
    r"\s+(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*(?:=\s*(?P<default>[^\s,]+))?"
)
# [0-9], for \d takes the digits of all scripts; 19 of them, for int() fails beyond 4,300.
_INT = re.compile(r"[+-]?[0-9]{1,19}")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_RETURN = re.compile(r"Tensor(?:\s+[A-Za-z_][A-Za-z0-9_]*)?")
INSTEAD: Final = (
    "let the op write an optional argument in place of a result that may be absent, as in "
    "'Tensor(a!)? lse=None'"
)
"""The remedy for a value that is a tensor in some calls and None in others."""
_TEXT = re.compile(r"\"[!#-\[\]-~]*\"|'[!-&(-\[\]-~]*'")  # without quotes and backslashes
_TYPES = ("Tensor", "int", "SymInt", "float", "bool", "str", "int[]")
_SAME = {"SymInt": "int", "SymInt[]": "int[]"}


def name_problem(name: str, *, private: bool = False) -> str | None:
    """Say why an op or a namespace cannot have a name, or return None.

    A `private` one may begin with an underscore; in a manifest it names files too, and may not.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        return f"'{name}' is not an identifier; use letters, digits and underscores"
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        return f"'{name}' is a keyword of Python; choose another name"
    if name in ("name", "_dir") or name.startswith("__" if private else "_"):
        return f"'{name}' would hide an attribute of torch.ops; choose another name"
    return None


class SchemaError(ValueError):
    """A schema string that is not one, or that uses what kernels cannot."""


@frozen(kw_only=True)
class OpArg:
    """One argument; `type` is Tensor, int, float, bool, str or int[] (SymInt reads as int)."""

    name: str
    type: str
    optional: bool = False
    alias: str = ""
    default: object = NO_DEFAULT

    @property
    def mutated(self) -> bool:
        """Whether the op writes into it; only written arguments have an alias."""
        return bool(self.alias)

    @property
    def is_tensor(self) -> bool:
        return self.type == "Tensor"


@frozen(kw_only=True)
class OpSchema:
    """The arguments of an op in order, and how many tensors it returns.

    `text` is the schema as written, without a name: "(Tensor x) -> Tensor".
    """

    text: str
    args: tuple[OpArg, ...]
    returns: int

    @property
    def arg_names(self) -> tuple[str, ...]:
        return tuple(arg.name for arg in self.args)

    @property
    def written(self) -> tuple[str, ...]:
        """The arguments that the op writes into, in order."""
        return tuple(arg.name for arg in self.args if arg.mutated)

    @property
    def results(self) -> tuple[str, ...]:
        """What manifests and messages call the results: "return", or "return[0]", "return[1]" …"""
        if self.returns == 1:
            return ("return",)
        return tuple(f"return[{place}]" for place in range(self.returns))

    @property
    def optional(self) -> frozenset[str]:
        """The arguments that a call may do without: they are None then."""
        return frozenset(arg.name for arg in self.args if arg.optional)

    def arg(self, name: str) -> OpArg:
        return self.args[self.arg_names.index(name)]


def parse_schema(text: str) -> OpSchema:
    """Read a schema such as "(Tensor(a!) out, Tensor x, float eps=1e-6) -> ()".

    Takes Tensor, int, SymInt, float, bool, str and int[] arguments, each optional or not, and
    returns of no, one or several tensors. Raises SchemaError, each of whose `args` is a problem and
    names the part and the remedy. Source of the grammar: PyTorch, aten/src/ATen/native/README.md.
    """
    outer = re.fullmatch(r"\s*\((?P<args>.*)\)\s*->\s*(?P<returns>.+?)\s*", text, re.DOTALL)
    if outer is None:
        raise SchemaError("is not of the form '(arguments) -> returns'")
    parts = outer["args"].split(",") if outer["args"].strip() else ()
    made: list[OpArg] = []
    wrong: list[str] = []
    for part in parts:
        try:
            made.append(_parse_arg(part.strip()))
        except SchemaError as error:
            wrong += error.args
    returns = 0
    try:
        returns = _parse_returns(outer["returns"])
    except SchemaError as error:
        wrong += error.args
    wrong += _between(made)
    if wrong:
        raise SchemaError(*wrong)
    return OpSchema(text=text.strip(), args=tuple(made), returns=returns)


def _between(args: Iterable[OpArg]) -> Iterator[str]:
    """Yield what is wrong of arguments beside each other."""
    seen: set[str] = set()
    aliases: dict[str, str] = {}
    defaulted = ""
    for arg in args:
        if arg.name in seen:
            yield f"names argument '{arg.name}' twice"
        seen.add(arg.name)
        if arg.alias and aliases.setdefault(arg.alias, arg.name) != arg.name:
            yield (
                f"arguments '{aliases[arg.alias]}' and '{arg.name}' have one alias "
                f"'{arg.alias}!'; give each its own letter"
            )
        if arg.default is NO_DEFAULT and defaulted:
            yield f"argument '{arg.name}' needs a default, as '{defaulted}' has one"
        if arg.default is not NO_DEFAULT:
            defaulted = arg.name


def _parse_arg(part: str) -> OpArg:
    match = _ARG.fullmatch(part)
    if match is None:
        raise SchemaError(
            f"has an argument that does not read as 'Type name' or 'Type name=default': '{part}'"
        )
    if match["type"] not in (*_TYPES, *_SAME):
        raise SchemaError(
            f"argument '{match['name']}' has type '{match['type']}'; "
            f"kernels take {', '.join(_TYPES[:-1])} and {_TYPES[-1]}"
        )
    if match["alias"] and (match["type"] != "Tensor" or not match["mutated"]):
        raise SchemaError(
            f"argument '{match['name']}': only a tensor that is written takes an alias, as in "
            f"'Tensor(a!) {match['name']}'"
        )
    if match["default"] == "None" and not match["optional"]:
        raise SchemaError(
            f"argument '{match['name']}' has default 'None', but is not optional; write "
            f"'{part.split(maxsplit=1)[0]}? {match['name']}=None'"
        )
    kind = _SAME.get(match["type"], match["type"])
    return OpArg(
        name=match["name"],
        type=kind,
        optional=bool(match["optional"]),
        alias=match["alias"] or "",
        default=_parse_default(match["name"], kind, bool(match["optional"]), match["default"]),
    )


def _parse_default(name: str, kind: str, optional: bool, text: str | None) -> object:
    if text is None:
        return NO_DEFAULT
    if text == "None" and optional:
        return None
    if kind == "bool" and text in ("True", "False"):
        return text == "True"
    if kind == "int" and _INT.fullmatch(text) and -(2**63) <= int(text) < 2**63:
        return int(text)
    if kind == "float" and _FLOAT.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    if kind == "str" and _TEXT.fullmatch(text):
        return text[1:-1]
    words = {"int": "an int of 64 bits", "str": "a text in quotes, without blanks and commas"}
    words["int[]"] = "None" if optional else "none, because a list is always given"
    wanted = words.get(kind, f"a {kind}{' or None' if optional else ''}")
    if kind == "Tensor":
        wanted = "None" if optional else "none, because it is always given"
    raise SchemaError(f"argument '{name}' has default '{text}'; it must be {wanted}")


def _parse_returns(text: str) -> int:
    if text == "()":
        return 0
    inner = text[1:-1] if text.startswith("(") and text.endswith(")") else text
    parts = [part.strip() for part in inner.split(",")]
    if not all(_RETURN.fullmatch(part) for part in parts):
        remedy = INSTEAD if "?" in text else "kernels return (), Tensor or (Tensor, Tensor, …)"
        raise SchemaError(f"returns '{text}'; {remedy}")
    return len(parts)


VALUES: Final[Mapping[str, ValueType]] = {
    "int": "whole", "float": "number", "bool": "flag", "str": "text",
}  # fmt: skip


def scope_of(schema: OpSchema | Any, axes: Mapping[str, ValueType | None]) -> Scope:
    """What the names of an expression stand for: arguments of a schema and axes.

    Axes hide arguments. A schema that could not be read has none.
    """
    args = getattr(schema, "args", ())
    return Scope(
        tensors=frozenset(arg.name for arg in args if arg.is_tensor),
        scalars={arg.name: VALUES[arg.type] for arg in args if arg.type in VALUES},
        lists=frozenset(arg.name for arg in args if arg.type == "int[]"),
        optional=frozenset(arg.name for arg in args if arg.optional),
        axes=axes,
    )
