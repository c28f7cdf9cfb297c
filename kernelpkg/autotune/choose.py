"""Few configs for many cases: which cases to tune, and which of the configs found to keep.

Pure: cases and configs are any hashable values, told apart and ordered by their texts.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from attrs import frozen

from kernelpkg.autotune.saved_results import TuningOutcome
from kernelpkg.manifest.helion_config import Config

CaseT = TypeVar("CaseT", bound=Hashable)
ConfigT = TypeVar("ConfigT", bound=Hashable)


def representatives(
    cases: Iterable[CaseT],
    n: int,
    *,
    variant: Callable[[CaseT], Hashable],
    sizes: Callable[[CaseT], Sequence[float]],
) -> tuple[CaseT, ...]:
    """Choose n cases that are spread over all, in the order in which they were chosen.

    The first of each variant comes first, that of the largest variant before the others: the case
    nearest to the medians of its sizes. Each further one is the farthest from all of its variant
    that are chosen (Gonzalez 1985: no case is more than twice as far from its representative as
    in the best choice). Distances are doublings, added over the sizes. Farthest points, and not
    k-medoids, because the choice of n is the beginning of that of n + 1: a run that is continued
    with more representatives has lost nothing.
    """
    distinct = sorted(set(cases), key=lambda case: (str(variant(case)), *sizes(case), str(case)))
    groups: dict[Hashable, list[CaseT]] = {}
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


def prune(times: Mapping[CaseT, Mapping[ConfigT, float]], within: float) -> dict[CaseT, ConfigT]:
    """Return a config for each case, within a share of its best time, and few different ones.

    `within` is 0.02 for two percent. Times that are not finite never count: a case without any time
    is left out, and a config that failed on some cases serves the others.

    A greedy set cover: the config that serves the most cases that are left is kept, of several
    the one that is nearest to their best times, then the first by its text. Those that others have
    made superfluous are dropped, and each case gets the fastest that is kept. Not exact, because
    that saved one config in 2 of 180 tables like those of tunings, and none in the others.
    """
    allowed = {case: _allowed(row, within) for case, row in times.items()}
    rows = {case: row for case, row in allowed.items() if row}
    over: dict[ConfigT, dict[CaseT, float]] = {}  # by how much a config is slower than the best
    for case, row in rows.items():
        for config, time in row.items():
            over.setdefault(config, {})[case] = time - min(row.values())
    configs = sorted(over, key=str)
    kept: list[ConfigT] = []
    left = set(rows)
    while left:
        served = {
            config: [over[config][case] for case in left & over[config].keys()]
            for config in configs
        }
        chosen = max(configs, key=lambda config: (len(served[config]), -math.fsum(served[config])))
        kept.append(chosen)
        left -= over[chosen].keys()
    for config in tuple(kept):
        others = [other for other in kept if other != config]
        if all(any(other in row for other in others) for row in rows.values()):
            kept = others
    kept.sort(key=str)
    return {
        case: min((config for config in kept if config in row), key=row.__getitem__)
        for case, row in rows.items()
    }


def _allowed(row: Mapping[ConfigT, float], within: float) -> dict[ConfigT, float]:
    finite = {config: time for config, time in row.items() if math.isfinite(time)}
    least = min(finite.values(), default=0.0)  # itself within the bound, whatever the rounding
    bound = max(least, least * (1 + within))
    return {config: time for config, time in finite.items() if time <= bound}


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

    configs: Mapping[str, Config]
    ms: Mapping[str, float]
    ratios: Mapping[str, float]
    noise: float
    wrong: Mapping[str, str]

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Trial:
        """Return the trial that a worker sent."""
        return cls(**{name: value[name] for name in ("configs", "ms", "ratios", "noise", "wrong")})


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
