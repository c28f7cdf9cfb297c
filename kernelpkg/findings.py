"""What a check found: a place, a code, how sure it is, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from attrs import field, frozen

from kernelpkg.errors import Problem

Severity = Literal["error", "unverified"]
"""An `error` is wrong for sure; what is `unverified` cannot be told here, and its message why."""


@frozen(kw_only=True, order=True)
class Finding:
    """One finding; `level` is the lowest level of `check` that tells it.

    `path` and `line` are those of a `Problem`. Findings sort by place.
    """

    path: str
    line: int = 0
    code: str
    severity: Severity = "error"
    message: str
    level: int = 0

    @classmethod
    def of(cls, problem: Problem, level: int = 0) -> Finding:
        """Return a problem as an error."""
        return cls(
            path=problem.path,
            line=problem.line,
            code=problem.code,
            message=problem.message,
            level=level,
        )

    def __str__(self) -> str:
        doubt = "unverified: " if self.severity == "unverified" else ""
        return str(
            Problem(
                path=self.path, line=self.line, code=self.code, message=f"{doubt}{self.message}"
            )
        )

    def to_json(self) -> dict[str, Any]:
        """Return the entry of `check --json`."""
        return {
            "path": self.path,
            "line": self.line,
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "level": self.level,
        }


def _in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings))


@frozen(kw_only=True)
class Checked:
    """What one level of `check` found, or several of them, and what they looked at."""

    findings: tuple[Finding, ...] = field(default=(), converter=_in_order)
    counts: Mapping[str, Any] = field(factory=dict)

    def merge(self, other: Checked) -> Checked:
        """Return the findings and counts of both; equal findings are one."""
        findings = dict.fromkeys([*self.findings, *other.findings])
        return Checked(findings=tuple(findings), counts={**self.counts, **other.counts})
