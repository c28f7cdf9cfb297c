"""A config file as checks look at it: its cases by the rules, and the line of everything in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from attrs import field, frozen

from kernelpkg.configs.match import identity
from kernelpkg.configs.store import ConfigFile
from kernelpkg.errors import Problem, Severity
from kernelpkg.manifest.cases import show
from kernelpkg.manifest.document import JsonPath, json_lines
from kernelpkg.manifest.helion_config import Config
from kernelpkg.manifest.spec import KernelSpec, Scalar

Row = tuple[Scalar, ...]
"""The values of a case key, in the order of the rules."""


@frozen(kw_only=True, eq=False, slots=False)
class CheckedFile:
    """A config file that was read without problems, of a kernel whose manifest was too.

    `shown` is its path in findings, and `overlay` says whether it is an operator's.
    """

    spec: KernelSpec
    shown: str
    platform: str
    overlay: bool
    file: ConfigFile
    text: str = field(repr=False)

    @cached_property
    def rows(self) -> Mapping[int, Row]:
        """The cases by their places, with what keys leave out filled in; not the case {}."""
        defaults = self.spec.defaults
        return {
            place: tuple(case.key.get(axis, defaults.get(axis)) for axis in self.spec.key_axes)
            for place, case in enumerate(self.file.cases)
            if case.key
        }

    @cached_property
    def by_row(self) -> Mapping[tuple[object, ...], int]:
        """The places of the cases, by what equality of their keys goes by."""
        return {identities(row): place for place, row in self.rows.items()}

    def config(self, place: int) -> Config:
        """Return the config of a case."""
        return self.file.configs[self.file.cases[place].config]

    def shown_case(self, row: Sequence[Scalar]) -> str:
        """Return a case as messages name it: without what keys may leave out, if any is left."""
        spec = self.spec
        pairs = list(zip(spec.key_axes, row, strict=False))  # or the first values of one
        named = [
            (axis, value)
            for axis, value in pairs
            if axis not in spec.defaults or identity(value) != identity(spec.defaults[axis])
        ]
        return ", ".join(f"{axis}={show(value)}" for axis, value in named or pairs)

    def case(self, place: int) -> str:
        """Return a case of the file as messages name it."""
        return self.shown_case(self.rows[place]) if place in self.rows else "{}"

    def finding(
        self, code: str, message: str, *at: str | int, severity: Severity = "error"
    ) -> Problem:
        """Return a finding of the value at a path in the file."""
        line = self._lines.get(at, 0) if at else 0
        return Problem(path=self.shown, line=line, code=code, message=message, severity=severity)

    @cached_property
    def _lines(self) -> Mapping[JsonPath, int]:
        return json_lines(self.text)[0]


def identities(row: Sequence[Scalar]) -> tuple[object, ...]:
    """Return what equality of keys goes by."""
    return tuple(map(identity, row))
