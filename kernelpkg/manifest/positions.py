"""Where the keys of a TOML document stand: tomllib gives values without lines."""

from __future__ import annotations

import bisect
import re
import tomllib
from typing import Final

TomlPath = tuple[str | int, ...]
"""The way to a value: keys of tables and places in arrays, as in ("key", 1, "axis")."""

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
        self.lines.setdefault(path, bisect.bisect_left(self.breaks, at) + 1)

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
            path = self._inside(path)
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

    def _inside(self, path: TomlPath) -> TomlPath:
        """A header below an array of tables means the last of them."""
        return (*path, self.arrays[path]) if path in self.arrays else path

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
