"""The strict decoder: kinds of values that both check a document and write its JSON Schema.

Nothing is coerced. Every problem of a document is reported; what cannot be decoded is replaced by
MISSING, so that one wrong key does not hide the next.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol

from attrs import field, frozen

from kernelpkg.errors import shown, suggestion

TomlPath = tuple[str | int, ...]
"""The way to a value: keys of tables and places in arrays, as in ("key", 1, "axis")."""

MISSING: Final = object()
"""Stands for a value that is not there or was refused."""

Report = Callable[[TomlPath, str, str], None]
"""Takes the path, the code and the message of a problem."""


class Kind(Protocol):
    """What a value may be."""

    @property
    def what(self) -> str:
        """The kind in words, for messages."""

    def accepts(self, value: object) -> bool:
        """Whether a value is of the TOML type of this kind; its content is not looked at."""

    def decode(self, value: object, at: TomlPath, report: Report) -> Any:
        """Return the value, or report what is wrong with it and return MISSING."""

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the kind."""


def _finite(value: object) -> bool:
    """Whether a value is a number that JSON can hold; a whole number of any size is."""
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _type_name(value: object) -> str:
    if type(value) is float and not math.isfinite(value):
        return "a number that is not finite"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    names |= {list: "an array", dict: "a table"}
    return names.get(type(value), "a date or time")


def _refuse(kind: Kind, value: object, at: TomlPath, report: Report) -> Any:
    got = shown(value)
    if not kind.accepts(value):
        is_plain = isinstance(value, str | int | float) and not isinstance(value, bool)
        got = f"{_type_name(value)} ({got})" if is_plain else _type_name(value)
    report(at, "KP012", f"{_called(at)} must be {kind.what}, not {got}")
    return MISSING


def _called(at: TomlPath) -> str:
    """Name a value: by its key, or by its place in the array of a key."""
    if not at:
        return "the document"
    if isinstance(at[-1], str):
        return f"'{at[-1]}'"
    key = next((part for part in reversed(at) if isinstance(part, str)), "")
    return f"entry {at[-1] + 1} of '{key}'"


@frozen
class Text:
    """A text, matched as a whole by a pattern; `what` says what the pattern means."""

    what: str = "a text"
    pattern: str | None = None

    def accepts(self, value: object) -> bool:
        return isinstance(value, str)

    def decode(self, value: object, at: TomlPath, report: Report) -> Any:
        if not isinstance(value, str) or (
            self.pattern is not None and not re.fullmatch(self.pattern, value)
        ):
            return _refuse(self, value, at, report)
        return value

    def schema(self) -> dict[str, Any]:
        pattern = {} if self.pattern is None else {"pattern": f"^(?:{self.pattern})$"}
        return {"type": "string", **pattern}


@frozen(kw_only=True)
class Number:
    """A number, or only a whole one; `least` and `most` are allowed themselves."""

    whole: bool = False
    least: float | None = None
    most: float | None = None

    @property
    def what(self) -> str:
        if self.least == self.most and self.least is not None:
            return f"{self.least:g}"
        bounds = [f"at least {self.least:g}"] if self.least is not None else []
        bounds += [f"at most {self.most:g}"] if self.most is not None else []
        return f"a {'whole ' if self.whole else ''}number {' and '.join(bounds)}".rstrip()

    def accepts(self, value: object) -> bool:
        return type(value) is int or (not self.whole and _finite(value))

    def decode(self, value: object, at: TomlPath, report: Report) -> Any:
        if (
            not isinstance(value, int | float)
            or not self.accepts(value)
            or (self.least is not None and value < self.least)
            or (self.most is not None and value > self.most)
        ):
            return _refuse(self, value, at, report)
        return value

    def schema(self) -> dict[str, Any]:
        found: dict[str, Any] = {"type": "integer" if self.whole else "number"}
        if self.least is not None:
            found["minimum"] = self.least
        if self.most is not None:
            found["maximum"] = self.most
        return found


@frozen
class Flag:
    """true or false."""

    what: str = "true or false"

    def accepts(self, value: object) -> bool:
        return isinstance(value, bool)

    def decode(self, value: object, at: TomlPath, report: Report) -> Any:
        return value if isinstance(value, bool) else _refuse(self, value, at, report)

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@frozen
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def what(self) -> str:
        words = [f"'{word}'" for word in self.words]
        return words[0] if len(words) == 1 else f"one of {', '.join(words)}"

    def accepts(self, value: object) -> bool:
        return isinstance(value, str)

    def decode(self, value: object, at: TomlPath, report: Report) -> Any:
        if isinstance(value, str) and value in self.words:
            return value
        if isinstance(value, str):
            wrong = f"{_called(at)} must be {self.what}, not {shown(value)}"
            report(at, "KP012", wrong + suggestion(value, self.words))
            return MISSING
        return _refuse(self, value, at, report)

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.words)}


@frozen
class ListOf:
    """An array of values of one kind; decodes to a tuple."""

    item: Kind
    least: Literal[0, 1] = 0

    @property
    def what(self) -> str:
        return "an array" + (" that is not empty" if self.least else "")

    def accepts(self, value: object) -> bool:
        return isinstance(value, list)

    def decode(self, value: object, at: TomlPath, report: Report) -> Any:
        if not isinstance(value, list):
            return _refuse(self, value, at, report)
        if len(value) < self.least:
            report(at, "KP012", f"{_called(at)} must be {self.what}, and has {len(value)}")
            return MISSING
        found = [self.item.decode(item, (*at, place), report) for place, item in enumerate(value)]
        return MISSING if any(item is MISSING for item in found) else tuple(found)

    def schema(self) -> dict[str, Any]:
        least = {"minItems": self.least} if self.least else {}
        return {"type": "array", "items": self.item.schema(), **least}


@frozen
class MapOf:
    """A table whose keys are free within a pattern; decodes to a dict."""

    item: Kind
    key: Text = Text()

    @property
    def what(self) -> str:
        return "a table"

    def accepts(self, value: object) -> bool:
        return isinstance(value, dict)

    def decode(self, value: object, at: TomlPath, report: Report) -> Any:
        if not isinstance(value, dict):
            return _refuse(self, value, at, report)
        found = {}
        for key, item in value.items():
            if self.key.pattern is not None and not re.fullmatch(self.key.pattern, key):
                report((*at, key), "KP013", f"'{key}' must be {self.key.what}")
            decoded = self.item.decode(item, (*at, key), report)
            if decoded is not MISSING:
                found[key] = decoded
        return found

    def schema(self) -> dict[str, Any]:
        found: dict[str, Any] = {"type": "object", "additionalProperties": self.item.schema()}
        if self.key.pattern is not None:
            found["propertyNames"] = {"pattern": f"^(?:{self.key.pattern})$"}
        return found


@frozen(kw_only=True)
class Key:
    """One key of a table: its kind, what it is for, and its value where it is not given.

    The default of a table is decoded too, so that `{}` stands for the defaults of its keys.
    """

    kind: Kind
    doc: str
    required: bool = False
    default: Any = None


@frozen(kw_only=True)
class Table:
    """A table of known keys, and of free ones where `rest` says what they hold.

    Decodes to a dict that has every known key; a key that is wrong or missing holds MISSING, one
    that is not given its default.
    """

    keys: Mapping[str, Key] = field(factory=dict)
    rest: MapOf | None = None

    @property
    def what(self) -> str:
        return "a table"

    def accepts(self, value: object) -> bool:
        return isinstance(value, dict)

    def decode(self, value: object, at: TomlPath, report: Report) -> Any:
        if not isinstance(value, dict):
            return _refuse(self, value, at, report)
        where = f" in [{'.'.join(map(str, at))}]" if at else ""
        found: dict[str, Any] = {}
        for name, key in self.keys.items():
            if name in value:
                found[name] = key.kind.decode(value[name], (*at, name), report)
            elif key.required:
                report(at, "KP011", f"key '{name}' is missing{where}; it must be {key.kind.what}")
                found[name] = MISSING
            elif isinstance(key.kind, Table) and key.default is not None:
                found[name] = key.kind.decode(key.default, (*at, name), report)
            else:
                found[name] = key.default
        others = {name: item for name, item in value.items() if name not in self.keys}
        if self.rest is not None:
            found |= self.rest.decode(others, at, report)
            return found
        for name in others:
            remedy = suggestion(name, self.keys) or f"; known are {', '.join(self.keys)}"
            report((*at, name), "KP010", f"key '{name}' is not known{where}{remedy}")
        return found

    def schema(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "type": "object",
            "properties": {
                name: {"description": key.doc, **key.kind.schema()}
                for name, key in self.keys.items()
            },
            "additionalProperties": False if self.rest is None else self.rest.item.schema(),
        }
        required = [name for name, key in self.keys.items() if key.required]
        if required:
            found["required"] = required
        if self.rest is not None and self.rest.key.pattern is not None:
            found["propertyNames"] = {"pattern": f"^(?:{self.rest.key.pattern})$"}
        return found


def required(kind: Kind, doc: str) -> Key:
    """Return a key that must be given."""
    return Key(kind=kind, doc=doc, required=True)


def optional(kind: Kind, doc: str, default: Any = None) -> Key:
    """Return a key that need not be given."""
    return Key(kind=kind, doc=doc, default=default)


def table(**keys: Key) -> Table:
    """Return a table of known keys alone, written like the table that it is of."""
    return Table(keys=keys)


@frozen
class Either:
    """A value of one of several kinds, told apart by their TOML types."""

    kinds: Sequence[Kind]
    words: str | None = None

    @property
    def what(self) -> str:
        return self.words or " or ".join(kind.what for kind in self.kinds)

    def accepts(self, value: object) -> bool:
        return any(kind.accepts(value) for kind in self.kinds)

    def decode(self, value: object, at: TomlPath, report: Report) -> Any:
        for kind in self.kinds:
            if kind.accepts(value):
                return kind.decode(value, at, report)
        return _refuse(self, value, at, report)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [kind.schema() for kind in self.kinds]}


@frozen
class Anything:
    """A value that another program checks."""

    what: str = "a value"

    def accepts(self, value: object) -> bool:
        return True

    def decode(self, value: object, at: TomlPath, report: Report) -> Any:
        return value

    def schema(self) -> dict[str, Any]:
        return {}
