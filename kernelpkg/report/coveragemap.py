"""The map of what calls get: rows of calls, the lines that they lie on, what becomes of each."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, Literal

from attrs import frozen

from kernelpkg.configs.selection import Chosen, ConfigPlan
from kernelpkg.manifest.spec import KernelSpec, Scalar

Outcome = Literal["exact", "bucketed", "extrapolated", "default", "missing", "refused"]

OUTCOMES: Final[tuple[Outcome, ...]] = (
    *("exact", "bucketed", "extrapolated", "default", "missing", "refused"),
)
"""What may become of a call, the best first."""


@frozen(kw_only=True)
class Move:
    """An axis whose value in a call is not that of the case it gets.

    `ratio` is the larger of the two over the smaller, and infinite where that is not positive.
    """

    axis: str
    value: Scalar
    to: Scalar
    extrapolated: bool

    @property
    def ratio(self) -> float:
        if isinstance(self.value, bool | str | None) or isinstance(self.to, bool | str | None):
            return 1.0
        low, high = sorted((self.value, self.to))
        return high / low if low > 0 else math.inf

    @property
    def sized(self) -> bool:
        """Whether both are numbers, so that one is how many times the other."""
        return self.ratio != 1.0


@frozen(kw_only=True)
class Answer:
    """What a call gets: the outcome, the config, and how far it is from what was tuned.

    `chosen` is None where nothing runs. `guard` says which guard refuses the call.
    """

    outcome: Outcome
    chosen: Chosen | None = None
    moves: tuple[Move, ...] = ()
    guard: str | None = None

    @property
    def origin(self) -> str:
        """Where the config comes from, in a word or two."""
        chosen = self.chosen
        if chosen is None:
            return "none"
        if chosen.platform is None:
            return "helion" if chosen.config is None else "manifest"
        if chosen.mode == "default":
            return "borrowed"
        if chosen.outcome != "default":
            return "tuned"
        return "variant" if chosen.key else "empty"

    def kind(self, axis: str | None) -> tuple[object, ...]:
        """Return what two calls of one stretch have in common; they differ in one axis alone."""
        far = any(move.axis == axis and move.extrapolated for move in self.moves)
        chosen = self.chosen
        if chosen is None:
            return self.outcome, self.guard
        key = None if chosen.key is None else tuple(chosen.key.items())
        return self.outcome, far, chosen.config_id, chosen.platform, key, chosen.reason


@frozen(kw_only=True)
class Stretch:
    """Calls from one value of an axis to another that get the same; without `last`, all above.

    `unless` are guards of which some of these calls are refused, and the others get the answer.
    """

    first: int
    last: int | None
    answer: Answer
    unless: tuple[str, ...] = ()


@frozen(kw_only=True)
class Cell:
    """One call of a row: its value of the row's axis, None where there is no such axis."""

    value: Scalar
    answer: Answer


@frozen(kw_only=True)
class Row:
    """Calls that differ in one axis: those asked about, and the whole line they are on."""

    axes: Mapping[str, Scalar]
    cells: tuple[Cell, ...]
    line: tuple[Stretch, ...]


@frozen(kw_only=True)
class SizeStretch:
    """Values of an axis that one rule takes to one tuned value; None: it takes them to none."""

    first: int
    last: int | None
    to: Scalar
    outcome: Literal["exact", "bucketed", "extrapolated", "miss"]


@frozen(kw_only=True)
class SizeLine:
    """Where one rule takes the values of its axis, for calls that the rules before it tell apart.

    `given` are the values of the axes of those rules; calls with any of them are taken alike.
    """

    axis: str
    match: str
    given: tuple[Mapping[str, Scalar], ...]
    line: tuple[SizeStretch, ...]


@frozen(kw_only=True)
class ModelShape:
    """The calls of one named model: `lacking` are axes that it does not give, nor any default.

    `given` are the axes of the op that it gives; without any, the op is not for it. `impossible`
    says which of them no call can have.
    """

    name: str
    given: Mapping[str, Scalar]
    lacking: tuple[str, ...] = ()
    impossible: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()


@frozen(kw_only=True)
class Coverage:
    """What becomes of the calls of one op on one platform.

    `axis` is the last key axis whose numbers are ordered; rows run along it. `unverified` says
    why the calls cannot be mapped.
    """

    plan: ConfigPlan
    axis: str | None
    unverified: str | None = None
    rows: tuple[Row, ...] = ()
    sizes: tuple[SizeLine, ...] = ()
    models: tuple[ModelShape, ...] = ()

    @property
    def spec(self) -> KernelSpec:
        return self.plan.spec


def tally(rows: Iterable[Row]) -> dict[Outcome, int]:
    """Count the calls of rows by their outcome."""
    found = Counter(cell.answer.outcome for row in rows for cell in row.cells)
    return {outcome: found[outcome] for outcome in OUTCOMES}


def farthest(rows: Iterable[Row]) -> Move | None:
    """Return the extrapolation of a call that goes farthest, the first of equal ones."""
    moves = [m for row in rows for cell in row.cells for m in cell.answer.moves if m.extrapolated]
    return max(moves, key=lambda move: move.ratio, default=None)
