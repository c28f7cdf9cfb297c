"""What a transfer of config files writes: planned first, and then carried out as a whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from attrs import field, frozen

from kernelpkg.configs.store import ConfigFile
from kernelpkg.errors import PackError, Problem, UsageError
from kernelpkg.files import replace_texts

Action = Literal["write", "replace", "unchanged"]

_DONE: Final[Mapping[Action, str]] = {
    "write": "wrote",
    "replace": "replaced",
    "unchanged": "unchanged:",
}
_TO_DO: Final[Mapping[Action, str]] = {
    "write": "would write",
    "replace": "would replace",
    "unchanged": "unchanged:",
}


@frozen(kw_only=True)
class FileStep:
    """One file of a transfer: its text, what becomes of it, and how many cases it holds."""

    path: Path
    text: str
    action: Action
    cases: int
    configs: int

    def line(self, words: Mapping[Action, str]) -> str:
        """Return the step for people."""
        cases = f"{self.cases} case{'s' * (self.cases != 1)}"
        distinct = f"{self.configs} config{'s' * (self.configs != 1)}"
        return f"{words[self.action]} {self.path} ({cases}, {distinct})"


@frozen(kw_only=True)
class Transfer:
    """What is to be written; `skipped` are paths that are left out, each with its reason."""

    files: tuple[FileStep, ...]
    skipped: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]

    def carry_out(self) -> None:
        """Write all files, or none; raises UsageError where one cannot be written."""
        texts = {step.path: step.text for step in self.files if step.action != "unchanged"}
        try:
            replace_texts(texts)
        except OSError as error:
            where = Path(error.filename or "the files")
            where = where.parent if where.suffix == ".tmp" else where
            raise UsageError(f"{where} cannot be written: {error.strerror}") from None

    def to_json(self) -> dict[str, Any]:
        """Return the document of `import --json` and `export --json`."""
        files = [
            {
                "path": str(step.path),
                "action": step.action,
                "cases": step.cases,
                "configs": step.configs,
            }
            for step in self.files
        ]
        skipped = [{"path": path, "reason": reason} for path, reason in self.skipped]
        return {"files": files, "skipped": skipped, "remarks": list(self.remarks)}

    def lines(self, *, dry_run: bool) -> list[str]:
        """Return the transfer for people, as to be done or as done."""
        words = _TO_DO if dry_run else _DONE
        return [
            *(step.line(words) for step in self.files),
            *(f"skipped {path}: {reason}" for path, reason in self.skipped),
            *self.remarks,
        ]


@frozen(kw_only=True)
class Plan:
    """Collects what is to be written, and all that stands in the way of it.

    Only with `replace` is a file overwritten that is there already.
    """

    replace: bool
    files: list[FileStep] = field(factory=list)
    skipped: list[tuple[str, str]] = field(factory=list)
    problems: list[Problem] = field(factory=list)

    def refuse(self, path: str, code: str, message: str) -> None:
        """Add a problem of a file as a whole."""
        self.problems.append(Problem(path=path, code=code, message=message))

    def skip(self, path: str, reason: str) -> None:
        """Leave something out, for a reason that is told."""
        self.skipped.append((path, reason))

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Go on behind what raises problems, which are told in the end."""
        try:
            yield
        except PackError as error:
            self.problems.extend(error.problems)

    def add(self, path: Path, shown: str, text: str, file: ConfigFile, *, same: bool) -> None:
        """Add a file that is to be written, unless what is there is the same."""
        action: Action = "unchanged" if same else "replace" if os.path.lexists(path) else "write"
        if path.is_dir():
            self.refuse(shown, "KP827", "is a directory; remove it")
        elif action == "replace" and not self.replace:
            self.refuse(shown, "KP827", "is there already and differs; --replace overwrites it")
        cases, distinct = file.counts()
        self.files.append(
            FileStep(path=path, text=text, action=action, cases=cases, configs=distinct)
        )

    def made(self, *remarks: str) -> Transfer:
        """Return the transfer, with remarks if it writes; raises PackError with all problems."""
        if self.problems:
            raise PackError(problems=self.problems)
        writes = any(step.action != "unchanged" for step in self.files)
        return Transfer(
            files=tuple(sorted(self.files, key=lambda step: step.path)),
            skipped=tuple(sorted(self.skipped)),
            remarks=remarks if writes else (),
        )
