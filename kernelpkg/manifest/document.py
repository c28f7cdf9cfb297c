"""One TOML document: read, its edition found, parsed and decoded, its problems with lines."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from kernelpkg.digest import digest_bytes
from kernelpkg.errors import PackError, Problem, shown
from kernelpkg.files import read_file
from kernelpkg.manifest.decode import MISSING, Table
from kernelpkg.manifest.keys import EDITION
from kernelpkg.manifest.positions import TomlPath, key_lines, line_of

_EDITION: Final = re.compile(r"[ \t]*edition[ \t]*=[ \t]*(\d{1,9})[ \t]*(?:#.*)?")
_PLACE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_TEARING: Final = ("KP011", "KP012", "KP013", "KP102", "KP120")


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
        read_bytes: Callable[[Path], bytes] = read_file,
    ) -> None:
        self.shown = name
        self.edition = edition
        self._read_bytes = read_bytes
        self._found: list[tuple[TomlPath, str, str]] = []
        self._elsewhere: list[Problem] = []
        self.text, self.digest = self._read(path)
        self._check_edition()
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
            raise self._broken(0, "KP001", f"cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
            raise self._broken(line, "KP003", "is not UTF-8; TOML files are") from None

    def _check_edition(self) -> None:
        """Find the edition before the first table, for a later one may be no TOML of today."""
        for number, line in enumerate(self.text.split("\n"), 1):
            match = _EDITION.fullmatch(line.rstrip("\r"))
            if match is not None and int(match[1]) > self.edition:
                raise self._newer(number, match[1])
            if match is not None or line.lstrip().startswith("["):
                return

    def _newer(self, line: int, edition: str) -> PackError:
        return self._broken(
            line,
            "KP002",
            f"edition {edition} is newer than this version of kernelpkg reads ({self.edition}); "
            "upgrade kernelpkg",
        )

    def _parse(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self.text)
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
            raise self._broken(line, "KP003", f"does not parse as TOML: {reason}") from None

    def _longest_number(self, end: int) -> int:
        """Return the line that has the most digits; Python does not say where a number is."""
        lines = self.text.split("\n")[:end]
        return max(range(end), key=lambda place: sum(map(str.isdigit, lines[place]))) + 1

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
    def torn(self) -> bool:
        """Whether parts of the document could not be read, so that others seem to lack them."""
        return any(code in _TEARING for _, code, _ in self._found)

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
