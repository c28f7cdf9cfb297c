"""What became of a load and of each of its kernels, for people and as JSON."""

from __future__ import annotations

from html import escape
from typing import Any, Final, Literal

from attrs import asdict, frozen
from attrs.filters import exclude

from kernelpkg.errors import Problem, aligned, counted, folded, in_common
from kernelpkg.packs.verify import LockState

LoadStatus = Literal["registered", "failed", "disabled"]
Mode = Literal["prebuilt", "tuned", "default", "interpret"]
_HEAD: Final = ("op", "status", "mode", "platform", "cases", "configs", "lock", "check", "reason")
_FOLDED: Final = ("status", "mode", "platform", "lock", "check", "reason")


@frozen(kw_only=True)
class KernelReport:
    """What became of one kernel.

    Attributes:
        name: The name of the kernel.
        op: That of its op, with the namespace: "kernelpkg::silu_mul_fp8".
        status: "registered", "failed" or "disabled" (by KERNELPKG_DISABLE).
        mode: How the op runs: "prebuilt", "tuned", "default" or "interpret"; None where it is not
            registered.
        platform: The GPU, as in "nvidia_h200", or "cpu".
        cases: How many case keys are tuned on the platform.
        configs: How many distinct configs they have.
        file: The config file that they stand in.
        lock: "locked", "overlaid", "modified" or "unlocked"; None where the op is not registered.
        reason: Why the mode is not a better one, or why the op is not there.
        check: None where no smoke check ran, "ok", or a line that says what disagreed, or cannot be
            told here.
        finding: That line as a problem, or None.
        problems: What kept the kernel from loading, or configs of it from being borrowed.
    """

    name: str
    op: str
    status: LoadStatus
    mode: Mode | None = None
    platform: str
    cases: int = 0
    configs: int = 0
    file: str | None = None
    lock: LockState | None = None
    reason: str = ""
    check: str | None = None
    finding: Problem | None = None
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the kernel neither failed to load nor failed its smoke check."""
        wrong = self.finding is not None and self.finding.severity == "error"
        return self.status != "failed" and not wrong


@frozen(kw_only=True)
class LoadReport:
    """What became of a pack.

    Attributes:
        pack: The name of the pack.
        device: "cpu" or "cuda".
        platform: The GPU, as in "nvidia_h200", or "cpu".
        seconds: How long loading took, by the clock.
        kernels: One report for each kernel, in the order of the manifest.
        problems: What kept kernels from loading.
        notes: No failures, but probably not what was meant, such as a name in KERNELPKG_DISABLE
            that no loaded pack has, or a condition of a route that cannot be read.
    """

    pack: str
    device: str
    platform: str
    seconds: float
    kernels: tuple[KernelReport, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no kernel failed, to load or in its smoke check."""
        return not self.problems and all(kernel.ok for kernel in self.kernels)

    @property
    def best(self) -> bool:
        """Whether, beyond that, every op is there and runs prebuilt or tuned."""
        return self.ok and all(k.mode in ("prebuilt", "tuned") for k in self.kernels)

    def to_json(self) -> dict[str, Any]:
        """Return the document of `load --json`.

        Returns:
            Its keys; `check` of a kernel is there where a smoke check was asked for.
        """
        checked = any(kernel.check is not None for kernel in self.kernels)
        told = exclude("problems", "finding", *(() if checked else ("check",)))
        return {
            "pack": self.pack,
            "device": self.device,
            "platform": self.platform,
            "seconds": round(self.seconds, 3),
            "kernels": [asdict(kernel, filter=told) for kernel in self.kernels],
        }

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table for people.

        Returns:
            The head, and a row for each op.
        """
        checked = any(kernel.check is not None for kernel in self.kernels)
        rows = [_HEAD, *map(_row, self.kernels)]
        return rows if checked else [(*row[:7], *row[8:]) for row in rows]

    def lines(self, width: int = 80) -> list[str]:
        """Return the table for people, what all ops have in common, and the summary.

        Args:
            width: How wide the table may be.

        Returns:
            The lines; what the summary counts is no column where all ops have the same.
        """
        rows, same = folded(self.rows(), _FOLDED)
        said = {name: cell for name, cell in same.items() if name in ("mode", "lock", "reason")}
        return [*aligned(rows, width=width), *in_common(said, width), self.summary()]

    def summary(self) -> str:
        """Return one line with all counts.

        Returns:
            Such as "pack demo: 2 registered, 1 failed (cpu, 0.1 s)".
        """
        statuses = [kernel.status for kernel in self.kernels]
        parts = [f"{statuses.count('registered')} registered"]
        for status in ("failed", "disabled"):
            if status in statuses:
                parts.append(f"{statuses.count(status)} {status}")
        checks = [_checked(kernel) for kernel in self.kernels if kernel.check is not None]
        if checks:
            parts.append(f"{checks.count('ok')} of {len(checks)} checks ok")
        if "unverified" in checks:
            parts.append(f"{checks.count('unverified')} unverified")
        return f"pack {self.pack}: {', '.join(parts)} ({self.platform}, {self.seconds:.1f} s)"

    def warning(self) -> str:
        """Return one line with the first failure.

        Returns:
            The summary and the failure, as in "pack demo: 1 failed (cpu, 0.1 s); kernels/a/…".
        """
        first, *others = self.failures()
        more = f" (and {len(others)} more; 'failures()' of the report has all)" if others else ""
        return f"{self.summary()}; {first}{more}"

    def __str__(self) -> str:
        """Return every problem and note, the table and the summary, as `load` prints them."""
        told = map(str, (*self.notes, *self.failures()))
        return "\n".join([*told, *self.lines()])

    def _repr_html_(self) -> str:
        """Return the same for a notebook."""
        told = "".join(f"<p>{escape(str(one))}</p>" for one in (*self.notes, *self.failures()))
        head, *rows = (
            "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row)
            for tag, row in zip(["th", *["td"] * len(self.kernels)], self.rows(), strict=True)
        )
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"{told}{table}<p>{escape(self.summary())}</p>"

    def failures(self) -> tuple[Problem, ...]:
        """Return every problem.

        Returns:
            Those of the report, and one for each smoke check that is not ok: KP701 where it failed,
            and unverified where Helion's interpreter cannot run the kernel.
        """
        checks = [kernel.finding for kernel in self.kernels if kernel.finding is not None]
        return (*self.problems, *checks)


def _checked(kernel: KernelReport) -> str:
    """Return the smoke check of a kernel in a word."""
    if kernel.finding is None:
        return kernel.check or "-"
    return "FAILED" if kernel.finding.severity == "error" else "unverified"


def _row(kernel: KernelReport) -> tuple[str, ...]:
    listed = len(kernel.problems) if kernel.status == "failed" else int(kernel.finding is not None)
    return (
        kernel.op,
        kernel.status,
        kernel.mode or "-",
        kernel.platform,
        str(kernel.cases),
        str(kernel.configs),
        kernel.lock or "-",
        _checked(kernel),
        f"{counted(listed, 'problem')} listed" if listed else kernel.reason,
    )
