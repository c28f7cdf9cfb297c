"""One TOML document: read, its edition found, parsed and decoded, its problems with lines."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final

from kernelpkg.codec import MISSING, Table
from kernelpkg.digest import digest_bytes
from kernelpkg.errors import PackError, Problem
from kernelpkg.keys import EDITION
from kernelpkg.positions import TomlPath, key_lines, line_of

_EDITION: Final = re.compile(r"^[ \t]*edition[ \t]*=[ \t]*(\d+)[ \t]*(?:#.*)?$", re.MULTILINE)
_PLACE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class Document:
    """A manifest on its way to a spec; collects what is wrong with it.

    `shown` is the path that messages give. `values` is what the table of keys decoded.
    """

    def __init__(self, path: Path, shown: str, table: Table) -> None:
        self.shown = shown
        self._found: list[tuple[TomlPath, str, str]] = []
        self._elsewhere: list[Problem] = []
        self.text, self.digest = self._read(path)
        self._check_edition()
        self.values: dict[str, Any] = table.decode(self._parse(), (), self.report)

    def _read(self, path: Path) -> tuple[str, str]:
        try:
            data = path.read_bytes()
            return data.decode(), digest_bytes(data)
        except OSError as error:
            raise self._broken(0, "KP001", f"cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
            raise self._broken(line, "KP003", "is not UTF-8; TOML files are") from None

    def _check_edition(self) -> None:
        match = _EDITION.search(self.text)
        if match is not None and int(match[1]) > EDITION:
            raise self._broken(
                self.text.count("\n", 0, match.start(1)) + 1,
                "KP002",
                f"edition {match[1]} is newer than this version of kernelpkg reads ({EDITION}); "
                "upgrade kernelpkg",
            )

    def _parse(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self.text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            reason = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
            place = _PLACE.search(reason)
            end = self.text.rstrip("\n").count("\n") + 1
            line = int(place[1]) if place and place[1] else end
            reason = _PLACE.sub("", reason)
            raise self._broken(line, "KP003", f"does not parse as TOML: {reason}") from None

    def _broken(self, line: int, code: str, message: str) -> PackError:
        problem = Problem(path=self.shown, line=line, code=code, message=message)
        return PackError(problems=(problem,))

    def report(self, at: TomlPath, code: str, message: str) -> None:
        """Note a problem of the value at a path."""
        self._found.append((at, code, message))

    def report_elsewhere(self, problem: Problem) -> None:
        """Note a problem of a file that the document refers to."""
        self._elsewhere.append(problem)

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

    def get(self, *at: str) -> Any:
        """Return the decoded value at a path, or MISSING where a part of the path was refused."""
        value: Any = self.values
        for key in at:
            value = value.get(key, MISSING) if isinstance(value, dict) else MISSING
        return value

    def line(self, *at: str | int) -> int:
        """Return the line of a path."""
        return line_of(key_lines(self.text), at)
