"""Config files that are to be written: planned first, and then carried out as a whole."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from attrs import field, frozen

from kernelpkg.configs import platforms
from kernelpkg.configs.store import ConfigFile
from kernelpkg.errors import PackError, Problem, UsageError, counted, parameter
from kernelpkg.files import replace_texts
from kernelpkg.manifest.spec import PackSpec

FIT: Final = (
    "block sizes, and lists with an entry per load or store, fit only the source that they were "
    "tuned for"
)
"""What is to be known of configs that were tuned elsewhere."""

TransferAction = Literal["write", "replace", "unchanged"]

_DONE: Final = {"write": "wrote", "replace": "replaced", "unchanged": "unchanged:"}
_TO_DO: Final = {"write": "would write", "replace": "would replace", "unchanged": "unchanged:"}


@frozen(kw_only=True)
class FileStep:
    """One file of a transfer: its text, what becomes of it, and how many cases it holds."""

    path: Path
    text: str
    action: TransferAction
    cases: int
    configs: int

    def line(self, words: Mapping[str, str]) -> str:
        """Return the step for people."""
        held = f"{counted(self.cases, 'case')}, {counted(self.configs, 'config')}"
        return f"{words[self.action]} {self.path} ({held})"

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the document of the transfer."""
        counts = {"cases": self.cases, "configs": self.configs}
        return {"path": str(self.path), "action": self.action, **counts}


@frozen(kw_only=True)
class Transfer:
    """What is to be written, and all that stands in the way of it; made while it is planned.

    Only with `replace` is a file overwritten that is there already. `skipped` are paths that are
    left out, each with its reason.
    """

    replace: bool
    files: list[FileStep] = field(factory=list)
    skipped: list[tuple[str, str]] = field(factory=list)
    remarks: list[str] = field(factory=list)
    problems: list[Problem] = field(factory=list)

    def refuse(self, path: str, code: str, message: str) -> None:
        """Add a problem of a file as a whole."""
        self.problems.append(Problem(path=path, code=code, message=message))

    def add(
        self, path: Path, shown: str, text: str, file: ConfigFile, *, same: bool, inside: Path
    ) -> None:
        """Add a file that is to be written `inside` a directory, unless it is there already."""
        there: TransferAction = "replace" if os.path.lexists(path) else "write"
        action = "unchanged" if same else there
        if path.is_dir():
            self.refuse(shown, "KP827", "is a directory; remove it")
        elif not Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(inside)):
            self.refuse(shown, "KP827", f"a link leads out of {inside}; name where it leads to")
        elif action == "replace" and not self.replace:
            remedy = f"{parameter('replace', 'True')} overwrites it"
            self.refuse(shown, "KP827", f"already exists and differs; {remedy}")
        cases, distinct = file.counts()
        self.files.append(
            FileStep(path=path, text=text, action=action, cases=cases, configs=distinct)
        )

    def made(self, *remarks: str) -> Transfer:
        """Put the plan in order, with remarks if it writes; raises PackError with all problems."""
        if self.problems:
            raise PackError(problems=self.problems)
        self.files.sort(key=lambda step: step.path)
        self.skipped.sort()
        if any(step.action != "unchanged" for step in self.files):
            self.remarks.extend(remarks)
        return self

    def check_made(self, nothing: str) -> None:
        """Raise UsageError where all was left out, with the reason of the first."""
        if not self.files and not self.problems:
            path, reason = min(self.skipped)
            more = f" (and {len(self.skipped) - 1} more)" if self.skipped[1:] else ""
            raise UsageError(f"{nothing}: {path}: {reason}{more}")

    def carry_out(self) -> None:
        """Write all files, or none; raises UsageError where one cannot be written."""
        texts = {step.path: step.text for step in self.files if step.action != "unchanged"}
        try:
            replace_texts(texts)
        except OSError as error:
            raise UsageError(f"{error.filename} cannot be written: {error.strerror}") from None

    def to_json(self) -> dict[str, Any]:
        """Return the document of `import --json` and `export --json`."""
        skipped = [{"path": path, "reason": reason} for path, reason in self.skipped]
        files = [step.to_json() for step in self.files]
        return {"files": files, "skipped": skipped, "remarks": self.remarks}

    def lines(self, *, dry_run: bool) -> list[str]:
        """Return the transfer for people, as to be done or as done."""
        words = _TO_DO if dry_run else _DONE
        return [
            *(step.line(words) for step in self.files),
            *(f"skipped {path}: {reason}" for path, reason in self.skipped),
            *self.remarks,
        ]


def is_looked_up(plan: Transfer, pack: PackSpec, platform: str, shown: str) -> bool:
    """Whether the pack uses the configs of a platform; if not, they are left out or refused."""
    try:
        spelled = platforms.canonical(platform)
    except ValueError:
        spelled = ""
    if spelled != platform:
        remedy = f"rename it to '{spelled}'" if spelled else "use one such as nvidia_h200"
        plan.refuse(shown, "KP826", f"'{platform}' is not the name of a platform; {remedy}")
        return False
    used = platforms.platform_of(pack, platform).name
    if used != platform:
        reason = f"GPUs of platform '{platform}' use '{used}' in pack '{pack.name}'"
        plan.skipped.append((shown, f"{reason}, by its [platforms]"))
    return used == platform
