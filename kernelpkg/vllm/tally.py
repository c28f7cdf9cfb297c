"""How often ops of a pack answered for native ops, and what is told of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Final, Literal

from attrs import field, frozen

Status = Literal["routed", "waiting", "off"]

_HEAD: Final = ("native op", "op", "status", "ours", "native", "why")


class Tally:
    """A count of calls that stays exact with any number of threads, and takes no lock.

    One call of `add` is one step of an `itertools.count`, which nothing interrupts; what it has
    come to can be read of its text alone without another step.
    """

    __slots__ = ("_steps", "add")

    def __init__(self) -> None:
        self._steps = itertools.count()
        self.add = self._steps.__next__

    @property
    def value(self) -> int:
        return int(repr(self._steps).removeprefix("count(").removesuffix(")"))


@frozen(kw_only=True)
class RouteReport:
    """What became of one route of a pack, and of the calls of its native op since.

    `status` is "routed", "waiting" (for the native op to be there) or "off"; `reason` says why it
    is not routed. `ours` counts the calls that the op of the pack answered, and `native` those
    that went on to the native op while the route stood, by the reason for it.
    """

    target: str
    op: str
    status: Status
    reason: str = ""
    ours: int = 0
    native: Mapping[str, int] = field(factory=dict)

    @property
    def passed(self) -> int:
        """The calls that went on to the native op, for whatever reason."""
        return sum(self.native.values())


def table(reports: Iterable[RouteReport]) -> str:
    """Return reports as aligned lines below a head, each reason with its count on its own line."""
    rows = [_HEAD]
    for report in reports:
        told = [report.reason] if report.reason else []
        told += [f"{count} {reason}" for reason, count in report.native.items()]
        cells = (report.target, report.op, report.status, str(report.ours), str(report.passed))
        rows.append((*cells, told[0] if told else ""))
        rows += [("", "", "", "", "", line) for line in told[1:]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
