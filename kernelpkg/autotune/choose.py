"""Few configs for many cases: which cases to tune, and which of the configs found to keep.

Pure: cases and configs are any hashable values, told apart and ordered by their texts.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from attrs import frozen

from kernelpkg.autotune.store import TuningOutcome
from kernelpkg.manifest.helion_config import Config as HelionConfig

Case = TypeVar("Case", bound=Hashable)
Config = TypeVar("Config", bound=Hashable)

_WORK: Final = 2_000_000
"""Steps of the search for the fewest configs: some two seconds."""


def representatives(
    cases: Iterable[Case],
    n: int,
    *,
    variant: Callable[[Case], Hashable],
    sizes: Callable[[Case], Sequence[float]],
) -> tuple[Case, ...]:
    """Choose n cases that are spread over all, in the order in which they were chosen.

    The first of each variant comes first, that of the largest variant before the others: the case
    nearest to the medians of its sizes. Each further one is the farthest from all of its variant
    that are chosen (Gonzalez 1985: no case is more than twice as far from its representative as
    in the best choice). Distances are doublings, added over the sizes. Farthest points, and not
    k-medoids, because the choice of n is the beginning of that of n + 1: a run that is continued
    with more representatives has lost nothing.
    """
    distinct = sorted(set(cases), key=lambda case: (str(variant(case)), *sizes(case), str(case)))
    groups: dict[Hashable, list[Case]] = {}
    for case in distinct:
        groups.setdefault(variant(case), []).append(case)
    points = {case: tuple(map(_doublings, sizes(case))) for case in distinct}
    centres = []
    for group in sorted(groups.values(), key=lambda group: -len(group)):
        columns = zip(*(points[case] for case in group), strict=True)
        middle = tuple(map(statistics.median_low, columns))
        centres.append(min(group, key=lambda case: _apart(points[case], middle)))
    chosen = centres[: max(n, 0)]
    far = {
        case: _apart(points[case], points[centre])
        for centre in chosen
        for case in groups[variant(centre)]
        if case != centre
    }
    while far and len(chosen) < n:
        farthest = max(far, key=far.__getitem__)
        del far[farthest]
        chosen.append(farthest)
        for case in groups[variant(farthest)]:
            if case in far:
                far[case] = min(far[case], _apart(points[case], points[farthest]))
    return tuple(chosen)


def _doublings(size: float) -> float:
    """Return a size as a number of doublings of 1; nothing at all is half of 1."""
    return math.log2(size) if size > 0 else -1.0


def _apart(one: Sequence[float], other: Sequence[float]) -> float:
    return math.fsum(abs(a - b) for a, b in zip(one, other, strict=True))


def best(times: Mapping[Case, Mapping[Config, float]]) -> dict[Case, Config]:
    """Return the fastest config of each case; times that are no finite number never count.

    A case without any time is left out. Of equal times the config whose text comes first wins.
    """
    return {case: _fastest(row) for case, row in _measured(times).items()}


def prune(times: Mapping[Case, Mapping[Config, float]], within: float) -> dict[Case, Config]:
    """Return a config for each case, as few different ones as `cover` finds."""
    return dict(cover(times, within).configs)


@frozen(kw_only=True)
class Cover(Generic[Case, Config]):
    """A config for each case; `exact` says that no fewer configs would do, else a greedy choice.

    Where it is exact, no other choice of as few configs is faster in total.
    """

    configs: Mapping[Case, Config]
    exact: bool


def cover(
    times: Mapping[Case, Mapping[Config, float]], within: float, *, work: int = _WORK
) -> Cover[Case, Config]:
    """Find the fewest configs such that each case has one within a share of its best time.

    `within` is 0.02 for two percent. Ties go to the least total time, then to the texts of the
    configs. A minimum set cover: exact unless the search takes more than `work` steps. A case
    without any time is left out, and a config that failed on some cases serves the others.
    """
    measured = _measured(times)
    allowed = {case: _allowed(row, within) for case, row in measured.items()}
    configs = sorted({config for row in allowed.values() for config in row}, key=str)
    search = _Search([[row.get(config) for config in configs] for row in allowed.values()], work)
    kept = [configs[place] for place in search.fewest()]
    picks = {
        case: _fastest({config: row[config] for config in kept if config in row})
        for case, row in allowed.items()
    }
    return Cover(configs=picks, exact=search.exact)


def _measured(
    times: Mapping[Case, Mapping[Config, float]],
) -> dict[Case, dict[Config, float]]:
    finite = {
        case: {config: time for config, time in row.items() if math.isfinite(time)}
        for case, row in times.items()
    }
    return {case: row for case, row in finite.items() if row}


def _fastest(row: Mapping[Config, float]) -> Config:
    return min(row, key=lambda config: (row[config], str(config)))


def _allowed(row: Mapping[Config, float], within: float) -> dict[Config, float]:
    bound = min(row.values()) * (1 + within)
    least = min(row.values())  # itself within the bound, whatever the rounding
    return {config: time for config, time in row.items() if time <= bound or time == least}


class _Search:
    """The rows (cases) and columns (configs) of a set cover; sets of either are bits of a number.

    A row holds the time of each column that may serve it, and None for the others.
    """

    def __init__(self, rows: Sequence[Sequence[float | None]], work: int) -> None:
        self.rows: Final = rows
        self.work = work
        self.exact = True
        self.width: Final = len(rows[0]) if rows else 0
        self.serves: Final = [
            _bits(number for number, row in enumerate(rows) if row[place] is not None)
            for place in range(self.width)
        ]
        self.useful: Final = [
            place
            for place in range(self.width)
            if not any(self._better(other, place) for other in range(self.width))
        ]
        usable = _bits(self.useful)
        served = {
            _bits(place for place, time in enumerate(row) if time is not None) & usable
            for row in rows
        }
        # A row that every choice for another row serves as well needs no look; short ones first.
        self.needs: Final = sorted(
            (row for row in served if not any(less & ~row == 0 and less != row for less in served)),
            key=lambda row: (row.bit_count(), row),
        )

    def fewest(self) -> tuple[int, ...]:
        """Return the columns to keep; `exact` is False where the search was broken off."""
        greedy = self._greedy()
        for count in range(self._bound(self.needs, -1), len(greedy) + 1):
            found = self._least(count)
            self.exact = self.work >= 0
            if found is not None:
                return found
            if not self.exact:
                break
        return greedy

    def _better(self, one: int, other: int) -> bool:
        """Whether a column may stand in for one whose text comes later, without any loss."""
        if one >= other or self.serves[other] & ~self.serves[one]:
            return False
        pairs = ((row[one], row[other]) for row in self.rows)
        return not any(a is not None and b is not None and a > b for a, b in pairs)

    def _least(self, count: int) -> tuple[int, ...] | None:
        """Return the best choice of so many columns, or None if that is too few."""
        choices = self._choices(count, (), self.needs, -1)
        return min(((self._total(found), found) for found in choices), default=(0.0, None))[1]

    def _choices(
        self, count: int, chosen: tuple[int, ...], needs: Sequence[int], usable: int
    ) -> Iterator[tuple[int, ...]]:
        """Yield every choice of columns that serves the rows left, each of them once."""
        self.work -= 1 + len(needs)
        if not needs:
            yield tuple(sorted(chosen))
            return
        if self.work < 0 or self._bound(needs, usable) > count:
            return
        narrow = min(needs, key=lambda row: (row & usable).bit_count())
        for place in _places(narrow & usable):
            usable &= ~(1 << place)  # the choices with it all come now
            left = [row for row in needs if not row >> place & 1]
            yield from self._choices(count - 1, (*chosen, place), left, usable)

    def _bound(self, needs: Iterable[int], usable: int) -> int:
        """Return how many columns the rows need at least: so many rows share none."""
        taken = count = 0
        for row in needs:
            if not row & usable & taken:
                taken |= row & usable
                count += 1
        return count

    def _total(self, chosen: Sequence[int]) -> float:
        """Return the time of all rows, each with the fastest column of a choice."""
        self.work -= len(self.rows)
        return math.fsum(
            min(time for place in chosen if (time := row[place]) is not None) for row in self.rows
        )

    def _greedy(self) -> tuple[int, ...]:
        """Return a choice of columns, each the one that serves the most rows that are left."""
        left = _bits(range(len(self.rows)))
        chosen: list[int] = []
        while left:
            place = max(self.useful, key=lambda place: (self.serves[place] & left).bit_count())
            chosen.append(place)
            left &= ~self.serves[place]
        for place in tuple(chosen):  # an early choice may have become superfluous
            others = [other for other in chosen if other != place]
            if all(any(row[other] is not None for other in others) for row in self.rows):
                chosen = others
        return tuple(sorted(chosen))


def _bits(places: Iterable[int]) -> int:
    number = 0
    for place in places:
        number |= 1 << place
    return number


def _places(number: int) -> Iterator[int]:
    while number:
        low = number & -number
        yield low.bit_length() - 1
        number ^= low


MARGIN: Final = 0.02
"""By how much a config must be faster than the one it replaces, over the noise.

A change that gains less is not worth a compilation and a line of a diff.
"""


@frozen(kw_only=True)
class Trial:
    """The configs of one case that were held against each other in one run.

    All are by side: "new" is the best that the search found, "old" what the rules pick now, and
    "default" the default; a side that there is not, or that does not work, is left out of `ms`.
    `ratios` are medians of the paired times to the old one, `noise` the share of a time that means
    nothing, and `wrong` says what is wrong with a side.
    """

    configs: Mapping[str, HelionConfig]
    ms: Mapping[str, float]
    ratios: Mapping[str, float]
    noise: float
    wrong: Mapping[str, str]

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Trial:
        """Return the trial that a worker sent."""
        return cls(**{name: value[name] for name in ("configs", "ms", "ratios", "noise", "wrong")})

    def to_json(self) -> dict[str, Any]:
        """Return what `of` reads."""
        return {
            "configs": {side: dict(config) for side, config in self.configs.items()},
            "ms": dict(self.ms),
            "ratios": dict(self.ratios),
            "noise": self.noise,
            "wrong": dict(self.wrong),
        }


@frozen(kw_only=True)
class Verdict:
    """The side that a case gets, None where none works, and how that was reached."""

    outcome: TuningOutcome
    side: str | None
    reason: str


def judge(trial: Trial, margin: float) -> Verdict:
    """Choose the side of a case.

    An old config that works is replaced only by one that takes less than 1 - margin - noise of its
    time, in the same run. Where there is none, the faster of the new and the default one is taken.
    """
    told = "; ".join(f"the {side} config is wrong: {why}" for side, why in trial.wrong.items())
    others = [side for side in ("new", "default") if side in trial.ms]
    best = min(others, key=lambda side: trial.ms[side], default=None)
    if "old" in trial.ms:
        needed = 1 - margin - trial.noise
        faster = [side for side in others if trial.ratios[side] < needed]
        if not faster:
            return Verdict(outcome="kept", side="old", reason=told)
        best = min(faster, key=lambda side: trial.ratios[side])
    if best is None:
        return Verdict(outcome="wrong", side=None, reason=told or "no config could be timed")
    return Verdict(outcome="tuned", side=best, reason=told)
