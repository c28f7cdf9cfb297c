"""What became of a pack when it was loaded: per kernel a status, a mode, and the reason for it."""

from __future__ import annotations

from typing import Any, Final, Literal

from attrs import frozen

from kernelpkg.errors import Problem

Status = Literal["registered", "failed", "disabled"]
Mode = Literal["prebuilt", "tuned", "default", "interpret"]
LockState = Literal["locked", "overlaid", "modified", "unlocked"]
"""Of what was loaded: as the lock says; so, and an operator has put configs before it; not as the
lock says; of no lock."""

_KEYS: Final = (
    *("name", "op", "status", "mode", "platform", "cases", "configs", "file", "lock", "reason"),
)
_HEAD: Final = (
    *("op", "status", "mode", "platform", "cases", "configs", "lock", "check", "reason"),
)


@frozen(kw_only=True)
class KernelReport:
    """What became of one kernel.

    `cases` and `configs` count what is tuned on `platform`: keys, and distinct configs; `file` is
    where they stand. `lock` is None where the op is not registered. `reason` says why the mode is
    not a better one, or why the op is not there. `check` is None where no smoke check ran, "ok", or
    what disagreed.
    """

    name: str
    op: str
    status: Status
    mode: Mode | None = None
    platform: str
    cases: int = 0
    configs: int = 0
    file: str | None = None
    lock: LockState | None = None
    reason: str = ""
    check: str | None = None
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the kernel neither failed to load nor failed its smoke check."""
        return self.status != "failed" and self.check in (None, "ok")


@frozen(kw_only=True)
class LoadReport:
    """What became of a pack.

    `problems` are those that kept it, or kernels of it, from loading. `notes` are no failures, but
    probably not what was meant, such as a name in KERNELPKG_DISABLE that no loaded pack has, or a
    condition of a route that cannot be read.
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
        """Return the document of `load --json`; `check` is there where a smoke check was asked."""
        checked = any(kernel.check is not None for kernel in self.kernels)
        keys = (*_KEYS, "check") if checked else _KEYS
        return {
            "pack": self.pack,
            "device": self.device,
            "platform": self.platform,
            "seconds": round(self.seconds, 3),
            "kernels": [{key: getattr(kernel, key) for key in keys} for kernel in self.kernels],
        }

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table for people, with its head: a row per op."""
        checked = any(kernel.check is not None for kernel in self.kernels)
        rows = [_HEAD, *map(_row, self.kernels)]
        return rows if checked else [(*row[:7], *row[8:]) for row in rows]

    def summary(self) -> str:
        """Return one line with all counts."""
        statuses = [kernel.status for kernel in self.kernels]
        parts = [f"{statuses.count('registered')} registered"]
        for status in ("failed", "disabled"):
            if status in statuses:
                parts.append(f"{statuses.count(status)} {status}")
        checks = [kernel.check for kernel in self.kernels if kernel.check is not None]
        if checks:
            parts.append(f"{checks.count('ok')} of {len(checks)} checks ok")
        return f"pack {self.pack}: {', '.join(parts)} ({self.platform}, {self.seconds:.1f} s)"

    def failures(self) -> tuple[Problem, ...]:
        """Return every problem, of failed smoke checks too."""
        checks = [
            Problem(path=f"kernels/{k.name}", code="KP701", message=f"check failed: {k.check}")
            for k in self.kernels
            if k.check not in (None, "ok")
        ]
        return (*self.problems, *checks)


def _row(kernel: KernelReport) -> tuple[str, ...]:
    count = len(kernel.problems)
    said = f"{count} problem{'s' if count != 1 else ''}, listed above"
    return (
        kernel.op,
        kernel.status,
        kernel.mode or "-",
        kernel.platform,
        str(kernel.cases),
        str(kernel.configs),
        kernel.lock or "-",
        "-" if kernel.check is None else "ok" if kernel.check == "ok" else "FAILED",
        kernel.reason if kernel.status != "failed" else said,
    )
