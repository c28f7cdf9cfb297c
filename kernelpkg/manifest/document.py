"""One TOML document: read, its edition found, parsed and decoded, its problems with lines."""

from __future__ import annotations

import json
import math
import re
import tomllib
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from kernelpkg.errors import PackError, Problem, pack_error, quoted, shown
from kernelpkg.expr.language import fits
from kernelpkg.files import digest_bytes, read_plain
from kernelpkg.manifest.decode import MISSING, Table, TomlPath
from kernelpkg.manifest.keys import EDITION

_EDITION: Final = re.compile(r"[ \t]*edition[ \t]*=[ \t]*(\d{1,9})[ \t]*(?:#.*)?")
_PLACE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_MANY_DIGITS: Final = re.compile(r"0[xob]\w{16}|\d[\d_]{18}")
"""What may be a whole number of more than 64 bits; nothing shorter is one."""
_MANY_PARTS: Final = 100
_DEEP_KEY: Final = re.compile(
    rf"(?:^|[\[{{,])[ \t]*(?:[A-Za-z0-9_-]+[ \t]*\.[ \t]*){{{_MANY_PARTS}}}", re.MULTILINE
)
"""A key of so many parts. All that it begins with are keys too, so memory grows as the square."""
_TEXT: Final = re.compile(
    r"""\"{3}(?:\\.|[^\\])*?\"{3}|'{3}.*?'{3}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|\#[^\n]*""", re.DOTALL
)
"""A text or a comment, in which dots mean nothing."""
_UNREAD: Final = ("KP011", "KP012", "KP013", "KP102", "KP120")


class Document:
    """A manifest on its way to a spec, or a lock; collects what is wrong with it.

    `name` is the path that messages give, and `edition` the newest that is read. `values` is what
    the table of keys decoded.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        table: Table,
        *,
        edition: int = EDITION,
        read_bytes: Callable[[Path], bytes] = read_plain,
    ) -> None:
        self.shown = name
        self.edition = edition
        self._read_bytes = read_bytes
        self._found: list[tuple[TomlPath, str, str]] = []
        self._elsewhere: list[Problem] = []
        self.text, self.digest = self._read(path)
        self._check_edition()
        self._check_keys()
        found = self._parse()
        given = found.get("edition")
        if type(given) is int and given > edition:  # spelled as the scan does not see it
            raise self._newer(self.line("edition"), shown(given))
        self.values: dict[str, Any] = table.decode(found, (), self.report)

    def _read(self, path: Path) -> tuple[str, str]:
        try:
            data = self._read_bytes(path)
            return data.decode(), digest_bytes(data)
        except OSError as error:
            raise pack_error(self.shown, "KP001", f"cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
            raise pack_error(self.shown, "KP003", "is not UTF-8; TOML files are", line) from None

    def _check_edition(self) -> None:
        """Find the edition before the first table, for a later one may not be TOML of today."""
        for number, line in enumerate(self.text.split("\n"), 1):
            match = _EDITION.fullmatch(line.rstrip("\r"))
            if match is not None and int(match[1]) > self.edition:
                raise self._newer(number, match[1])
            if match is not None or line.lstrip().startswith("["):
                return

    def _newer(self, line: int, edition: str) -> PackError:
        known = f"this version of kernelpkg reads ({self.edition}); upgrade kernelpkg"
        return pack_error(self.shown, "KP002", f"edition {edition} is newer than {known}", line)

    def _check_keys(self) -> None:
        """Refuse keys of very many parts, for which the parser takes hundreds of MB."""
        if all(line.count(".") < _MANY_PARTS for line in self.text.split("\n")):
            return
        plain = _TEXT.sub(lambda text: "t" + "\n" * text[0].count("\n"), self.text)
        if found := _DEEP_KEY.search(plain):
            message = "does not parse as TOML: it is nested too deeply"
            raise pack_error(self.shown, "KP003", message, plain.count("\n", 0, found.end()) + 1)

    def _parse(self) -> dict[str, Any]:
        try:
            found = tomllib.loads(self.text)
        except (ValueError, RecursionError) as error:  # ValueError: a number of too many digits
            reason = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
            place = _PLACE.search(reason)
            end = self.text.rstrip("\n").count("\n") + 1
            line = int(place[1]) if place and place[1] else end
            reason = _PLACE.sub("", reason)
            if reason.startswith(("Cannot overwrite", "Cannot declare", "Cannot mutate")):
                reason = f"a key or table is given twice, keep one of them ({reason})"
            elif "integer string conversion" in reason:
                reason, line = "a number has too many digits", self._longest_number(end)
            message = f"does not parse as TOML: {reason}"
            raise pack_error(self.shown, "KP003", message, line) from None
        if _MANY_DIGITS.search(self.text) and (long := _long_number(found)) is not None:
            message = "has a whole number of more than 64 bits; write one that fits into them"
            raise pack_error(self.shown, "KP003", message, self.line(*long))
        return found

    def _longest_number(self, end: int) -> int:
        """Return the line that has the most digits; Python does not say where a number is."""
        lines = self.text.split("\n")[:end]
        return max(range(end), key=lambda place: sum(map(str.isdigit, lines[place]))) + 1

    def report(self, at: TomlPath, code: str, message: str) -> None:
        """Note a problem of the value at a path."""
        self._found.append((at, code, message))

    def report_elsewhere(self, problem: Problem) -> None:
        """Note a problem of a file that the document refers to."""
        self._elsewhere.append(problem)

    @property
    def incomplete(self) -> bool:
        """Whether parts of the document could not be read, so that others seem to lack them."""
        return any(code in _UNREAD for _, code, _ in self._found)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong so far."""
        return not self._found and not self._elsewhere

    def problems(self) -> tuple[Problem, ...]:
        """Everything noted, with lines, in the order of the lines."""
        lines = key_lines(self.text) if self._found else {}
        own = [
            Problem(path=self.shown, line=line_of(lines, at), code=code, message=message)
            for at, code, message in self._found
        ]
        return tuple(sorted(set(own + self._elsewhere)))

    def get(self, *at: str, missing: Any = MISSING) -> Any:
        """Return the decoded value at a path, or `missing` where a part of it was refused."""
        value: Any = self.values
        for key in at:
            value = value.get(key, MISSING) if isinstance(value, dict) else MISSING
        return missing if value is MISSING else value

    def line(self, *at: str | int) -> int:
        """Return the line of a path."""
        return line_of(key_lines(self.text), at)


def _long_number(value: Any) -> TomlPath | None:
    """Return the place of a whole number that no op can take, or None."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            inside = _long_number(item)
            if inside is not None:
                return (key, *inside)
    return () if type(value) is int and not fits(value) else None


_SKIP: Final = re.compile(r"(?:[\s]+|\#[^\n]*)*")
_BLANK: Final = re.compile(r"[ \t]*")
_KEY: Final = re.compile(r'[A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'')
_VALUE: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'(?:.|\n)*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|[^\s,\]}#]+'
    r"(?:[ ]\d\d:[^\s,\]}#]+)?",
    re.DOTALL,
)


def key_lines(text: str) -> dict[TomlPath, int]:
    """Return the line, from 1, of every table, key and array entry of a valid TOML document."""
    return _Scanner(text).scan()


def line_of(lines: dict[TomlPath, int], path: TomlPath) -> int:
    """Return the line of a path, or of the nearest table around it that is there; 1 for none."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


class _Scanner:
    """One pass over the characters of a document that tomllib has accepted."""

    def __init__(self, text: str) -> None:
        self.text = text.replace("\r\n", "\n")
        self.at = 0
        self.lines: dict[TomlPath, int] = {}
        self.arrays: dict[TomlPath, int] = {}
        self.implied: set[TomlPath] = set()
        self.breaks = [match.start() for match in re.finditer("\n", self.text)]

    def scan(self) -> dict[TomlPath, int]:
        table: TomlPath = ()
        self._skip(_SKIP)
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_SKIP)
        return self.lines

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def _note(self, path: TomlPath, at: int) -> None:
        self.lines.setdefault(path, bisect_left(self.breaks, at) + 1)

    def _header(self) -> TomlPath:
        start = self.at
        double = self.text.startswith("[[", start)
        self.at += 2 if double else 1
        keys = self._keys()
        self.at += 2 if double else 1
        path: TomlPath = ()
        for key in keys[:-1]:
            path = (*path, key)
            if path not in self.lines:
                self._note(path, start)
                self.implied.add(path)
            if path in self.arrays:  # a header below an array of tables means the last of them
                path = (*path, self.arrays[path])
        path = (*path, keys[-1])
        if path in self.implied:  # its own header says where it stands
            self.implied.remove(path)
            del self.lines[path]
        if double:
            self._note(path, start)
            place = self.arrays.get(path, -1) + 1
            self.arrays[path] = place
            path = (*path, place)
        self._note(path, start)
        return path

    def _keys(self) -> list[str]:
        keys = []
        while True:
            self._skip(_BLANK)
            match = _KEY.match(self.text, self.at)
            assert match is not None, "the document was not accepted by tomllib"
            self.at = match.end()
            word = match[0]
            keys.append(next(iter(tomllib.loads(f"{word}=0"))) if word[0] in "\"'" else word)
            self._skip(_BLANK)
            if self.text[self.at] != ".":
                return keys
            self.at += 1

    def _pair(self, table: TomlPath) -> None:
        start = self.at
        path = (*table, *self._keys())
        for length in range(len(table) + 1, len(path) + 1):
            self._note(path[:length], start)
        self.at += 1  # the equals sign
        self._skip(_BLANK)
        self._value(path)

    def _value(self, path: TomlPath) -> None:
        opening = self.text[self.at]
        if opening == "[":
            self.at += 1
            self._skip(_SKIP)
            place = 0
            while self.text[self.at] != "]":
                self._note((*path, place), self.at)
                self._value((*path, place))
                place += 1
                self._separator()
            self.at += 1
        elif opening == "{":
            self.at += 1
            self._skip(_SKIP)
            while self.text[self.at] != "}":
                self._pair(path)
                self._separator()
            self.at += 1
        else:
            self._skip(_VALUE)

    def _separator(self) -> None:
        self._skip(_SKIP)
        if self.text[self.at] == ",":
            self.at += 1
            self._skip(_SKIP)


JsonPath = tuple[str | int, ...]
"""A value's place in a document: the names and positions that lead to it."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s"{}\[\]:,]+')


def parse_json(text: str) -> tuple[Any, bool]:
    """Return the document, and whether one of its objects has a name twice.

    Raises json.JSONDecodeError with the place of what is wrong, ValueError for NaN, for Infinity,
    for numbers beyond floats and whole ones beyond 64 bits, and RecursionError for a document that
    is nested too deep.
    """
    repeated = False

    def collected(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeated
        found = dict(pairs)
        repeated = repeated or len(found) < len(pairs)
        return found

    document = json.loads(
        text,
        object_pairs_hook=collected,
        parse_constant=_refuse,
        parse_float=_finite,
        parse_int=_whole if _MANY_DIGITS.search(text) else None,  # a call for each takes time
    )
    return document, repeated


def unreadable_json(error: Exception, text: str) -> tuple[int, str]:
    """Return the line and what is wrong, where a file, or `parse` of its text, raised an error."""
    if isinstance(error, json.JSONDecodeError):
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        what = "ends in the middle of its JSON" if cut else f"is not JSON at column {error.colno}"
        return error.lineno, f"the file {what} ({error.msg})"
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return 0, f"the file cannot be read ({reason})"


def json_lines(text: str) -> tuple[dict[JsonPath, int], tuple[tuple[JsonPath, int], ...]]:
    """Return the line of each value of a text that parses, and each name that is there again.

    A value of an object stands where its name does; one that is there twice, where it does first.
    """
    ends = [end.start() for end in re.finditer("\n", text)]
    found: dict[JsonPath, int] = {}
    again: list[tuple[JsonPath, int]] = []
    path: list[str | int] = []
    inside: list[set[str] | int] = []  # per open bracket: the names so far, or their number
    naming = False
    for token in _TOKEN.finditer(text):
        word, line = token[0], bisect_left(ends, token.start()) + 1
        around = inside[-1] if inside else None
        if word in (",", ":"):
            naming = word == "," and isinstance(around, set)
            continue
        if word in ("}", "]"):
            inside.pop()
        elif naming and isinstance(around, set):
            naming = False
            path.append(json.loads(word))
            if path[-1] in around:
                again.append((tuple(path), line))
            around.add(str(path[-1]))
            found.setdefault(tuple(path), line)
            continue
        else:
            if isinstance(around, int):
                path.append(around)
                inside[-1] = around + 1
                found.setdefault(tuple(path), line)
            if word in ("{", "["):
                inside.append(set() if word == "{" else 0)
                naming = word == "{"
                continue
        if path:
            path.pop()
    return found, tuple(again)


def _refuse(word: str) -> NoReturn:
    message = f"{quoted(word)[1:-1]} is not a finite number"
    raise ValueError(message)


def _whole(word: str) -> int:
    number = int(word) if len(word) < 21 else 2**64  # which fails beyond 4,300 digits
    if not fits(number):
        message = f"{quoted(word)[1:-1]} is a whole number of more than 64 bits"
        raise ValueError(message)
    return number


def _finite(word: str) -> float:
    number = float(word)
    return number if math.isfinite(number) else _refuse(word)
