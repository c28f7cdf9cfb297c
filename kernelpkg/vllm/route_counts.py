"""What became of the calls of a routed native op: how many which side answered, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from attrs import field, frozen

from kernelpkg.locks import make_lock

REASON_LIMIT: Final = 50
"""How many sentences of refused calls a route tells apart; they name sizes, and have no end."""

GRAD: Final = "an argument requires grad"
CAPTURE: Final = "no CUDA graph is being captured"
UNSEEN: Final = "first seen while a CUDA graph was being captured"
LATE: Final = "its code was not made before the first request"
OTHERS: Final = "not accepted, for other reasons"

OURS: Final = 0
"""The counter of calls that our op answered."""

RouteStatus = Literal["routed", "waiting", "off"]


@frozen(kw_only=True)
class RouteReport:
    """What became of one route of a pack, and of the calls of its native op since.

    Attributes:
        target: The native op, as in "_C::per_token_group_fp8_quant".
        op: The op of the pack, with its namespace.
        status: "routed", "waiting" (for the native op to be there) or "off".
        reason: Why it is not routed.
        ours: How many calls the op of the pack answered.
        native: How many went on to the native op while the route stood, by the reason for it.
        longer: How many signatures of the op are not launched as recorded, with code of its build,
            by the reason for it; `HelionKernelWrapper.fallbacks` counts them.
    """

    target: str
    op: str
    status: RouteStatus
    reason: str = ""
    ours: int = 0
    native: Mapping[str, int] = field(factory=dict)
    longer: Mapping[str, int] = field(factory=dict)

    @property
    def passed(self) -> int:
        """The calls that went on to the native op, for whatever reason."""
        return sum(self.native.values())


class RouteCounts:
    """The counts of one route, exact with any number of threads.

    A look-up counts what it answers under the counter that it was given with the answer; calls that
    no look-up has answered are counted here. `foreseen` are reasons that have a counter of their
    own, however many sentences about sizes come first.
    """

    def __init__(self, foreseen: Iterable[str]) -> None:
        self._counters = {
            reason: OURS + 1 + place for place, reason in enumerate(dict.fromkeys(foreseen))
        }
        self._look_ups: list[Any] = []
        self._past: dict[int, int] = {}
        self._lock = make_lock()

    def include(self, calls: Any) -> None:
        """Add what a look-up counts."""
        with self._lock:
            self._look_ups.append(calls)

    def counter(self, reason: str) -> int:
        """Return the counter of a reason for the native op to answer."""
        with self._lock:
            if reason not in self._counters and len(self._counters) >= REASON_LIMIT:
                reason = OTHERS
            return self._counters.setdefault(reason, OURS + 1 + len(self._counters))

    def count(self, reason: str | None) -> None:
        """Count one call that no look-up has counted; None is for one of our answers."""
        counter = OURS if reason is None else self.counter(reason)
        with self._lock:
            self._past[counter] = self._past.get(counter, 0) + 1

    def ours(self) -> int:
        """Return how many calls our op has answered."""
        with self._lock:
            return self._sum(OURS)

    def native(self) -> dict[str, int]:
        """Return how many calls went on to the native op, by the reasons that there were."""
        with self._lock:
            counts = {reason: self._sum(counter) for reason, counter in self._counters.items()}
        return {reason: count for reason, count in counts.items() if count}

    def _sum(self, counter: int) -> int:
        counts: list[int] = [calls.count(counter) for calls in self._look_ups]
        return sum(counts) + self._past.get(counter, 0)
