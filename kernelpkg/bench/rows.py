"""What a benchmark measured: for each case of an op its sides, ours and the baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import field, frozen

from kernelpkg.bench.intervals import Interval
from kernelpkg.errors import UsageError, suggestion
from kernelpkg.manifest.spec import Scalar

OURS: Final = "ours"
BASELINES: Final = ("native", "compile", "eager", "copy")


def chosen_baselines(asked: Sequence[str] | None, *, interpret: bool) -> tuple[str, ...]:
    """Return the baselines that are asked for, all by default, in their order.

    Where ops are interpreted, references are compiled only where that is asked: for a CPU, which
    takes as long as for a GPU and tells less. Raises UsageError for one that is not known.
    """
    for name in asked or ():
        if name not in BASELINES:
            hint = suggestion(name, BASELINES) or f"; known are {', '.join(BASELINES)}"
            raise UsageError(f"'{name}' is not a baseline{hint}")
    default = [name for name in BASELINES if name != "compile" or not interpret]
    return tuple(name for name in BASELINES if name in (asked or default))


@frozen(kw_only=True)
class Traffic:
    """The bytes of one call: each that is needed read once, each that is made written once."""

    read: int
    written: int

    @property
    def moved(self) -> int:
        """Both together."""
        return self.read + self.written


@frozen(kw_only=True)
class Side:
    """One side of a case: microseconds of the GPU and the host, and the ratios of ours to it.

    `agrees` says whether it gives what the reference gives, by [accuracy], and is None where it was
    not held against it; `reason` says what disagrees, or why something is not there.
    """

    gpu: Interval | None = None
    host: Interval | None = None
    gpu_ratio: Interval | None = None
    host_ratio: Interval | None = None
    agrees: bool | None = None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the entry of a side."""
        times = {"gpu_us": self.gpu, "host_us": self.host}
        times |= {"gpu_ratio": self.gpu_ratio, "host_ratio": self.host_ratio}
        shown = {name: None if time is None else time.to_json() for name, time in times.items()}
        return {**shown, "agrees": self.agrees, "reason": self.reason}


@frozen(kw_only=True)
class BenchRow:
    """One case of an op: the bytes that it has to move, and its sides, ours among them.

    `failed` says why nothing was measured.
    """

    op: str
    axes: Mapping[str, Scalar]
    traffic: Traffic | None = None
    sides: Mapping[str, Side] = field(factory=dict)
    failed: str = ""

    @property
    def ok(self) -> bool:
        """Whether it was measured, and ours does not disagree with the reference."""
        return not self.failed and self.sides[OURS].agrees is not False

    def to_json(self) -> dict[str, Any]:
        """Return the entry of `bench --json`."""
        moved = self.traffic
        return {
            "op": self.op,
            "axes": dict(self.axes),
            "bytes": None if moved is None else {"read": moved.read, "written": moved.written},
            "sides": {name: side.to_json() for name, side in self.sides.items()},
            "failed": self.failed or None,
        }


@frozen(kw_only=True)
class BenchResults:
    """The rows that were measured, whether Ctrl-C ended it, and what made the GPU unusable."""

    rows: tuple[BenchRow, ...]
    interrupted: bool = False
    broken: str = ""

    @property
    def ok(self) -> bool:
        """Whether all was measured, and ours agrees with the references."""
        return not (self.interrupted or self.broken) and all(row.ok for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Return what of `bench --json` was measured."""
        return {
            "interrupted": self.interrupted,
            "broken": self.broken or None,
            "rows": [row.to_json() for row in self.rows],
        }
